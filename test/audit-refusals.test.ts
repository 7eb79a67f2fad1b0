import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { auditEvents, mutate } from './support/audit.js';
import { connectUser } from './support/connections.js';
import { codeOf, createFrontendSession, createServerKey, type Caller } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, CREDENTIAL, PRODUCT } from './support/story.js';
import { openSse, openWebSocket } from './support/streams.js';

const server = await startTestServer({ LATCHKEY_METRICS_PORT: '0' });
const foreign = await connectUser(server);
const tenantId = await createTenant(server);

const refusalsOf = async (caller: Caller) =>
  (await auditEvents(server)).filter(({ principalId, outcome }) => principalId === caller.id && outcome === 'REFUSED');

const rows = async () =>
  (await server.db.query<{ count: number }>(sql`SELECT count(*)::int AS count FROM audit_event`))[0]?.count;

test('a mutation that a key may not do at all leaves one event in its tenant at once, however often it is tried', async () => {
  const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
  for (let n = 0; n < 20; n += 1) {
    const input = { tenantId: n % 2 === 0 ? tenantId : foreign.tenantId, name: `attempt ${n}` };
    expect(codeOf(await mutate(server, 'updateTenant', input, key.headers))).toBe('FORBIDDEN');
  }
  expect(await refusalsOf(key)).toMatchObject([
    {
      action: 'tenant.updated',
      reason: 'FORBIDDEN',
      principalKind: 'SERVER_KEY',
      tenant: { externalId: tenantId },
    },
  ]);
});

test('more of them within the minute wait for its end, also while the trail is read', async () => {
  const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
  for (let n = 0; n < 5; n += 1) {
    await mutate(server, 'rotateTenantKey', { tenantId }, key.headers);
    await auditEvents(server);
  }
  expect(await refusalsOf(key)).toMatchObject([{ action: 'tenant_key.rotated' }]);
});

test('each mutation that a frontend session may not do leaves its name and the user who tried', async () => {
  const session = await createFrontendSession(
    server,
    { tenantId, allow: ['READ_CONNECTIONS'], userId: 'user_1' },
    PRODUCT,
  );
  const tried = { createTenant: { externalId: 'x' }, revokeSignedUrls: { tenantId }, revokeServerKey: { id: 'x' } };
  for (const [name, input] of Object.entries(tried)) {
    expect(codeOf(await mutate(server, name, input, session.headers))).toBe('FORBIDDEN');
  }
  const events = await refusalsOf(session);
  expect(events.map(({ action }) => action).toSorted()).toEqual([
    'key.revoked',
    'signed_urls.revoked',
    'tenant.created',
  ]);
  expect(events).toMatchObject(events.map(() => ({ externalUserId: 'user_1', reason: 'FORBIDDEN' })));
});

const byAction = (one: { action: string }, other: { action: string }) => one.action.localeCompare(other.action);

test('ids of another tenant leave what was tried in the tenant of the key, as one event for many ids', async () => {
  const key = await createServerKey(server, { permissions: ['CONNECTIONS_WRITE', 'CREDENTIALS_READ'], tenantId });
  const others = [foreign, await connectUser(server), await connectUser(server)];
  for (const { id } of others) await mutate(server, 'revokeUserConnection', { id }, key.headers);
  for (const { input } of others) await key.data(CREDENTIAL, { input });
  for (const { id } of others) {
    expect((await fetch(`${server.url}/tokens/grants/${id}`, { headers: key.headers })).status).toBe(404);
  }
  const events = (await refusalsOf(key)).toSorted(byAction);
  expect(events).toMatchObject([
    { action: 'credential.read', reason: 'GrantNotFoundError', grant: null, tenant: { externalId: tenantId } },
    { action: 'grant.revoked', reason: 'NotFoundError', grant: null, tenant: { externalId: tenantId } },
  ]);
});

test('a token that a key may not have is refused and recorded, over GraphQL and the address of tokens alike', async () => {
  const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
  expect(codeOf(await key.graphql(CREDENTIAL, { input: foreign.input }))).toBe('FORBIDDEN');
  expect((await fetch(`${server.url}/tokens/grants/${foreign.id}`, { headers: key.headers })).status).toBe(403);
  expect(await refusalsOf(key)).toMatchObject([
    { action: 'credential.read', reason: 'FORBIDDEN', tenant: null, grant: null },
  ]);
});

const REFUSED_QUERIES = [
  '{ tenants { edges { cursor } } }',
  '{ installations { edges { cursor } } }',
  '{ serverKeys { edges { cursor } } }',
  '{ auditEvents { edges { cursor } } }',
  `{ node(id: "${foreign.id}") { id } }`,
];

test('a query that a caller may not ask for leaves one event that names the field, and those for other fields wait with it', async () => {
  const callers = [
    await createServerKey(server, { permissions: ['SESSIONS_CREATE'], tenantId }),
    await createFrontendSession(server, { tenantId, allow: ['CONNECT_USER'], userId: 'user_1' }, PRODUCT),
  ];
  for (const caller of callers) {
    for (const query of REFUSED_QUERIES) {
      expect(codeOf(await caller.graphql(query))).toBe('FORBIDDEN');
      await auditEvents(server);
    }
    expect(await refusalsOf(caller)).toMatchObject([
      { action: 'query.refused', subject: 'tenants', reason: 'FORBIDDEN', count: 1, tenant: { externalId: tenantId } },
    ]);
  }
});

test.each([
  ['server-sent events', openSse],
  ['WebSocket', openWebSocket],
])('a subscription that a key may not begin leaves an event, over %s', async (_name, open) => {
  const tried = async (key: Caller, query: string) => {
    const stream = await open(server.url, query, { adminKey: key.token });
    const first = await stream.next().catch((error: unknown) => error);
    await stream.close();
    expect(JSON.stringify(first)).toContain('FORBIDDEN');
    return refusalsOf(key);
  };
  const event = { action: 'subscription.refused', reason: 'FORBIDDEN', count: 1, tenant: { externalId: tenantId } };
  const mayNot = await createServerKey(server, { permissions: ['SESSIONS_CREATE'], tenantId });
  const trip = `subscription { authorizationChanged(id: "${foreign.id}") { id } }`;
  expect(await tried(mayNot, trip)).toMatchObject([{ ...event, subject: 'authorizationChanged' }]);
  const elsewhere = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
  const health = `subscription { healthChanged(tenantId: "${foreign.tenantId}") { id } }`;
  expect(await tried(elsewhere, health)).toMatchObject([{ ...event, subject: 'healthChanged' }]);
});

test('every attempt is counted when the server ends, in one event more for each action', async () => {
  const ending = await startTestServer();
  const key = await createServerKey(ending, { permissions: ['SESSIONS_CREATE'] });
  for (const [n, query] of REFUSED_QUERIES.entries()) {
    await key.graphql(query);
    await mutate(ending, 'rotateTenantKey', { tenantId }, key.headers);
    if (n === 0) await auditEvents(ending);
  }
  await ending.close();
  const counted = await ending.db.query(sql`
    SELECT action, subject, count FROM audit_event WHERE outcome = 'REFUSED' ORDER BY sequence`);
  expect(counted).toEqual([
    { action: 'query.refused', subject: 'tenants', count: 1 },
    { action: 'tenant_key.rotated', subject: null, count: 1 },
    { action: 'query.refused', subject: null, count: 4 },
    { action: 'tenant_key.rotated', subject: null, count: 4 },
  ]);
});

test('callers who are not known leave no event and are counted in the metrics', async () => {
  await auditEvents(server);
  const before = await rows();
  const unknown = { authorization: `Bearer ${'x'.repeat(43)}` };
  for (let n = 0; n < 5; n += 1) {
    expect(codeOf(await mutate(server, 'updateTenant', { tenantId }, unknown))).toBe('UNAUTHENTICATED');
  }
  expect(
    (await fetch(`${server.url}/tokens/grants/${foreign.id}?kind=access&tenant=a&expires=1&signature=x`)).status,
  ).toBe(401);
  await auditEvents(server);
  expect(await rows()).toBe(before);
  const figures = await (await fetch(server.metricsUrl ?? '')).text();
  expect(figures).toContain('latchkey_refused_requests_total{route="graphql",reason="unauthenticated"} 5');
  expect(figures).toContain('latchkey_refused_requests_total{route="tokens",reason="bad_signature"} 1');
});
