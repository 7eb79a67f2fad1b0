import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { reconcileMeetings } from '../../src/domain/meeting-reconciliation.js';
import {
  directory,
  endSpacing,
  installForAccount,
  makeListingsDue,
  requests,
  startMeetingWorkshop,
} from '../support/meetings.js';
import { createTenant } from '../support/story.js';

const { server, createWorker } = await startMeetingWorkshop();
const { control } = server.sandbox;
const workers = [createWorker(), createWorker(), createWorker(), createWorker()];

test('of many processes that list at once, each page is read by one, and none is left out', async () => {
  const installed = [];
  for (let index = 0; index < 4; index += 1) installed.push(await installForAccount(server));
  const meetings = installed.map(({ members }) =>
    members.map(({ id }) => control.createMeeting({ hostId: id, webhooks: false })),
  );
  for (const { tenantId } of installed) await makeListingsDue(server, tenantId);
  await Promise.all(workers.map((worker) => reconcileMeetings(worker)));
  for (const { tenantId } of installed) await makeListingsDue(server, tenantId);
  for (let round = 0; round < 8; round += 1) {
    await endSpacing(server);
    await Promise.all(workers.map((worker) => reconcileMeetings(worker)));
  }
  for (const [index, { tenantId, app }] of installed.entries()) {
    const known = await directory(server, tenantId);
    expect(known).toEqual(expect.arrayContaining(meetings[index]!.map(({ id }) => String(id))));
    expect(requests(server, app, 'list-users')).toHaveLength(2);
    // The administrator and three members.
    expect(requests(server, app, 'list-meetings')).toHaveLength(4);
  }
});

test('a process that was slow to store a page changes nothing when another has taken the list up', async () => {
  const { tenantId, app, members } = await installForAccount(server);
  const meeting = control.createMeeting({ hostId: members[0]!.id, webhooks: false });
  await makeListingsDue(server, tenantId);
  await reconcileMeetings(workers[0]!);
  await server.db.query(sql`
    UPDATE meeting_listing SET due_at = now() + interval '1 hour' WHERE host_user_id <> ${members[0]!.id}`);
  await makeDueFor(members[0]!.id);
  control.addFault({ route: 'list-meetings', clientId: app.clientId, fault: { kind: 'hang', when: 'after', ms: 400 } });
  const slow = reconcileMeetings(workers[0]!);
  await control.waitFor(
    ({ route, clientId, outcome }) => route === 'list-meetings' && clientId === app.clientId && outcome === 'listed',
  );
  // The lease of the slow one is over, and the list that the other one reads is another.
  control.deleteMeeting(meeting.id, { webhooks: false });
  const later = control.createMeeting({ hostId: members[0]!.id, webhooks: false });
  await makeDueFor(members[0]!.id);
  await reconcileMeetings(workers[1]!);
  await slow;
  const known = await directory(server, tenantId, members[0]!.id);
  expect(known).toContain(String(later.id));
  expect(known).not.toContain(String(meeting.id));
});

test('a URL is signed with one key, also when several processes sign the first one of a tenant', async () => {
  const tenantId = await createTenant(server);
  const mutation = `mutation ($input: CreateSignedUrlInput!) {
    createSignedUrl(input: $input) { ... on CreateSignedUrlSuccess { signedUrl { url } } ... on Error { message } }
  }`;
  const input = { tenantId, kind: 'ACCESS', meetingId: '81234567890' };
  const answers = await Promise.all(Array.from({ length: 8 }, () => server.data(mutation, { input })));
  // Rightly signed: the meeting is unknown. With a key that was lost it would be 401.
  for (const { createSignedUrl } of answers) {
    expect((await fetch(createSignedUrl.signedUrl.url)).status).toBe(404);
  }
});

async function makeDueFor(hostUserId: string): Promise<void> {
  await server.db.query(sql`
    UPDATE meeting_listing SET due_at = now() - interval '1 second' WHERE host_user_id = ${hostUserId}`);
  await endSpacing(server);
}
