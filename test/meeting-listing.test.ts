import { expect, test } from 'vitest';
import { connectUser, createZoomUser } from './support/connections.js';
import { HOST_SCOPES, hostOf, installForAccount } from './support/meetings.js';
import { startTestServer } from './support/server.js';
import { registerApp } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer({ LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '3600' });
const { control } = server.sandbox;

test('a server finds the meetings of a host who has connected by itself', async () => {
  const hostId = createZoomUser(server);
  const { id } = control.createMeeting({ hostId, webhooks: false });
  const app = await registerApp(server, 'USER_MANAGED', HOST_SCOPES);
  const host = await connectUser(server, { app, zoomUserId: hostId });
  await until(async () => (await hostOf(server, { meetingId: String(id) })) !== null);
  expect(await hostOf(server, { meetingId: String(id) })).toBe(host.id);
});

test('a server finds the hosts of an account and their meetings by itself, one page after the other', async () => {
  const { members, id } = await installForAccount(server);
  const { id: meetingId } = control.createMeeting({ hostId: members[2]!.id, webhooks: false });
  await until(async () => (await hostOf(server, { meetingId: String(meetingId) })) === id);
  expect(await hostOf(server, { meetingId: '81234567890' })).toBeNull();
});
