import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  type Connection,
  connectUser,
  createZoomUser,
  disconnect,
  expire,
  health,
  spoilRefresh,
} from './support/connections.js';
import {
  ACCOUNT_SCOPES,
  directory,
  HOST_SCOPES,
  installForAccount,
  requests,
  startMeetingWorkshop,
} from './support/meetings.js';
import { createTenant, type RegisteredApp, registerApp } from './support/story.js';

const { server } = await startMeetingWorkshop();
const { control } = server.sandbox;

beforeEach(async () => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
  await server.db.query(sql`UPDATE provider_account SET tokens_paused_until = NULL`);
});

const connectHost = async (given: Parameters<typeof connectUser>[1] = {}): Promise<Connection> =>
  connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES), ...given });

const TYPES = {
  localRecordingToken: 'MeetingInput',
  zakToken: 'ZakTokenInput',
  onBehalfOfToken: 'OnBehalfOfTokenInput',
} as const;

async function ask(field: keyof typeof TYPES, input: Record<string, unknown>): Promise<any> {
  const query = `query ($input: ${TYPES[field]}!) {
    ${field}(input: $input) {
      __typename
      ... on ProviderToken { token expiresAt grant { id } }
      ... on Error { message }
      ... on RefusedByProviderError { providerCode }
      ... on MissingScopesError { missingScopes grant { id } }
      ... on ReauthorizationRequiredError { reason grant { id } }
      ... on ProviderUnavailableError { reason retryAfterSeconds }
    }
  }`;
  return (await server.data(query, { input }))[field];
}

const record = (meeting: { id: number }, tenantId?: string) =>
  ask('localRecordingToken', { meetingId: String(meeting.id), ...(tenantId !== undefined && { tenantId }) });
const zak = ({ tenantId, userId }: { tenantId: string; userId: string }) => ask('zakToken', { tenantId, userId });

const claimsOf = (token: string) => JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8'));
const secondsUntil = (date: string): number => (Date.parse(date) - Date.now()) / 1_000;
const outcomes = (app: RegisteredApp, route: string) => requests(server, app, route).map(({ outcome }) => outcome);

test("a token for local recording is minted anew each time, with the host's credential", async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const first = await record(meeting, host.tenantId);
  expect(first).toMatchObject({ __typename: 'ProviderToken', grant: { id: host.id } });
  expect(secondsUntil(first.expiresAt)).toBeGreaterThan(110);
  expect(secondsUntil(first.expiresAt)).toBeLessThanOrEqual(121);
  const second = await record(meeting);
  expect(second.token).not.toBe(first.token);
  expect(outcomes(host.app, 'join-token')).toEqual(['minted', 'minted']);
});

test('an installation mints for the hosts of its account', async () => {
  const { members, tenantId, id } = await installForAccount(server);
  const meeting = control.createMeeting({ hostId: members[0]!.id, webhooks: false });
  expect(await record(meeting, tenantId)).toMatchObject({ __typename: 'ProviderToken', grant: { id } });
});

test('a meeting that nobody knows is not found, and where there is no connection at all that is said', async () => {
  const host = await connectHost();
  expect(await record({ id: 81_234_567_890 }, host.tenantId)).toMatchObject({ __typename: 'MeetingNotFoundError' });
  expect(await record({ id: 81_234_567_890 })).toMatchObject({ __typename: 'MeetingNotFoundError' });
  const empty = await createTenant(server);
  expect(await record({ id: 81_234_567_890 }, empty)).toMatchObject({ __typename: 'GrantNotFoundError' });
  expect(await record({ id: 81_234_567_890 }, 'nul\0')).toMatchObject({ __typename: 'MeetingNotFoundError' });
  const text = await ask('localRecordingToken', { meetingId: 'my meeting', tenantId: host.tenantId });
  expect(text.__typename).toBe('MeetingNotFoundError');
});

test('a meeting that Zoom has no more is not found, and leaves the directory', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await record(meeting, host.tenantId);
  control.deleteMeeting(meeting.id, { webhooks: false });
  expect(await record(meeting, host.tenantId)).toMatchObject({ __typename: 'MeetingNotFoundError' });
  expect(await directory(server, host.tenantId)).not.toContain(String(meeting.id));
});

test('recording that is switched off is a refusal with the number that Zoom gives', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  control.updateUser(host.zoomUserId, { localRecordingOff: true });
  expect(await record(meeting, host.tenantId)).toMatchObject({
    __typename: 'RefusedByProviderError',
    providerCode: '3000',
  });
});

test('a missing scope is named, and Zoom is not asked', async () => {
  const scopes = ['user:read:user', 'meeting:read:meeting'];
  const host = await connectHost({ app: await registerApp(server, 'USER_MANAGED', scopes) });
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  expect(await record(meeting, host.tenantId)).toMatchObject({
    __typename: 'MissingScopesError',
    missingScopes: ['meeting:read:local_recording_token'],
    grant: { id: host.id },
  });
  expect(await zak(host)).toMatchObject({ __typename: 'MissingScopesError', missingScopes: ['user:read:zak'] });
  expect([...outcomes(host.app, 'join-token'), ...outcomes(host.app, 'zak')]).toEqual([]);
});

test('a scope that Zoom says is missing after all is named, too', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const body = { code: 4711, message: 'Invalid access token, does not contain scopes:[x].' };
  control.addFault({ route: 'join-token', clientId: host.app.clientId, fault: { kind: 'status', status: 400, body } });
  expect(await record(meeting, host.tenantId)).toMatchObject({ __typename: 'MissingScopesError' });
});

test('a failure that Zoom dresses as a success is a failure', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const body = { code: 3161, message: 'Not allowed.' };
  control.addFault({ route: 'join-token', clientId: host.app.clientId, fault: { kind: 'status', status: 200, body } });
  expect(await record(meeting, host.tenantId)).toMatchObject({
    __typename: 'RefusedByProviderError',
    providerCode: '3161',
  });
});

test.each([
  ['is down', { kind: 'status', status: 503 }],
  ['cuts the connection', { kind: 'drop' }],
  ['answers a page', { kind: 'body', status: 200, contentType: 'text/html', body: '<h1>Hello</h1>' }],
  ['answers no token', { kind: 'status', status: 200, body: { expire_in: 120 } }],
] as const)('where Zoom %s, waiting is what helps', async (_what, fault) => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  control.addFault({ route: 'join-token', clientId: host.app.clientId, fault });
  expect(await record(meeting, host.tenantId)).toMatchObject({
    __typename: 'ProviderUnavailableError',
    reason: 'PROVIDER_UNAVAILABLE',
  });
  expect(await health(server, host)).toBe('HEALTHY CONNECTED');
});

test('an account that Zoom wants left alone is not asked again before the time it says', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const fault = { kind: 'status', status: 429, headers: { 'retry-after': '90' } } as const;
  control.addFault({ route: 'join-token', clientId: host.app.clientId, fault });
  const limited = { __typename: 'ProviderUnavailableError', reason: 'RATE_LIMITED' };
  expect(await record(meeting, host.tenantId)).toMatchObject({ ...limited, retryAfterSeconds: 90 });
  const again = await record(meeting, host.tenantId);
  expect(again).toMatchObject(limited);
  expect(again.retryAfterSeconds).toBeGreaterThan(80);
  expect(requests(server, host.app, 'join-token')).toHaveLength(1);
});

test('a token that Zoom refuses is renewed, and the call made once more', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  control.expireAccessTokens({ clientId: host.app.clientId });
  expect(await record(meeting, host.tenantId)).toMatchObject({ __typename: 'ProviderToken' });
  await expire(server, host);
  expect(await record(meeting, host.tenantId)).toMatchObject({ __typename: 'ProviderToken' });
});

test('a connection that has ended at Zoom says so, and one that was ended here is not there', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  await record(meeting, host.tenantId);
  await expire(server, host);
  spoilRefresh(server, host, { kind: 'status', status: 400, body: { error: 'invalid_grant' } });
  for (let time = 0; time < 2; time += 1) {
    const answer = await record(meeting, host.tenantId);
    expect(answer).toMatchObject({ __typename: 'ReauthorizationRequiredError', reason: 'GRANT_REJECTED' });
    expect(await zak(host)).toMatchObject({ __typename: 'ReauthorizationRequiredError' });
  }
  await disconnect(server, host);
  expect(await record(meeting, host.tenantId)).toMatchObject({ __typename: 'MeetingNotFoundError' });
  expect(await zak(host)).toMatchObject({ __typename: 'ReauthorizationRequiredError', reason: 'DISCONNECTED' });
});

test("where the host's own connection cannot serve, an installation does", async () => {
  const { members, tenantId, id } = await installForAccount(server);
  const host = await connectHost({ tenantId, zoomUserId: members[0]!.id });
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  expect(await record(meeting, tenantId)).toMatchObject({ grant: { id: host.id } });
  await expire(server, host);
  spoilRefresh(server, host, { kind: 'status', status: 503 });
  expect(await record(meeting, tenantId)).toMatchObject({ __typename: 'ProviderToken', grant: { id } });
});

test("a user's access key speaks for that user", async () => {
  const host = await connectHost();
  const answer = await zak(host);
  expect(answer).toMatchObject({ __typename: 'ProviderToken', grant: { id: host.id } });
  expect(claimsOf(answer.token)).toMatchObject({ typ: 'zak', uid: host.zoomUserId });
  expect(secondsUntil(answer.expiresAt)).toBeGreaterThan(7_000);
  expect(outcomes(host.app, 'zak')).toEqual(['minted']);
});

test('without the scope for it, the access key comes by the other call, or from an installation', async () => {
  const own = await connectHost({
    app: await registerApp(server, 'USER_MANAGED', ['user:read:user', 'user:read:token']),
  });
  const answer = await zak(own);
  expect(claimsOf(answer.token)).toMatchObject({ typ: 'zak', uid: own.zoomUserId });
  const { members, tenantId, id } = await installForAccount(server);
  const app = await registerApp(server, 'USER_MANAGED', ['user:read:user']);
  const user = await connectUser(server, { app, tenantId, zoomUserId: members[1]!.id });
  const byAdmin = await zak(user);
  expect(byAdmin).toMatchObject({ __typename: 'ProviderToken', grant: { id } });
  expect(claimsOf(byAdmin.token)).toMatchObject({ uid: members[1]!.id });
});

test('a user who never connected is not found', async () => {
  const host = await connectHost();
  for (const userId of ['user_2', 'nul\0', '']) {
    expect(await zak({ tenantId: host.tenantId, userId })).toMatchObject({ __typename: 'GrantNotFoundError' });
  }
  expect(await zak({ tenantId: 'org_nobody', userId: host.userId })).toMatchObject({
    __typename: 'GrantNotFoundError',
  });
});

test('a token on behalf of a user is for that user and that meeting', async () => {
  const host = await connectHost();
  const { tenantId, userId } = host;
  const meetingId = String(control.createMeeting({ hostId: createZoomUser(server), webhooks: false }).id);
  const answer = await ask('onBehalfOfToken', { tenantId, userId, meetingId });
  expect(answer).toMatchObject({ __typename: 'ProviderToken', grant: { id: host.id } });
  expect(claimsOf(answer.token)).toMatchObject({ typ: 'onbehalf', uid: host.zoomUserId, mid: meetingId });
  const none = await ask('onBehalfOfToken', { tenantId, userId, meetingId: 'none' });
  expect(none.__typename).toBe('MeetingNotFoundError');
});

test('what was minted is neither stored nor logged', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId, webhooks: false });
  const tokens = [(await record(meeting, host.tenantId)).token, (await zak(host)).token] as string[];
  const tables = await server.db.query<{ row: string }>(sql`SELECT m::text AS row FROM hosted_meeting m`);
  for (const token of tokens) {
    expect(server.logs.join('\n')).not.toContain(token);
    expect(JSON.stringify(tables)).not.toContain(token);
  }
});

test('classic scopes serve as the granular ones do', async () => {
  const scopes = ['user:read:admin', 'meeting:read:admin', 'meeting_token:read:admin:local_recording'];
  const { members, tenantId, id } = await installForAccount(server, { scopes });
  const meeting = control.createMeeting({ hostId: members[0]!.id, webhooks: false });
  expect(await record(meeting, tenantId)).toMatchObject({ __typename: 'ProviderToken', grant: { id } });
  expect(ACCOUNT_SCOPES).not.toContain(scopes[0]);
});
