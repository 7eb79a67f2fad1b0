import { afterEach, describe, expect, test } from 'vitest';
import sql from 'sql-template-tag';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  age,
  ask,
  calls,
  type Connection,
  connectUser,
  endWait,
  events,
  expire,
  health,
  makeDue,
  meStatus,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { startTestServer } from './support/server.js';
import { createTenant, registerApp } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer({
  LATCHKEY_ROLE: 'api',
  LATCHKEY_PROVIDER_DEADLINE_SECONDS: '2',
  LATCHKEY_LEASE_SECONDS: '3',
});
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

const TOKENS = { access_token: 'ZCANARY_other', refresh_token: 'ZCANARY_next', token_type: 'bearer', expires_in: 3600 };

describe('an answer that is lost', () => {
  test('after Zoom has rotated costs the connection, after exactly one more call and with one event', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'after' });
    const lost = await read(server, connection);
    expect(lost).toMatchObject({ __typename: 'ProviderUnavailableError', reason: 'PROVIDER_UNAVAILABLE' });
    expect(lost.retryAfterSeconds).toBeGreaterThanOrEqual(10);
    expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IN_DOUBT' });
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(calls(server, connection)).toHaveLength(1);

    await endWait(server, connection);
    const ended = { __typename: 'ReauthorizationRequiredError', reason: 'ROTATION_LOST', grant: { id: connection.id } };
    expect(await read(server, connection)).toMatchObject(ended);
    expect(await read(server, connection)).toMatchObject(ended);
    expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated', 'reused-token']);
    expect(await events(server, connection)).toEqual(['CONNECTED', 'ROTATION_LOST']);
  });

  test('before Zoom has acted costs nothing: the same refresh token is used once more', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'before' });
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    await endWait(server, connection);
    expect(await read(server, connection)).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    const sent = calls(server, connection);
    expect(sent.map(({ outcome }) => outcome)).toEqual(['not-performed', 'rotated']);
    expect(sent[0]?.tokenFingerprint).toBe(sent[1]?.tokenFingerprint);
    expect(await events(server, connection)).toEqual(['CONNECTED']);
  });

  test('while the provider deadline passed is treated the same, and ends before the lease', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'hang', when: 'before', ms: 2_500 });
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(await stored(server, connection)).toMatchObject({ state: 'IN_DOUBT', version: 1 });
    await until(() => calls(server, connection)[0]?.outcome === 'not-performed');
    await endWait(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2 });
  });

  test('leaves the older token served, with a warning, as long as it is valid', async () => {
    const connection = await connectUser(server);
    const before = await read(server, connection);
    await age(server, 30, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'after' });
    const served = { __typename: 'Credential', accessToken: before.accessToken, version: 1 };
    expect(await read(server, connection)).toMatchObject({ ...served, warning: 'PROVIDER_UNAVAILABLE' });
    await endWait(server, connection);
    expect(await read(server, connection)).toMatchObject({ ...served, warning: 'ROTATION_LOST' });
    expect(await health(server, connection)).toBe('REAUTHORIZATION_REQUIRED ROTATION_LOST');
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({
      __typename: 'ReauthorizationRequiredError',
      reason: 'ROTATION_LOST',
    });
    expect(calls(server, connection)).toHaveLength(2);
  });

  test.each([
    ['tolerance', 'Credential', ['rotated', 'rotated']],
    ['grace', 'Credential', ['rotated', 'rotated']],
    ['family-revoke', 'ReauthorizationRequiredError', ['rotated', 'reused-token']],
  ] as const)('with %s at the provider is answered by %s', async (refreshMode, answer, outcomes) => {
    control.setKnobs({ refreshMode });
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'after' });
    await read(server, connection);
    await endWait(server, connection);
    expect((await read(server, connection)).__typename).toBe(answer);
    expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(outcomes);
  });
});

describe('an answer that is not understood', () => {
  test.each([
    ['is cut off', { kind: 'truncate' as const }],
    ['is a page', { kind: 'status' as const, status: 200, body: '<html>Welcome</html>', when: 'after' as const }],
    ['is empty', { kind: 'status' as const, status: 200, when: 'after' as const }],
    ['is a redirect', { kind: 'status' as const, status: 302, headers: { location: '/' }, when: 'after' as const }],
  ])('because it %s is not stored, and the rotation counts as lost', async (_how, fault) => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, fault);
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(await stored(server, connection)).toMatchObject({ state: 'IN_DOUBT', version: 1 });
    await endWait(server, connection);
    expect(await read(server, connection)).toMatchObject({ reason: 'ROTATION_LOST' });
    expect(calls(server, connection)).toHaveLength(2);
  });

  test.each<[string, Parameters<typeof spoilRefresh>[2]]>([
    ['is ten megabytes', { kind: 'big', bytes: 10_000_000 }],
    ['is an array', { kind: 'body', status: 200, contentType: 'application/json', body: '[]' }],
    ['lacks the access token', json({ ...TOKENS, access_token: undefined })],
    ['has no token type', json({ ...TOKENS, token_type: undefined })],
    ['expires never', json({ ...TOKENS, expires_in: undefined })],
    ['expires at once', json({ ...TOKENS, expires_in: 0 })],
    ['expired before', json({ ...TOKENS, expires_in: -1 })],
    ['has a refresh token that is none', json({ ...TOKENS, refresh_token: { a: 1 } })],
  ])('because it %s is not stored, and the token in hand is tried once more', async (_how, fault) => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, fault);
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(await stored(server, connection)).toMatchObject({ state: 'IN_DOUBT', version: 1 });
    await endWait(server, connection);
    const answer = await read(server, connection);
    expect(answer).toMatchObject({ __typename: 'Credential', version: 2 });
    expect(await meStatus(answer)).toBe(200);
  });

  test('is told from one that merely leaves the refresh token as it is', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, json({ ...TOKENS, refresh_token: undefined }));
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 3, warning: null });
    const [first, second] = calls(server, connection);
    expect(second?.tokenFingerprint).toBe(first?.tokenFingerprint);
  });

  test('is told from one whose life is only written as a text, or too long to be true', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, json({ ...TOKENS, refresh_token: undefined, expires_in: '3600' }));
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
    await expire(server, connection);
    spoilRefresh(server, connection, json({ ...TOKENS, refresh_token: undefined, expires_in: 1e12 }));
    const answer = await read(server, connection);
    expect(answer).toMatchObject({ version: 3 });
    expect(Date.parse(answer.expiresAt)).toBeLessThan(Date.now() + 86_401_000);
  });
});

describe('while Zoom cannot serve', () => {
  test.each([
    [500, 'PROVIDER_UNAVAILABLE'],
    [503, 'PROVIDER_UNAVAILABLE'],
    [429, 'RATE_LIMITED'],
  ])(
    '(%i) a valid token is served with a warning, and Zoom is not asked before the time it named',
    async (status, reason) => {
      const connection = await connectUser(server);
      const before = await read(server, connection);
      await age(server, 30, connection);
      spoilRefresh(server, connection, { kind: 'status', status, headers: { 'retry-after': '120' } }, 9);
      for (let index = 0; index < 4; index += 1) {
        expect(await read(server, connection)).toMatchObject({ accessToken: before.accessToken, warning: reason });
      }
      expect(calls(server, connection)).toHaveLength(1);
      const { nextRefreshAt } = (await stored(server, connection)) ?? {};
      expect(Number(nextRefreshAt)).toBeGreaterThan(Date.now() + 115_000);
      expect(await stored(server, connection)).toMatchObject({ state: 'IDLE', failures: 1, failureReason: reason });
      expect(await health(server, connection)).toBe('HEALTHY CONNECTED');

      await expire(server, connection);
      const refused = await read(server, connection);
      expect(refused).toMatchObject({ __typename: 'ProviderUnavailableError', reason });
      expect(refused.retryAfterSeconds).toBeGreaterThan(110);
      expect(refused.retryAfterSeconds).toBeLessThanOrEqual(120);
      expect(calls(server, connection)).toHaveLength(1);
    },
  );

  test('a Retry-After that cannot be read does not stop the retries', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'status', status: 429, headers: { 'retry-after': 'soon' } });
    expect(await read(server, connection)).toMatchObject({ reason: 'RATE_LIMITED', retryAfterSeconds: 1 });
  });

  test('the third failure in a row degrades the connection with one event, the next success recovers it with one', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'status', status: 503 }, 5);
    const found: (string | undefined)[] = [];
    for (let failure = 1; failure <= 5; failure += 1) {
      expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
      found.push(await health(server, connection));
      await endWait(server, connection);
    }
    const degraded = 'DEGRADED PROVIDER_UNAVAILABLE';
    expect(found).toEqual(['HEALTHY CONNECTED', 'HEALTHY CONNECTED', degraded, degraded, degraded]);
    expect(await read(server, connection)).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    expect(await health(server, connection)).toBe('HEALTHY RECOVERED');
    expect(await stored(server, connection)).toMatchObject({ failures: 0, failureReason: null });
    expect(await events(server, connection)).toEqual(['CONNECTED', 'PROVIDER_UNAVAILABLE', 'RECOVERED']);
  });

  test('refreshing on demand is not held back by the waiting time, and says why it failed', async () => {
    const connection = await connectUser(server);
    spoilRefresh(server, connection, { kind: 'status', status: 503, headers: { 'retry-after': '60' } });
    expect(await ask(server, 'refreshGrant', connection)).toEqual({
      __typename: 'ProviderUnavailableError',
      reason: 'PROVIDER_UNAVAILABLE',
      retryAfterSeconds: 60,
    });
    expect(await ask(server, 'refreshGrant', connection)).toMatchObject({
      __typename: 'RefreshGrantSuccess',
      grant: { health: { status: 'HEALTHY' }, credentialInfo: { version: 2 } },
    });
    expect(calls(server, connection)).toHaveLength(2);
  });
});

describe('when Zoom says that the grant is dead', () => {
  test.each([
    ['invalid_grant', {}],
    ['the answer it gave until 2022', { legacyDeadRefresh: true }],
  ])('(%s) authorization is required, with one event and no further call', async (_how, knobs) => {
    const connection = await connectUser(server);
    await read(server, connection);
    removeAtZoom(connection);
    control.setKnobs(knobs);
    await expire(server, connection);
    for (let index = 0; index < 3; index += 1) {
      expect(await read(server, connection)).toMatchObject({
        __typename: 'ReauthorizationRequiredError',
        reason: 'GRANT_REJECTED',
      });
    }
    expect(calls(server, connection)).toHaveLength(1);
    expect(await events(server, connection)).toEqual(['CONNECTED', 'GRANT_REJECTED']);
    expect(await stored(server, connection)).toMatchObject({ nextRefreshAt: null });
    expect(await ask(server, 'refreshGrant', connection)).toMatchObject({ __typename: 'ReauthorizationRequiredError' });
    expect(calls(server, connection)).toHaveLength(1);
  });

  test.each([
    [4733, 'GRANT_EXPIRED'],
    [4735, 'PROVIDER_USER_REMOVED'],
    [4737, 'GRANT_REJECTED'],
    [4738, 'DISABLED_BY_ADMIN'],
    [4741, 'SUPERSEDED'],
  ])('by its number %i, the reason is %s', async (code, reason) => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, {
      kind: 'status',
      status: 400,
      body: { code, reason: 'x', error: 'invalid_grant' },
    });
    expect(await read(server, connection)).toMatchObject({ __typename: 'ReauthorizationRequiredError', reason });
    expect(await events(server, connection)).toEqual(['CONNECTED', reason]);
  });

  test('connecting again heals it', async () => {
    const connection = await connectUser(server);
    removeAtZoom(connection);
    await expire(server, connection);
    await read(server, connection);
    await connectUser(server, connection);
    expect(await read(server, connection)).toMatchObject({ __typename: 'Credential', warning: null });
    expect(await events(server, connection)).toEqual(['CONNECTED', 'GRANT_REJECTED', 'CONNECTED']);
  });
});

describe('checking a connection', () => {
  test('asks Zoom with the token in hand and refreshes nothing that is good', async () => {
    const connection = await connectUser(server);
    const before = calls(server, connection, 'users').length;
    expect(await ask(server, 'checkGrant', connection)).toMatchObject({
      __typename: 'CheckGrantSuccess',
      grant: { health: { status: 'HEALTHY', reason: 'CONNECTED' }, credentialInfo: { version: 1 } },
    });
    expect(calls(server, connection, 'users')).toHaveLength(before + 1);
    expect(calls(server, connection)).toEqual([]);
  });

  test('finds an app that was removed at Zoom, without any webhook and while the token has not expired', async () => {
    const connection = await connectUser(server);
    removeAtZoom(connection);
    expect(await ask(server, 'checkGrant', connection)).toMatchObject({
      grant: { health: { status: 'REAUTHORIZATION_REQUIRED', reason: 'GRANT_REJECTED' } },
    });
    expect(await events(server, connection)).toEqual(['CONNECTED', 'GRANT_REJECTED']);
  });

  test('finds a user who was deleted at Zoom', async () => {
    const connection = await connectUser(server);
    control.removeUser(connection.zoomUserId);
    expect(await ask(server, 'checkGrant', connection)).toMatchObject({
      grant: { health: { status: 'REAUTHORIZATION_REQUIRED' } },
    });
  });

  test('merely renews a token that had expired', async () => {
    const connection = await connectUser(server);
    control.expireAccessTokens({ clientId: connection.app.clientId });
    expect(await ask(server, 'checkGrant', connection)).toMatchObject({
      grant: { health: { status: 'HEALTHY' }, credentialInfo: { version: 2 } },
    });
  });

  test('claims nothing when Zoom could not be asked', async () => {
    const connection = await connectUser(server);
    control.addFault({ route: 'users', clientId: connection.app.clientId, fault: { kind: 'status', status: 503 } });
    const unknown = { __typename: 'ProviderUnavailableError', reason: 'PROVIDER_UNAVAILABLE' };
    expect(await ask(server, 'checkGrant', connection)).toMatchObject(unknown);
    control.expireAccessTokens({ clientId: connection.app.clientId });
    spoilRefresh(server, connection, { kind: 'status', status: 503 });
    expect(await ask(server, 'checkGrant', connection)).toMatchObject(unknown);
    expect(await events(server, connection)).toEqual(['CONNECTED']);
  });
});

describe('an app whose own credentials Zoom refuses', () => {
  test('harms no connection, is asked about rarely, and heals with the new secret', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const connections: Connection[] = [];
    for (const userId of ['a', 'b', 'c', 'd']) connections.push(await connectUser(server, { app, tenantId, userId }));
    const [valid, ...expired] = connections as [Connection, Connection, Connection, Connection];
    const token = await read(server, valid);
    const rotated = control.rotateSecret(app.clientId);
    await expire(server, ...expired);

    for (let round = 0; round < 5; round += 1) {
      const answers = await Promise.all(expired.map((connection) => read(server, connection)));
      for (const answer of answers) {
        expect(answer).toMatchObject({ __typename: 'ProviderUnavailableError', reason: 'APP_REJECTED' });
        expect(answer.retryAfterSeconds).toBeGreaterThan(0);
      }
      expect(await read(server, valid)).toMatchObject({ accessToken: token.accessToken, warning: null });
    }
    const refused = calls(server, { app });
    expect(new Set(refused.map(({ outcome }) => outcome))).toEqual(new Set(['invalid_client']));
    expect(refused.length).toBeLessThanOrEqual(expired.length);
    for (const connection of connections) expect(await health(server, connection)).toBe('HEALTHY CONNECTED');
    expect(await incident(app.id)).toMatchObject({ reason: 'APP_REJECTED', affectedGrants: 4 });
    await age(server, 30, valid);
    expect(await read(server, valid)).toMatchObject({ accessToken: token.accessToken, warning: 'APP_REJECTED' });
    expect(calls(server, { app })).toHaveLength(refused.length);

    await updateSecret(app.id, rotated.clientSecret);
    expect(await read(server, expired[0])).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    expect(await incident(app.id)).toBeNull();
    for (const connection of connections) {
      expect(await read(server, connection)).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
      expect(await events(server, connection)).toEqual(['CONNECTED']);
    }
    expect(calls(server, { app }).filter(({ outcome }) => outcome === 'rotated')).toHaveLength(4);
    expect(calls(server, { app })).toHaveLength(refused.length + 4);
  });

  test('is not refused while either of two secrets works, whichever side changed first', async () => {
    const connection = await connectUser(server);
    const { app } = connection;
    await updateSecret(app.id, 'a-secret-that-zoom-does-not-know-yet');
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
    expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['invalid_client', 'rotated']);
    expect(await incident(app.id)).toBeNull();

    await updateSecret(app.id, app.atZoom.clientSecret);
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 3, warning: null });
    expect(calls(server, connection)).toHaveLength(3);
  });

  test('keeps its doubts about a lost answer', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'after' });
    await read(server, connection);
    const { clientSecret } = control.rotateSecret(connection.app.clientId);
    await endWait(server, connection);
    expect(await read(server, connection)).toMatchObject({ reason: 'APP_REJECTED' });
    await updateSecret(connection.app.id, clientSecret);
    expect(await read(server, connection)).toMatchObject({ reason: 'ROTATION_LOST' });
  });
});

describe('an answer that comes after another process took over', () => {
  /** What another process does that takes the lease for run out; `leaseSeconds` of its own are left when it waits. */
  async function takeOver(leaseSeconds: number) {
    control.setKnobs({ tokenDelayMs: 400 });
    const connection = await connectUser(server);
    await expire(server, connection);
    const reading = read(server, connection);
    await until(() => calls(server, connection).length === 1);
    await server.db.query(sql`
      UPDATE credential SET fence = fence + 1, refresh_state = 'IN_DOUBT', retry_at = now() + interval '1 minute',
        lease_until = now() + make_interval(secs => ${leaseSeconds}), failure_reason = 'PROVIDER_UNAVAILABLE'
      WHERE grant_id = ${connection.rowId}::uuid`);
    return { connection, answer: await reading };
  }

  test('is fenced off and given to nobody while that one is at it', async () => {
    const { connection, answer } = await takeOver(60);
    expect(answer).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(answer.accessToken).toBeUndefined();
    expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
    expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IN_DOUBT' });
  });

  test('is taken once Zoom has proved it good, where nobody is at it', async () => {
    const { connection, answer } = await takeOver(0);
    expect(answer).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    expect(await meStatus(answer)).toBe(200);
    expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE' });
    expect(calls(server, connection)).toHaveLength(1);
  });
});

describe('by schedule', async () => {
  const worker = await startTestServer({ LATCHKEY_REFRESH_CONCURRENCY: '2', LATCHKEY_PROVIDER_DEADLINE_SECONDS: '6' });

  test('a token is refreshed before it expires, without any read', async () => {
    const connection = await connectUser(worker);
    expect(await stored(worker, connection)).toMatchObject({ version: 1 });
    await makeDue(worker, connection);
    await until(async () => (await stored(worker, connection))?.version === 2);
    const { nextRefreshAt } = (await stored(worker, connection)) ?? {};
    // A margin of ten minutes before the hour is over, and up to two minutes more by chance.
    expect(Number(nextRefreshAt)).toBeGreaterThan(Date.now() + 2_870_000);
    expect(Number(nextRefreshAt)).toBeLessThanOrEqual(Date.now() + 3_000_000);
    expect(calls(worker, connection)).toHaveLength(1);
  });

  test('a server that only answers requests leaves it to the others', async () => {
    const [left, taken] = [await connectUser(server), await connectUser(worker)];
    await makeDue(server, left);
    for (const version of [2, 3, 4]) {
      await makeDue(worker, taken);
      await until(async () => (await stored(worker, taken))?.version === version);
    }
    expect(await stored(server, left)).toMatchObject({ version: 1, state: 'IDLE' });
    expect(calls(server, left)).toEqual([]);
  });

  test('connections of an app that Zoom keeps waiting do not keep others waiting', async () => {
    const [slow, other] = [await registerApp(worker, 'USER_MANAGED'), await registerApp(worker, 'USER_MANAGED')];
    const hanging = await connectUser(worker, { app: slow });
    const quick: Connection[] = [];
    for (let index = 0; index < 5; index += 1) quick.push(await connectUser(worker, { app: other }));
    spoilRefresh(worker, hanging, { kind: 'hang', when: 'before', ms: 5_000 });
    await makeDue(worker, hanging);
    await until(() => calls(worker, hanging).length === 1);
    await makeDue(worker, ...quick);
    await until(() => calls(worker, { app: other }).filter(({ outcome }) => outcome === 'rotated').length === 5);
    expect(calls(worker, hanging).map(({ outcome }) => outcome)).toEqual(['received']);
    await until(async () => (await stored(worker, hanging))?.version === 2);
  });

  test('what failed is tried again after its time, and an ended connection never', async () => {
    const [failing, ended] = [await connectUser(worker), await connectUser(worker)];
    spoilRefresh(worker, failing, { kind: 'status', status: 503 });
    worker.sandbox.control.removeGrant({ clientId: ended.app.clientId, userId: ended.zoomUserId });
    await makeDue(worker, failing, ended);
    await until(async () => (await stored(worker, failing))?.version === 2);
    await until(async () => (await health(worker, ended)) !== 'HEALTHY CONNECTED');
    expect(calls(worker, failing)).toHaveLength(2);
    await makeDue(worker, failing);
    await until(async () => (await stored(worker, failing))?.version === 3);
    expect(calls(worker, ended).length).toBeLessThanOrEqual(1);
  });

  test("an app's incident ends by itself after the new secret is set, also where nothing is due", async () => {
    const connection = await connectUser(worker);
    const { app } = connection;
    const { clientSecret } = worker.sandbox.control.rotateSecret(app.clientId);
    await makeDue(worker, connection);
    await until(async () => (await stored(worker, connection))?.failureReason === 'APP_REJECTED');
    await updateSecret(app.id, clientSecret, worker);
    await until(async () => (await stored(worker, connection))?.version === 2);
    await until(async () => (await incident(app.id, worker)) === null);
    expect(calls(worker, connection).map(({ outcome }) => outcome)).toEqual(['invalid_client', 'rotated']);
  });
});

function json(body: object): Parameters<typeof spoilRefresh>[2] {
  return { kind: 'body', status: 200, contentType: 'application/json', body: JSON.stringify(body) };
}

/** No webhook tells of it. */
function removeAtZoom({ app, zoomUserId }: Connection): void {
  control.updateApp(app.clientId, { webhookUrl: null });
  control.removeGrant({ clientId: app.clientId, userId: zoomUserId });
}

async function updateSecret(id: string, clientSecret: string, at = server): Promise<void> {
  const { updateProviderApp } = await at.data(
    `mutation ($input: UpdateProviderAppInput!) {
      updateProviderApp(input: $input) {
        ... on UpdateProviderAppSuccess { providerApp { id } }
        ... on Error { message }
      }
    }`,
    { input: { id, clientSecret } },
  );
  expect(updateProviderApp).toEqual({ providerApp: { id } });
}

async function incident(id: string, at = server) {
  const { providerApp } = await at.data(
    `query ($id: ID!) { providerApp(id: $id) { incident { reason since affectedGrants } } }`,
    { id },
  );
  return providerApp.incident;
}
