import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { connectUser, health } from './support/connections.js';
import { directory, HOST_SCOPES, hostOf, numbers } from './support/meetings.js';
import { startTestServer } from './support/server.js';
import { registerApp } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer();
const { control } = server.sandbox;

test('a meeting that is planned, deleted, or given another personal number at Zoom is in the directory by its webhook', async () => {
  const host = await connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES) });
  const meeting = control.createMeeting({ hostId: host.zoomUserId, topic: 'Weekly' });
  await until(async () => (await hostOf(server, { meetingId: String(meeting.id) })) === host.id);
  control.updateMeeting(meeting.id, { topic: 'Monthly' });
  control.updateUser(host.zoomUserId, { pmi: 5_554_443_332 });
  await until(async () => (await directory(server, host.tenantId)).includes('5554443332'));
  expect(await directory(server, host.tenantId)).toEqual([...numbers(meeting), '5554443332'].toSorted());
  control.deleteMeeting(meeting.id);
  await until(async () => (await directory(server, host.tenantId)).length === 1);
  expect(await hostOf(server, { meetingId: '5554443332' })).toBe(host.id);
});

test('who is deleted at Zoom leaves the directory, and the connection ends, by the webhook that tells it', async () => {
  const host = await connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES) });
  const meeting = control.createMeeting({ hostId: host.zoomUserId });
  await until(async () => (await hostOf(server, { meetingId: String(meeting.id) })) === host.id);
  control.removeUser(host.zoomUserId, { webhooks: true });
  await until(async () => (await directory(server, host.tenantId)).length === 0);
  expect(await health(server, host)).toMatch(/ PROVIDER_USER_REMOVED$/);
});

test('a new name of a Zoom user is taken over by the webhook that tells it', async () => {
  const host = await connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES) });
  const name = async () => {
    const [row] = await server.db.query<{ name: string }>(sql`
      SELECT provider_user_name AS name FROM provider_grant WHERE id = ${host.rowId}::uuid`);
    return row?.name;
  };
  expect(await name()).not.toBe('Ada Lovelace');
  control.updateUser(host.zoomUserId, {
    displayName: 'Ada Lovelace',
    email: `${host.zoomUserId.toLowerCase()}@new.example`,
  });
  await until(async () => (await name()) === 'Ada Lovelace');
});
