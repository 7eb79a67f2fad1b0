import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { begin, comeBack, complete, connect, consent, createTenant, registerApp } from './support/story.js';
import {
  openBareSocket,
  openConnection,
  openSse,
  openWebSocket,
  type OpenStream,
  webSocketUrl,
} from './support/streams.js';
import { flip, makeGrants } from './support/transitions.js';
import { until } from './support/until.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const app = await registerApp(server, 'USER_MANAGED');

const TRANSPORTS: [string, OpenStream][] = [
  ['server-sent events', openSse],
  ['WebSocket', openWebSocket],
];

const HEALTH = `subscription ($tenantId: String, $grantId: ID, $after: String) {
  healthChanged(tenantId: $tenantId, grantId: $grantId, after: $after) {
    id cursor occurredAt previous current reason tenant { externalId } grant { __typename id health { status reason } }
  }
}`;

const globalId = (id: string) => Buffer.from(`UserConnection:${id}`).toString('base64url');

async function connectUser(tenantId: string, userId: string): Promise<string> {
  const session = await connect(server, 'beginAuthorization', { tenantId, userId, appId: app.id }, newZoomUser(server));
  expect(session.status).toBe('COMPLETED');
  const { userConnections } = await server.data(
    'query ($t: String!, $u: String!) { userConnections(filter: { tenantId: $t, userId: $u }) { edges { node { id } } } }',
    { t: tenantId, u: userId },
  );
  return userConnections.edges[0].node.id;
}

const revoke = (id: string) =>
  server.data('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', { id });

const lastCursor = async (tenantId: string): Promise<string> => {
  const { healthEvents } = await server.data(
    'query ($t: String!) { healthEvents(last: 1, filter: { tenantId: $t }) { pageInfo { endCursor } } }',
    { t: tenantId },
  );
  return healthEvents.pageInfo.endCursor;
};

test.each(TRANSPORTS)(
  'over %s a subscriber is told when a connection of its tenant ends, and of no other tenant',
  async (_name, open) => {
    const [tenantId, otherTenant] = [await createTenant(server), await createTenant(server)];
    const [mine, second, other] = [
      await connectUser(tenantId, 'a'),
      await connectUser(tenantId, 'b'),
      await connectUser(otherTenant, 'a'),
    ];
    const after = await lastCursor(tenantId);
    const ofTenant = await open(server.url, HEALTH, { variables: { tenantId, after } });
    const ofGrant = await open(server.url, HEALTH, { variables: { grantId: second, after } });
    for (const id of [other, mine, second]) await revoke(id);
    const alert = (id: string) => ({
      data: {
        healthChanged: expect.objectContaining({
          previous: 'HEALTHY',
          current: 'REVOKED',
          reason: 'DISCONNECTED',
          tenant: { externalId: tenantId },
          grant: { __typename: 'UserConnection', id, health: { status: 'REVOKED', reason: 'DISCONNECTED' } },
        }),
      },
    });
    expect([await ofTenant.next(), await ofTenant.next()]).toEqual([alert(mine), alert(second)]);
    expect(await ofGrant.next()).toEqual(alert(second));
    await Promise.all([ofTenant.close(), ofGrant.close()]);
  },
);

test.each(TRANSPORTS)('over %s a subscription without a cursor begins now', async (_name, open) => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 3);
  const stream = await open(server.url, HEALTH, { variables: { tenantId: grant!.externalId } });
  const first = stream.next();
  // Whether the subscription has begun cannot be seen from here, so events come until one is told.
  let told = false;
  void first.then(() => (told = true));
  let written = 3;
  while (!told) {
    await flip(server.db, grant!, 1);
    written += 1;
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  const healthChanged = (await first)?.data.healthChanged;
  const { tenant } = await server.data(
    'query ($t: String!) { tenant(externalId: $t) { healthEvents(first: 100) { edges { node { id } } } } }',
    {
      t: grant!.externalId,
    },
  );
  const place = tenant.healthEvents.edges.findIndex(
    ({ node }: { node: { id: string } }) => node.id === healthChanged.id,
  );
  expect(place).toBeGreaterThanOrEqual(3);
  expect(place).toBeLessThan(written);
  await stream.close();
});

test.each(TRANSPORTS)(
  'over %s a client that resumes behind a cursor while events are written gets each once, in order',
  async (_name, open) => {
    const [grant] = await makeGrants(server.db, 1);
    const variables = { tenantId: grant!.externalId };
    await flip(server.db, grant!, 1);
    let after = await lastCursor(grant!.externalId);
    const writing = (async () => {
      for (let i = 0; i < 60; i += 1) {
        await flip(server.db, grant!, 1);
        await new Promise((resolve) => setImmediate(resolve));
      }
    })();
    const seen: string[] = [];
    while (seen.length < 60) {
      const stream = await open(server.url, HEALTH, { variables: { ...variables, after } });
      // The connection is cut after a few events, each time.
      for (let i = 0; i < 13 && seen.length < 60; i += 1) {
        const result = await stream.next();
        after = result?.data.healthChanged.cursor;
        seen.push(after);
      }
      await stream.close();
    }
    await writing;
    const { tenant } = await server.data(
      'query ($t: String!) { tenant(externalId: $t) { healthEvents(first: 100) { edges { cursor } } } }',
      {
        t: grant!.externalId,
      },
    );
    expect(seen).toEqual(tenant.healthEvents.edges.slice(1).map(({ cursor }: { cursor: string }) => cursor));
  },
);

test.each(TRANSPORTS)(
  'over %s a cursor that none is ends the subscription with BAD_USER_INPUT',
  async (_name, open) => {
    for (const after of ['', 'x', 'R1BDOlM6MQ', Buffer.from('e-1').toString('base64url')]) {
      const stream = await open(server.url, HEALTH, { variables: { after } });
      expect((await stream.next())?.errors).toEqual([
        expect.objectContaining({ extensions: { code: 'BAD_USER_INPUT' } }),
      ]);
      expect(await stream.next()).toBeNull();
      await stream.close();
    }
  },
);

test.each(TRANSPORTS)('over %s filters that nothing passes are not taken for no filter', async (_name, open) => {
  const [grant] = await makeGrants(server.db, 1);
  const streams = await Promise.all(
    [{ tenantId: '' }, { tenantId: 'nobody' }, { grantId: '' }, { grantId: globalId('x') }].map((variables) =>
      open(server.url, HEALTH, { variables: { ...variables, after: Buffer.from('e0').toString('base64url') } }),
    ),
  );
  const told = streams.map((stream) => stream.next().catch(() => null));
  const control = await open(server.url, HEALTH, {
    variables: { tenantId: grant!.externalId, after: Buffer.from('e0').toString('base64url') },
  });
  await flip(server.db, grant!, 1);
  await control.next();
  await Promise.all([control, ...streams].map((stream) => stream.close()));
  for (const result of await Promise.all(told)) expect(result?.data ?? null).toBeNull();
});

test.each(TRANSPORTS)('over %s another process hears of an event within its poll interval', async (_name, open) => {
  const second = await startSecondServer(server.db, { LATCHKEY_EVENT_POLL_MS: '200' });
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 1);
  const after = await lastCursor(grant!.externalId);
  const stream = await open(second.url, HEALTH, { variables: { tenantId: grant!.externalId, after } });
  await flip(server.db, grant!, 1);
  const began = performance.now();
  const result = await stream.next();
  expect(result?.data.healthChanged).toMatchObject({ current: 'DEGRADED', reason: 'RATE_LIMITED' });
  expect(performance.now() - began).toBeLessThan(2_000);
  await stream.close();
});

test.each(TRANSPORTS)(
  'over %s a client that leaves is forgotten at once: nothing is read for it any more',
  async (_name, open) => {
    let reads = 0;
    const counted = {
      ...server.db,
      query: ((statement) => ((reads += 1), server.db.query(statement))) as typeof server.db.query,
    };
    const second = await startSecondServer(counted, { LATCHKEY_EVENT_POLL_MS: '10' });
    const streams = await Promise.all(
      [1, 2, 3].map(() => open(second.url, HEALTH, { variables: { tenantId: 'nobody' } })),
    );
    const waiting = streams.map((stream) => stream.next().catch(() => null));
    await until(() => reads > 20);
    await Promise.all(streams.map((stream) => stream.close()));
    await Promise.all(waiting);
    let before = -1;
    await until(async () => {
      if (reads === before) return true;
      before = reads;
      await new Promise((resolve) => setTimeout(resolve, 150));
      return false;
    });
    expect(reads).toBe(before);
  },
);

test.each(TRANSPORTS)('over %s a trip is told step by step, and the subscription ends with it', async (_name, open) => {
  const tenantId = await createTenant(server);
  const trip = await begin(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id });
  const query = 'subscription ($id: ID!) { authorizationChanged(id: $id) { id status grant { id } failure } }';
  const stream = await open(server.url, query, { variables: { id: trip.sessionId } });
  const status = async () => (await stream.next())?.data.authorizationChanged.status;
  expect(await status()).toBe('PENDING');
  const { connectCode } = await comeBack(trip, await consent(trip, newZoomUser(server)));
  expect(await status()).toBe('AWAITING_COMPLETION');
  expect((await complete(server, connectCode, 'u')).status).toBe('COMPLETED');
  const last = (await stream.next())?.data.authorizationChanged;
  expect(last).toMatchObject({ status: 'COMPLETED', failure: null, grant: { id: expect.any(String) } });
  expect(await stream.next()).toBeNull();
  // Who comes when it is over is told so, and the subscription ends.
  const late = await open(server.url, query, { variables: { id: trip.sessionId } });
  expect((await late.next())?.data.authorizationChanged.status).toBe('COMPLETED');
  expect(await late.next()).toBeNull();
});

test('queries and mutations work over WebSocket, and one that is wrong does not end the others', async () => {
  const socket = await openConnection(server.url);
  const ask = async (id: string, query: string, variables = {}) => {
    socket.send({ type: 'subscribe', id, payload: { query, variables } });
    return socket.next();
  };
  expect(await ask('1', '{ viewer {')).toMatchObject({
    id: '1',
    type: 'error',
    payload: [{ extensions: { code: 'GRAPHQL_PARSE_FAILED' } }],
  });
  expect(await ask('2', '{ nothing }')).toEqual({
    id: '2',
    type: 'error',
    payload: [expect.objectContaining({ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } })],
  });
  expect(await ask('3', 'query ($id: ID!) { node(id: $id) { id } }')).toEqual({
    id: '3',
    type: 'next',
    payload: { errors: [expect.objectContaining({ extensions: { code: 'BAD_USER_INPUT' } })] },
  });
  expect(await socket.next()).toEqual({ id: '3', type: 'complete' });
  expect(await ask('4', '{ viewer { kind } }')).toEqual({
    id: '4',
    type: 'next',
    payload: { data: { viewer: { kind: 'SERVER_KEY' } } },
  });
  socket.close();
});

// ------------------------------------------------------------------------------------------------- who is let in, and out

const init = (authorization?: string) => ({
  type: 'connection_init',
  payload: authorization === undefined ? {} : { authorization },
});

test.each([
  ['a wrong key', init('Bearer wrong')],
  ['no key', init()],
  ['a key that is no text', { type: 'connection_init', payload: { authorization: [`Bearer ${TEST_ADMIN_KEY}`] } }],
  ['no payload', { type: 'connection_init' }],
])('a WebSocket with %s is closed with 4403', async (_name, message) => {
  const socket = await openBareSocket(webSocketUrl(server.url));
  socket.send(message);
  expect((await socket.closed).code).toBe(4403);
});

test('a key in the address or a header of the upgrade does not let a WebSocket in', async () => {
  const socket = await openBareSocket(`${webSocketUrl(server.url)}?token=${TEST_ADMIN_KEY}`, {
    headers: { authorization: `Bearer ${TEST_ADMIN_KEY}` },
  });
  socket.send(init());
  expect((await socket.closed).code).toBe(4403);
});

test.each([
  ['Origin', { origin: 'https://product.example' }],
  ['Cookie', { cookie: 'a=b' }],
  ['Sec-Fetch-Site', { 'sec-fetch-site': 'same-origin' }],
])('a server key over a WebSocket that came with %s is refused', async (_name, headers) => {
  const socket = await openBareSocket(webSocketUrl(server.url), { headers: headers as Record<string, string> });
  socket.send(init(`Bearer ${TEST_ADMIN_KEY}`));
  expect((await socket.closed).code).toBe(4403);
});

test('a WebSocket that says nothing is closed with 4408 after three seconds', async () => {
  const began = performance.now();
  const socket = await openBareSocket(webSocketUrl(server.url));
  expect((await socket.closed).code).toBe(4408);
  expect(performance.now() - began).toBeGreaterThan(2_900);
});

test('a second introduction closes a WebSocket with 4429, an operation before the first with 4401, nonsense with 4400', async () => {
  const twice = await openConnection(server.url);
  twice.send(init(`Bearer ${TEST_ADMIN_KEY}`));
  expect((await twice.closed).code).toBe(4429);
  const early = await openBareSocket(webSocketUrl(server.url));
  early.send({ type: 'subscribe', id: '1', payload: { query: '{ viewer { kind } }' } });
  expect((await early.closed).code).toBe(4401);
  const nonsense = await openConnection(server.url);
  nonsense.send('nonsense');
  expect((await nonsense.closed).code).toBe(4400);
  const same = await openConnection(server.url);
  for (const id of ['1', '1']) same.send({ type: 'subscribe', id, payload: { query: HEALTH } });
  expect((await same.closed).code).toBe(4409);
});

test('a WebSocket without the right subprotocol is not opened', async () => {
  for (const protocol of ['graphql-ws', 'soap']) {
    await expect(openBareSocket(webSocketUrl(server.url), { protocol })).rejects.toThrow(/subprotocol/);
  }
});

test.each(['/', '/graphql/', '/graphqlx', '/livez', '//graphql', '/webhooks/zoom/x'])(
  '%s is not upgraded: 404',
  async (path) => {
    const outcome = await openBareSocket(`${server.url.replace('http', 'ws')}${path}`).then(
      (socket) => socket.status,
      (error: Error) => error.message,
    );
    expect([404, 'Unexpected server response: 404']).toContain(outcome);
  },
);

test.each(TRANSPORTS)('a server that closes ends its streams over %s', async (_name, open) => {
  const second = await startSecondServer(server.db);
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 1);
  const stream = await open(second.url, HEALTH, {
    variables: { tenantId: grant!.externalId, after: Buffer.from('e0').toString('base64url') },
  });
  await stream.next();
  const waiting = stream.next().then(
    (result) => result,
    () => null,
  );
  const began = performance.now();
  const closing = second.close();
  expect(await waiting).toBeNull();
  expect(performance.now() - began).toBeLessThan(2_000);
  await closing;
});

test('an event whose connection is removed with its app is still told, without it', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 1);
  await server.db.query(sql`DELETE FROM provider_grant WHERE id = ${grant!.id}::uuid`);
  const stream = await openSse(server.url, HEALTH, {
    variables: { tenantId: grant!.externalId, after: Buffer.from('e0').toString('base64url') },
  });
  expect((await stream.next())?.data.healthChanged).toMatchObject({ current: 'DEGRADED', grant: null });
  await stream.close();
});
