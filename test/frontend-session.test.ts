import { expect, describe, test } from 'vitest';
import { parseApiToken } from '../src/domain/api-token.js';
import { dumpDatabase } from './support/canary.js';
import { connectUser, createZoomUser } from './support/connections.js';
import { sessionOf, storedOf, tokenRequests } from './support/consent-trip.js';
import {
  callerOf,
  type Caller,
  codeOf,
  CREATE_FRONTEND_SESSION,
  createFrontendSession,
  createServerKey,
  revokeFrontendSession,
  revokeServerKey,
} from './support/principals.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { begin, comeBack, COMPLETE, consent, createTenant, PRODUCT, registerApp, type Trip } from './support/story.js';
import { openBareSocket, openSse, openWebSocket, webSocketUrl } from './support/streams.js';
import { until } from './support/until.js';

const server = await startTestServer({
  LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
  LATCHKEY_MAX_TRIPS_PER_FRONTEND_SESSION: '3',
});
const app = await registerApp(server, 'USER_MANAGED');
const adminApp = await registerApp(server, 'ADMIN_MANAGED');

const VIEWER = '{ viewer { kind permissions tenant { externalId } externalUserId expiresAt } }';
const BEGIN = `mutation ($input: BeginAuthorizationInput!) {
  beginAuthorization(input: $input) {
    __typename
    ... on BeginAuthorizationSuccess { authorizationSession { id startUrl status } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;
const ALL = ['CONNECT_INSTALLATION', 'CONNECT_USER', 'READ_CONNECTIONS', 'REVOKE'];

/** A session of a page of the product's, for `user_1` unless told. */
const sessionFor = (tenantId: string, input: Record<string, unknown> = {}, origin: string | null = PRODUCT) =>
  createFrontendSession(server, { tenantId, userId: 'user_1', allow: ALL, ...input }, origin);

async function beginBy(caller: Caller, tenantId: string, input: Record<string, unknown> = {}): Promise<any> {
  const given = { tenantId, userId: 'user_1', appId: app.id, returnTo: `${PRODUCT}/done`, ...input };
  return (await caller.data(BEGIN, { input: given })).beginAuthorization;
}

async function tripBy(caller: Caller, tenantId: string, zoomUserId: string) {
  const { authorizationSession } = await beginBy(caller, tenantId);
  const trip: Trip = { sessionId: authorizationSession.id, startUrl: authorizationSession.startUrl, jar: new Map() };
  const { connectCode } = await comeBack(trip, await consent(trip, zoomUserId));
  return { trip, connectCode };
}

const completeBy = async (caller: Pick<Caller, 'data'>, connectCode: string | null, userId?: string): Promise<any> =>
  (await caller.data(COMPLETE, { input: { connectCode, userId } })).completeAuthorization;

describe('a frontend session', () => {
  test('says what it is, and is stored as a hash only', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    expect(await session.data(VIEWER)).toEqual({
      viewer: {
        kind: 'FRONTEND_SESSION',
        permissions: [],
        tenant: { externalId: tenantId },
        externalUserId: 'user_1',
        expiresAt: expect.any(String),
      },
    });
    expect(parseApiToken(session.token)).toMatchObject({ kind: 'FRONTEND_SESSION' });
    const secret = session.token.split('_')[3] ?? '';
    expect(secret).toHaveLength(43);
    expect(await dumpDatabase(server.db)).not.toContain(secret);
    expect(server.logs.join('\n')).not.toContain(secret);
  });

  test.each([
    ['nothing that it may do', { allow: [] }, 'allow'],
    ['no user to connect', { userId: null, allow: ['CONNECT_USER'] }, 'userId'],
    ['more than ten minutes to connect', { ttlSeconds: 601 }, 'ttlSeconds'],
    ['more than an hour to look on', { allow: ['READ_CONNECTIONS'], ttlSeconds: 3_601 }, 'ttlSeconds'],
    ['no time', { ttlSeconds: 0 }, 'ttlSeconds'],
    ['a return to elsewhere', { returnTo: 'https://elsewhere.example/' }, 'returnTo'],
  ])('is not made with %s', async (_what, input, field) => {
    const tenantId = await createTenant(server);
    const given = { tenantId, userId: 'user_1', allow: ALL, ...input };
    const { createFrontendSession: made } = await server.data(CREATE_FRONTEND_SESSION, { input: given });
    expect(made).toMatchObject({ __typename: 'InvalidInputError', path: ['input', field] });
  });

  test('is refused elsewhere than on pages of its origins, over every transport', async () => {
    const tenantId = await createTenant(server);
    const { token, id } = await sessionFor(tenantId);
    for (const origin of [null, 'https://elsewhere.example', 'null', `${PRODUCT}.evil.example`]) {
      const answer = await callerOf(server, id, token, origin).graphql(VIEWER);
      expect([answer.status, codeOf(answer)]).toEqual([403, 'ORIGIN_NOT_ALLOWED']);
      const socket = await openBareSocket(webSocketUrl(server.url), { headers: origin === null ? {} : { origin } });
      socket.send({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } });
      expect((await socket.closed).code).toBe(4403);
    }
    expect((await callerOf(server, id, token, PRODUCT).graphql(VIEWER)).status).toBe(200);
  });

  test('of a tenant without origins is for what is no browser', async () => {
    const tenantId = await createTenant(server, []);
    const session = await sessionFor(tenantId, {}, null);
    expect((await session.graphql(VIEWER)).status).toBe(200);
    expect((await callerOf(server, session.id, session.token, PRODUCT).graphql(VIEWER)).status).toBe(403);
  });

  test('in an address counts for nothing', async () => {
    const { token } = await sessionFor(await createTenant(server));
    for (const name of ['token', 'access_token', 'authorization']) {
      const response = await fetch(`${server.url}/graphql?${name}=${token}&query={viewer{kind}}`, {
        headers: { origin: PRODUCT },
      });
      expect(response.status).toBe(401);
    }
  });

  test('works on after its request, and is over when it is revoked or its time has come', async () => {
    const tenantId = await createTenant(server);
    const [revoked, short] = [await sessionFor(tenantId), await sessionFor(tenantId, { ttlSeconds: 1 })];
    expect((await revoked.graphql(VIEWER)).status).toBe(200);
    expect(await revokeFrontendSession(server, revoked.id)).toMatchObject({ deletedId: revoked.id });
    expect((await revoked.graphql(VIEWER)).status).toBe(401);
    expect(await revokeFrontendSession(server, revoked.id)).toMatchObject({ __typename: 'NotFoundError' });
    await until(async () => (await short.graphql(VIEWER)).status === 401);
  });

  test('is over together with the key that made it', async () => {
    const tenantId = await createTenant(server);
    const key = await createServerKey(server, { permissions: ['SESSIONS_CREATE'] });
    const input = { tenantId, allow: ['READ_CONNECTIONS'] };
    const { createFrontendSession: made } = await key.data(CREATE_FRONTEND_SESSION, { input });
    const session = callerOf(server, made.frontendSession.id, made.frontendSession.token, PRODUCT);
    expect((await session.graphql(VIEWER)).status).toBe(200);
    await revokeServerKey(server, key.id);
    expect((await session.graphql(VIEWER)).status).toBe(401);
  });
});

describe('a page', () => {
  const preflight = (origin: string) =>
    fetch(`${server.url}/graphql`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': 'authorization' },
    });

  test('of an origin that a tenant allows may ask and read, without cookies', async () => {
    const session = await sessionFor(await createTenant(server));
    const { status, headers } = await preflight(PRODUCT);
    expect([status, headers.get('access-control-allow-origin'), headers.get('vary')]).toEqual([204, PRODUCT, 'origin']);
    expect(headers.get('access-control-allow-headers')).toBe('authorization, content-type');
    expect(headers.get('access-control-allow-credentials')).toBeNull();
    const answer = await session.graphql(VIEWER);
    expect(answer.headers.get('access-control-allow-origin')).toBe(PRODUCT);
    expect(answer.headers.get('access-control-allow-credentials')).toBeNull();
  });

  test.each(['https://elsewhere.example', 'null', 'https://product.example.evil.example', 'https://PRODUCT.example'])(
    'of %s may not',
    async (origin) => {
      const { status, headers } = await preflight(origin);
      expect([status, headers.get('access-control-allow-origin')]).toEqual([204, null]);
    },
  );
});

describe('what a session sees', () => {
  test('are the connections of its user and the installations, and of other users nothing', async () => {
    const tenantId = await createTenant(server);
    const [own, other] = [
      await connectUser(server, { app, tenantId, userId: 'user_1' }),
      await connectUser(server, { app, tenantId, userId: 'user_2' }),
    ];
    const session = await sessionFor(tenantId);
    const read = await session.data(
      `query ($tenantId: String!, $own: ID!, $other: ID!) {
        userConnections { totalCount edges { node { id externalUserId } } }
        tenant(externalId: $tenantId) { health { healthy } userConnections { totalCount edges { node { id } } } healthEvents { edges { node { grant { id } } } } }
        healthEvents { edges { node { grant { id } } } }
        own: node(id: $own) { id }
        other: node(id: $other) { id }
      }`,
      { tenantId, own: own.id, other: other.id },
    );
    const event = { node: { grant: { id: own.id } } };
    expect(read).toEqual({
      userConnections: { totalCount: 1, edges: [{ node: { id: own.id, externalUserId: 'user_1' } }] },
      tenant: {
        health: { healthy: 1 },
        userConnections: { totalCount: 1, edges: [{ node: { id: own.id } }] },
        healthEvents: { edges: [event] },
      },
      healthEvents: { edges: [event] },
      own: { id: own.id },
      other: null,
    });
    const whole = await sessionFor(tenantId, { userId: null, allow: ['READ_CONNECTIONS'] });
    expect(await whole.data('{ userConnections { totalCount } }')).toEqual({ userConnections: { totalCount: 2 } });
  });

  test('are events of its user only, as they happen', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    const stream = await openSse(server.url, 'subscription { healthChanged { grant { id } } }', {
      adminKey: session.token,
      headers: session.headers,
    });
    const first = stream.next();
    await new Promise((resolve) => setTimeout(resolve, 200));
    await connectUser(server, { app });
    await connectUser(server, { app, tenantId, userId: 'user_2' });
    const own = await connectUser(server, { app, tenantId, userId: 'user_1' });
    expect(await first).toEqual({ data: { healthChanged: { grant: { id: own.id } } } });
    await stream.close();
  });

  test('ends by it: its own connection, not that of another user, nor an installation that it may not make', async () => {
    const tenantId = await createTenant(server);
    const [own, other] = [
      await connectUser(server, { app, tenantId, userId: 'user_1' }),
      await connectUser(server, { app, tenantId, userId: 'user_2' }),
    ];
    const session = await sessionFor(tenantId, { allow: ['REVOKE', 'CONNECT_USER'] });
    const end = async (id: string) =>
      (
        await session.data(
          `mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename ... on RevokeUserConnectionSuccess { userConnection { id health { status } } } ... on Error { message } } }`,
          { id },
        )
      ).revokeUserConnection;
    const unknown = Buffer.from('UserConnection:00000000-0000-4000-8000-000000000000').toString('base64url');
    expect(await end(other.id)).toEqual(await end(unknown));
    expect(await end(own.id)).toEqual({
      __typename: 'RevokeUserConnectionSuccess',
      userConnection: { id: own.id, health: { status: 'REVOKED' } },
    });
    expect(await storedOf(server, tenantId)).toMatchObject({ grants: 2, credentials: 1 });
  });
});

describe('a trip that a session begins', () => {
  test('is completed by the same session, with one token request', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    const before = tokenRequests(server, app);
    const { connectCode } = await tripBy(session, tenantId, createZoomUser(server));
    expect(tokenRequests(server, app)).toBe(before);
    expect(await completeBy(session, connectCode)).toMatchObject({ authorizationSession: { status: 'COMPLETED' } });
    expect(tokenRequests(server, app)).toBe(before + 1);
    expect(await session.data('{ userConnections { totalCount } }')).toEqual({ userConnections: { totalCount: 1 } });
  });

  test('is not completed by another session, whose user was lured into it: the code is dropped unspent', async () => {
    const tenantId = await createTenant(server);
    const attacker = await sessionFor(tenantId, { userId: 'attacker' });
    const { authorizationSession } = await beginBy(attacker, tenantId, { userId: 'attacker' });
    const trip: Trip = { sessionId: authorizationSession.id, startUrl: authorizationSession.startUrl, jar: new Map() };
    const before = tokenRequests(server, app);
    const { connectCode } = await comeBack(trip, await consent(trip, createZoomUser(server)));
    const victim = await sessionFor(tenantId, { userId: 'victim' });
    expect(await completeBy(victim, connectCode)).toMatchObject({
      authorizationSession: { status: 'FAILED', failure: 'INITIATOR_MISMATCH', grant: null },
    });
    expect(await completeBy(attacker, connectCode)).toMatchObject({ __typename: 'NotFoundError' });
    expect(tokenRequests(server, app)).toBe(before);
    expect(await storedOf(server, tenantId)).toMatchObject({ grants: 0 });
  });

  test('is not seen, ended or used up by a session of another tenant', async () => {
    const [tenantId, foreignId] = [await createTenant(server), await createTenant(server)];
    const [session, foreign] = [await sessionFor(tenantId), await sessionFor(foreignId)];
    const { trip, connectCode } = await tripBy(session, tenantId, createZoomUser(server));
    expect(await completeBy(foreign, connectCode)).toEqual(await completeBy(foreign, 'x'.repeat(43)));
    const look = 'query ($id: ID!) { authorizationSession(id: $id) { status } }';
    expect(await foreign.data(look, { id: trip.sessionId })).toEqual({ authorizationSession: null });
    expect(await session.data(look, { id: trip.sessionId })).toEqual({
      authorizationSession: { status: 'AWAITING_COMPLETION' },
    });
    expect(await completeBy(session, connectCode)).toMatchObject({ authorizationSession: { status: 'COMPLETED' } });
  });

  test('is completed once of many times at once', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    const { connectCode } = await tripBy(session, tenantId, createZoomUser(server));
    const before = tokenRequests(server, app);
    const answers = await Promise.all(Array.from({ length: 10 }, () => completeBy(session, connectCode)));
    expect(answers.filter(({ __typename }) => __typename === 'CompleteAuthorizationSuccess')).toHaveLength(1);
    expect(tokenRequests(server, app)).toBe(before + 1);
  });

  test('is completed by the backend only for the user who began it', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    const wrong = await tripBy(session, tenantId, createZoomUser(server));
    expect(await completeBy(server, wrong.connectCode, 'user_2')).toMatchObject({
      authorizationSession: { failure: 'INITIATOR_MISMATCH' },
    });
    expect((await sessionOf(server, wrong.trip)).status).toBe('FAILED');
    const right = await tripBy(session, tenantId, createZoomUser(server));
    expect(await completeBy(server, right.connectCode, 'user_1')).toMatchObject({
      authorizationSession: { status: 'COMPLETED' },
    });
  });

  test('that a backend began is not completed by a session', async () => {
    const tenantId = await createTenant(server);
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: `${PRODUCT}/done` };
    const trip = await begin(server, 'beginAuthorization', input);
    const { connectCode } = await comeBack(trip, await consent(trip, createZoomUser(server)));
    expect(await completeBy(await sessionFor(tenantId), connectCode)).toMatchObject({
      authorizationSession: { failure: 'INITIATOR_MISMATCH' },
    });
  });

  test('is for its own user and tenant, returns to where it is bound to, and is one of a few', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId, { returnTo: `${PRODUCT}/settings` });
    const input = { returnTo: null };
    expect(await beginBy(session, tenantId, { ...input, userId: 'user_2' })).toMatchObject({
      path: ['input', 'userId'],
    });
    expect(await beginBy(session, tenantId)).toMatchObject({ path: ['input', 'returnTo'] });
    expect(await beginBy(session, await createTenant(server), input)).toEqual(
      await beginBy(session, 'org_none', input),
    );
    for (let trip = 0; trip < 3; trip += 1) {
      expect(await beginBy(session, tenantId, input)).toMatchObject({ __typename: 'BeginAuthorizationSuccess' });
    }
    expect(await beginBy(session, tenantId, input)).toMatchObject({ __typename: 'LimitExceededError' });
  });

  test('is of the kind that the session is for', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId, { allow: ['CONNECT_USER'] });
    const answer = await session.graphql(
      `mutation ($input: BeginInstallationInput!) { beginInstallation(input: $input) { __typename } }`,
      { input: { tenantId, userId: 'user_1', appId: adminApp.id } },
    );
    expect(codeOf(answer)).toBe('FORBIDDEN');
  });

  test('is followed by its session over both streams', async () => {
    const tenantId = await createTenant(server);
    const session = await sessionFor(tenantId);
    const { authorizationSession } = await beginBy(session, tenantId);
    for (const openStream of [openSse, openWebSocket]) {
      const stream = await openStream(
        server.url,
        `subscription ($id: ID!) { authorizationChanged(id: $id) { status } }`,
        {
          adminKey: session.token,
          headers: session.headers,
          variables: { id: authorizationSession.id },
        },
      );
      expect(await stream.next()).toEqual({ data: { authorizationChanged: { status: 'PENDING' } } });
      await stream.close();
    }
  });
});

describe.each([
  ['server-sent events', openSse],
  ['WebSocket', openWebSocket],
])('a stream over %s', (transport, openStream) => {
  const HEALTH = 'subscription { healthChanged { id } }';
  const expectEnd = (last: unknown, code: string) =>
    expect(last).toMatchObject(
      transport === 'WebSocket' ? { code: 4403 } : { errors: [{ message: expect.any(String), extensions: { code } }] },
    );

  test('ends within five seconds when its session is revoked by another process', async () => {
    const second = await startSecondServer(server.db);
    const session = await sessionFor(await createTenant(server));
    const stream = await openStream(second.url, HEALTH, { adminKey: session.token, headers: session.headers });
    const end = stream.next().catch((error: unknown) => error);
    await new Promise((resolve) => setTimeout(resolve, 300));
    const since = Date.now();
    await revokeFrontendSession(server, session.id);
    expectEnd(await end, 'SESSION_REVOKED');
    expect(Date.now() - since).toBeLessThan(5_000);
    const refused = () =>
      fetch(`${second.url}/graphql`, {
        method: 'POST',
        headers: { ...session.headers, 'content-type': 'application/json' },
        body: JSON.stringify({ query: VIEWER }),
      }).then(({ status }) => status === 401);
    await until(refused);
    expect(Date.now() - since).toBeLessThan(5_000);
    await stream.close();
    await second.close();
  });

  test('ends when the time of its session has come', async () => {
    const session = await sessionFor(await createTenant(server), { ttlSeconds: 2 });
    const stream = await openStream(server.url, HEALTH, { adminKey: session.token, headers: session.headers });
    const since = Date.now();
    expectEnd(await stream.next().catch((error: unknown) => error), 'SESSION_EXPIRED');
    expect(Date.now() - since).toBeLessThan(4_000);
    await stream.close();
  });
});
