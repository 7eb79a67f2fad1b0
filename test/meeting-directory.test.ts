import fc from 'fast-check';
import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { applyMeetingEvent, type DirectoryEvent } from '../src/domain/meeting-directory.js';
import { claimListings } from '../src/domain/meeting-listing.js';
import { reconcileMeetings } from '../src/domain/meeting-reconciliation.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import { connectUser, type Connection, createZoomUser, disconnect, expire, read } from './support/connections.js';
import {
  directory,
  endSpacing,
  HOST_SCOPES,
  hostOf,
  installForAccount,
  makeListingsDue,
  memberOf,
  numbers,
  reconcileAll,
  requests,
  startMeetingWorkshop,
} from './support/meetings.js';
import { connect, registerApp } from './support/story.js';

const { server, createWorker } = await startMeetingWorkshop();
const { control } = server.sandbox;
const worker = createWorker();

beforeEach(async () => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
  await server.db.query(sql`UPDATE meeting_listing SET due_at = now() + interval '1 day'`);
  await server.db.query(
    sql`UPDATE provider_account SET next_listing_at = now() + interval '1 day', listing_paused_until = NULL`,
  );
});

const connectHost = async (given: Parameters<typeof connectUser>[1] = {}): Promise<Connection> =>
  connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES), ...given });

const createMeetings = ({ zoomUserId }: Connection, count: number) =>
  Array.from({ length: count }, () => control.createMeeting({ hostId: zoomUserId, webhooks: false }));

const pmiOf = async (connection: Connection): Promise<string> => {
  const { accessToken, apiUrl } = await read(server, connection);
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  return String(((await me.json()) as { pmi: number }).pmi);
};

test('meetings and the personal meeting number of a host are known once the host is connected', async () => {
  const hostId = createZoomUser(server);
  const [one, two] = [
    control.createMeeting({ hostId, webhooks: false }),
    control.createMeeting({ hostId, type: 8, webhooks: false }),
  ];
  control.createMeeting({ hostId: memberOf(server).id, webhooks: false });
  const host = await connectHost({ zoomUserId: hostId });
  expect(await hostOf(server, { meetingId: await pmiOf(host) })).toBe(host.id);
  await reconcileAll(server, worker);
  expect(await directory(server, host.tenantId)).toEqual([...numbers(one, two), await pmiOf(host)].toSorted());
  expect(await hostOf(server, { meetingId: String(one.id), tenantId: host.tenantId })).toBe(host.id);
  const spaced = String(two.id).replace(/^(...)(....)/, '$1 $2-');
  expect(await hostOf(server, { meetingId: spaced })).toBe(host.id);
});

test('of a meeting nothing but its number and its host is kept', async () => {
  const host = await connectHost();
  control.createMeeting({ hostId: host.zoomUserId, topic: 'Secret merger with Globex', webhooks: false });
  await reconcileAll(server, worker);
  const rows = await server.db.query<{ row: string }>(sql`
    SELECT m::text AS row FROM hosted_meeting m WHERE grant_id = ${host.rowId}::uuid`);
  expect(rows).toHaveLength(2);
  expect(JSON.stringify(rows)).not.toContain('Globex');
});

test('a list of many pages is read to its end, one page at a time, and a process that dies costs none of it', async () => {
  const host = await connectHost();
  const meetings = createMeetings(host, 650);
  expect(await reconcileMeetings(worker)).toBe(true);
  expect(await directory(server, host.tenantId)).toHaveLength(301);
  // At the second page a process dies: it has taken the page, and stores nothing.
  await endSpacing(server);
  expect(await claimListings(server.db, { limit: 1, spacingSeconds: 1 })).toMatchObject([{ grantId: host.rowId }]);
  await endSpacing(server);
  expect(await reconcileMeetings(createWorker())).toBe(false);
  await makeListingsDue(server, host.tenantId);
  await reconcileAll(server, createWorker());
  const known = await directory(server, host.tenantId);
  expect(known).toEqual(expect.arrayContaining(numbers(...meetings)));
  const pages = requests(server, host.app, 'list-meetings');
  expect(pages.map(({ outcome }) => outcome)).toEqual(['listed', 'listed', 'listed']);
  expect(await reconcileMeetings(worker)).toBe(false);
});

test('a page that Zoom no longer knows has the list read from its beginning', async () => {
  const host = await connectHost();
  const meetings = createMeetings(host, 310);
  await reconcileMeetings(worker);
  await server.db.query(sql`UPDATE meeting_listing SET page_token = 'forgotten' WHERE grant_id = ${host.rowId}::uuid`);
  await endSpacing(server);
  await reconcileMeetings(worker);
  await makeListingsDue(server, host.tenantId);
  await reconcileAll(server, worker);
  expect(await directory(server, host.tenantId)).toEqual(expect.arrayContaining(numbers(...meetings)));
  const outcomes = requests(server, host.app, 'list-meetings').map(({ outcome }) => outcome);
  expect(outcomes).toEqual(['listed', 'invalid-page', 'listed', 'listed']);
});

test('what was deleted at Zoom without a webhook is gone after the next round, and what was added is there', async () => {
  const host = await connectHost();
  const kept = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const deleted = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await reconcileAll(server, worker);
  control.deleteMeeting(deleted.id, { webhooks: false });
  const added = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await makeListingsDue(server, host.tenantId);
  await reconcileAll(server, worker);
  expect(await directory(server, host.tenantId)).toEqual([...numbers(kept, added), await pmiOf(host)].toSorted());
});

test('an installation knows the meetings of everybody in the account, and forgets who leaves it', async () => {
  const { members, admin, tenantId, app, id } = await installForAccount(server);
  const meetings = members.map((member) => control.createMeeting({ hostId: member.id, webhooks: false }));
  await reconcileAll(server, worker);
  await makeListingsDue(server, tenantId);
  await reconcileAll(server, worker);
  expect(await directory(server, tenantId)).toEqual(expect.arrayContaining(numbers(...meetings)));
  // A personal room for each of the four.
  expect(await directory(server, tenantId)).toHaveLength(7);
  for (const { id: meetingId } of meetings) expect(await hostOf(server, { meetingId: String(meetingId) })).toBe(id);
  const [gone, ...others] = members;
  control.removeUser(gone!.id);
  await makeListingsDue(server, tenantId);
  await reconcileAll(server, worker);
  expect(await directory(server, tenantId, gone!.id)).toEqual([]);
  expect(await directory(server, tenantId)).toHaveLength(5);
  expect(await directory(server, tenantId, others[0]!.id)).toHaveLength(2);
  expect(await directory(server, tenantId, admin.id)).toHaveLength(1);
  expect(requests(server, app, 'list-users').length).toBeGreaterThan(1);
});

test("the host's own connection is preferred to an installation, as long as it can act", async () => {
  const { members, tenantId, id } = await installForAccount(server);
  const hostId = members[0]!.id;
  const meeting = control.createMeeting({ hostId, webhooks: false });
  await reconcileAll(server, worker);
  await makeListingsDue(server, tenantId);
  await reconcileAll(server, worker);
  const app = await registerApp(server, 'USER_MANAGED', HOST_SCOPES);
  const own = await connectUser(server, { app, tenantId, zoomUserId: hostId });
  const meetingId = String(meeting.id);
  expect(await hostOf(server, { meetingId, tenantId })).toBe(own.id);
  await disconnect(server, own);
  expect(await hostOf(server, { meetingId, tenantId })).toBe(id);
});

test('a connection without a scope to act gives way to an installation that has one', async () => {
  const { members, tenantId, id } = await installForAccount(server);
  const hostId = members[0]!.id;
  const app = await registerApp(server, 'USER_MANAGED', ['user:read:user', 'meeting:read:list_meetings']);
  await connectUser(server, { app, tenantId, zoomUserId: hostId });
  const meeting = control.createMeeting({ hostId, webhooks: false });
  await reconcileAll(server, worker);
  expect(await hostOf(server, { meetingId: String(meeting.id), tenantId })).toBe(id);
});

test('a tenant does not find the meetings of another', async () => {
  const host = await connectHost();
  const stranger = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await reconcileAll(server, worker);
  const meetingId = String(meeting.id);
  expect(await hostOf(server, { meetingId, tenantId: stranger.tenantId })).toBeNull();
  expect(await hostOf(server, { meetingId, tenantId: 'org_nobody' })).toBeNull();
  expect(await hostOf(server, { meetingId, tenantId: host.tenantId })).toBe(host.id);
});

test.each(['', '12', '12345678901234567890', 'abc', '1234567890\0', '../users/me'])(
  '%j is no meeting, and Zoom is not asked about it',
  async (meetingId) => {
    const host = await connectHost();
    expect(await hostOf(server, { meetingId, tenantId: host.tenantId })).toBeNull();
    expect(requests(server, host.app, 'meeting')).toEqual([]);
  },
);

test('Zoom is asked about a meeting that the directory lacks, and what it says is kept', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, type: 1, webhooks: false });
  const meetingId = String(meeting.id);
  expect(await hostOf(server, { meetingId })).toBeNull();
  expect(requests(server, host.app, 'meeting')).toEqual([]);
  for (let time = 0; time < 2; time += 1) {
    expect(await hostOf(server, { meetingId, tenantId: host.tenantId })).toBe(host.id);
  }
  expect(requests(server, host.app, 'meeting')).toHaveLength(1);
});

test('for a meeting that nobody knows a few connections are asked and no more', async () => {
  const app = await registerApp(server, 'USER_MANAGED', HOST_SCOPES);
  const first = await connectHost({ app });
  for (let index = 2; index < 8; index += 1)
    await connectHost({ app, tenantId: first.tenantId, userId: `user_${index}` });
  expect(await hostOf(server, { meetingId: '81234567890', tenantId: first.tenantId })).toBeNull();
  expect(requests(server, app, 'meeting')).toHaveLength(4);
});

test('a connection that ends takes its part of the directory with it', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await reconcileAll(server, worker);
  await disconnect(server, host);
  const [left] = await server.db.query<{ count: number }>(sql`
    SELECT (SELECT count(*) FROM hosted_meeting WHERE grant_id = ${host.rowId}::uuid)
      + (SELECT count(*) FROM meeting_listing WHERE grant_id = ${host.rowId}::uuid) AS count`);
  expect(left).toEqual({ count: 0 });
  expect(await hostOf(server, { meetingId: String(meeting.id), tenantId: host.tenantId })).toBeNull();
});

test('a connection that goes over to another Zoom user forgets the meetings of the former one', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await reconcileAll(server, worker);
  const other = createZoomUser(server);
  const input = { tenantId: host.tenantId, userId: host.userId, appId: host.app.id, allowIdentityChange: true };
  expect((await connect(server, 'beginAuthorization', input, other)).status).toBe('COMPLETED');
  await reconcileAll(server, worker);
  expect(await directory(server, host.tenantId, host.zoomUserId)).toEqual([]);
  expect(await hostOf(server, { meetingId: String(meeting.id), tenantId: host.tenantId })).toBeNull();
});

test('an account whose limit is reached is left alone for as long as Zoom says, and others go on', async () => {
  const [limited, other] = [await installForAccount(server), await installForAccount(server)];
  const refusal = { kind: 'status', status: 429, headers: { 'retry-after': '120' } } as const;
  control.addFault({ route: 'list-users', clientId: limited.app.clientId, fault: refusal });
  await reconcileAll(server, worker);
  expect(requests(server, limited.app, 'list-users')).toHaveLength(1);
  expect(requests(server, other.app, 'list-users')).toHaveLength(1);
  await makeListingsDue(server, limited.tenantId);
  await reconcileAll(server, worker);
  expect(requests(server, limited.app, 'list-users')).toHaveLength(1);
  const [pause] = await server.db.query<{ seconds: number }>(sql`
    SELECT extract(epoch FROM listing_paused_until - now())::float8 AS seconds FROM provider_account
    WHERE account_id = ${limited.account.id}`);
  expect(pause?.seconds).toBeGreaterThan(110);
  expect(pause?.seconds).toBeLessThanOrEqual(120);
});

test('where little is left of the day of an account, it is left to others', async () => {
  const { account, app, tenantId } = await installForAccount(server);
  control.setKnobs({ requestsPerDay: 1 });
  await reconcileAll(server, worker);
  expect(requests(server, app, 'list-users').map(({ outcome }) => outcome)).toEqual(['listed']);
  await makeListingsDue(server, tenantId);
  await reconcileAll(server, worker);
  expect(requests(server, app, 'list-meetings')).toEqual([]);
  const [pause] = await server.db.query<{ paused: boolean }>(sql`
    SELECT listing_paused_until > now() + interval '30 minutes' AS paused FROM provider_account
    WHERE account_id = ${account.id}`);
  expect(pause).toEqual({ paused: true });
});

test('the next page of a list keeps its distance, too', async () => {
  const host = await connectHost();
  createMeetings(host, 310);
  await endSpacing(server);
  expect(await reconcileMeetings(worker)).toBe(true);
  expect(await reconcileMeetings(worker)).toBe(false);
  const [next] = await server.db.query<{ seconds: number }>(sql`
    SELECT extract(epoch FROM next_listing_at - now())::float8 AS seconds FROM provider_account a
    JOIN meeting_listing l ON l.provider_account_id = a.account_id WHERE l.grant_id = ${host.rowId}::uuid`);
  expect(next?.seconds).toBeGreaterThan(0.3);
  expect(next?.seconds).toBeLessThanOrEqual(1);
  expect(requests(server, host.app, 'list-meetings')).toHaveLength(1);
});

test('pages of one account keep their distance, whichever process reads them', async () => {
  const { app, tenantId } = await installForAccount(server);
  await reconcileMeetings(worker);
  await server.db.query(sql`
    UPDATE meeting_listing l SET due_at = now() FROM tenant t WHERE t.id = l.tenant_id AND t.external_id = ${tenantId}`);
  const processes = [worker, createWorker(), createWorker()];
  await Promise.all(processes.map((process) => reconcileMeetings(process)));
  expect(requests(server, app, 'list-meetings')).toEqual([]);
  await endSpacing(server);
  await Promise.all(processes.map((process) => reconcileMeetings(process)));
  expect(requests(server, app, 'list-meetings').length + requests(server, app, 'list-users').length).toBe(2);
});

test('a host whose token has expired is listed with a renewed one', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await expire(server, host);
  await reconcileAll(server, worker);
  expect(await directory(server, host.tenantId)).toEqual(expect.arrayContaining(numbers(meeting)));
});

test('an app without the scope is not asked for lists', async () => {
  const app = await registerApp(server, 'USER_MANAGED', ['user:read:user']);
  const host = await connectUser(server, { app });
  await reconcileAll(server, worker);
  expect(requests(server, app, 'list-meetings')).toEqual([]);
  expect(await directory(server, host.tenantId)).toHaveLength(1);
});

/** An hour ago, and `second` seconds. */
const second = (second: number): Date => new Date(Date.now() - 3_600_000 + second * 1_000);

type MeetingEvent = Extract<DirectoryEvent, { meetingId: string }>;

const meetingEvent = (
  event: Pick<MeetingEvent, 'name' | 'at' | 'accountId' | 'meetingId'> & Partial<MeetingEvent>,
): MeetingEvent => ({ hostId: null, isOccurrence: false, ...event });

async function appRowOf({ rowId }: Connection): Promise<{ id: string; accountId: string }> {
  const [app] = await server.db.query<{ id: string; accountId: string }>(sql`
    SELECT app_id AS id, provider_account_id AS "accountId" FROM provider_grant WHERE id = ${rowId}::uuid`);
  return app!;
}

const apply = (app: { id: string }, each: DirectoryEvent) =>
  server.db.transaction((tx) => applyMeetingEvent(tx, app, each));

test('the directory follows the events of meetings and personal numbers, in whatever order and how often they come', async () => {
  const host = await connectHost();
  const app = await appRowOf(host);
  const { accountId } = app;
  const hostId = host.zoomUserId;
  const [one, two, three] = ['81000000001', '81000000002', '81000000003'] as const;
  const news: DirectoryEvent[] = [
    meetingEvent({ name: 'meeting.created', at: second(1), accountId, meetingId: one, hostId }),
    meetingEvent({ name: 'meeting.updated', at: second(2), accountId, meetingId: one }),
    meetingEvent({ name: 'meeting.deleted', at: second(3), accountId, meetingId: one, hostId }),
    meetingEvent({ name: 'meeting.created', at: second(1), accountId, meetingId: two, hostId }),
    meetingEvent({ name: 'meeting.deleted', at: second(4), accountId, meetingId: two, hostId, isOccurrence: true }),
    meetingEvent({ name: 'meeting.updated', at: second(5), accountId, meetingId: three, hostId }),
    { name: 'user.updated', at: second(6), accountId, userId: hostId, personalMeetingId: '5550000001' },
    { name: 'user.updated', at: second(7), accountId, userId: hostId, personalMeetingId: '5550000002' },
    { name: 'user.updated', at: second(8), accountId, userId: hostId },
    { name: 'user.deactivated', at: second(9), accountId, userId: hostId },
  ];
  const order = fc.shuffledSubarray([...news, ...news], { minLength: news.length * 2 });
  await fc.assert(
    fc.asyncProperty(order, async (each) => {
      await server.db.query(sql`DELETE FROM hosted_meeting WHERE grant_id = ${host.rowId}::uuid`);
      for (const one of each) await apply(app, one);
      expect(await directory(server, host.tenantId)).toEqual(['5550000002', '81000000002', '81000000003']);
    }),
    { numRuns: 40 },
  );
}, 60_000);

test('an event that lacks what it needs, or is about strangers, changes nothing', async () => {
  const host = await connectHost();
  const stranger = await connectHost();
  const app = await appRowOf(host);
  const before = await directory(server, host.tenantId);
  const whole = meetingEvent({
    name: 'meeting.created',
    at: second(1),
    accountId: app.accountId,
    meetingId: '81000000009',
    hostId: host.zoomUserId,
  });
  for (const each of [
    { ...whole, hostId: null },
    { ...whole, hostId: stranger.zoomUserId },
    { ...whole, accountId: 'another' },
    { ...whole, meetingId: '12' },
  ]) {
    expect(await apply(app, each)).toBe(0);
  }
  // The same host, told to the webhook of an app that the host is not connected to.
  expect(await apply(await appRowOf(stranger), whole)).toBe(0);
  expect(await directory(server, host.tenantId)).toEqual(before);
  expect(await apply(app, whole)).toBe(1);
});

test('an event without a time counts as now, and one from the far future does not block later ones', async () => {
  const host = await connectHost();
  const app = await appRowOf(host);
  const event = { accountId: app.accountId, meetingId: '81000000011', hostId: host.zoomUserId };
  expect(await apply(app, meetingEvent({ name: 'meeting.created', at: null, ...event }))).toBe(1);
  expect(await directory(server, host.tenantId)).toContain('81000000011');
  await apply(app, meetingEvent({ name: 'meeting.created', at: new Date('2099-01-01'), ...event }));
  const [row] = await server.db.query<{ ahead: number }>(sql`
    SELECT extract(epoch FROM as_of - now())::float8 AS ahead FROM hosted_meeting WHERE meeting_id = '81000000011'`);
  expect(row?.ahead).toBeLessThan(301);
});

test('who is deleted at Zoom is out of the directory', async () => {
  const { members, tenantId, app, account } = await installForAccount(server);
  await reconcileAll(server, worker);
  const [appRow] = await server.db.query<{ id: string }>(sql`
    SELECT id FROM provider_app WHERE client_id = ${app.clientId}`);
  const gone = { name: 'user.deleted', accountId: account.id, userId: members[1]!.id, at: second(9) } as const;
  expect(await apply(appRow!, gone)).toBe(1);
  expect(await directory(server, tenantId, members[1]!.id)).toEqual([]);
  expect(await directory(server, tenantId, members[2]!.id)).toHaveLength(1);
});
