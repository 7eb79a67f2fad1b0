import { randomUUID } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createApiToken, parseApiToken } from '../src/domain/api-token.js';
import { createPrincipalDirectory } from '../src/domain/principal-directory.js';
import { PERMISSIONS } from '../src/domain/principal.js';
import { createKeyUse } from '../src/domain/server-key.js';
import { createAuthenticate } from '../src/http/authenticate.js';
import { createFailedAttempts } from '../src/http/failed-attempts.js';
import { createLog } from '../src/log.js';
import { Secret } from '../src/secret.js';
import { dumpDatabase } from './support/canary.js';
import { connectUser } from './support/connections.js';
import { callerOf, codeOf, CREATE_SERVER_KEY, createServerKey, revokeServerKey } from './support/principals.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { createTenant } from './support/story.js';
import { openSse, openWebSocket } from './support/streams.js';
import { until } from './support/until.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const VIEWER = '{ viewer { kind permissions tenant { externalId } externalUserId expiresAt } }';

/** The server's own way to tell who is calling, on the same database, with its statements counted. */
function countingAuthenticate() {
  const counted = { lookUps: 0 };
  const query: typeof server.db.query = (statement) => {
    counted.lookUps += 1;
    return server.db.query(statement);
  };
  const deps = { db: { query }, clock: systemClock, log: createLog('silent') };
  const principals = createPrincipalDirectory(deps);
  const authenticate = createAuthenticate({
    adminKey: new Secret(server.adminKey),
    ownOrigin: null,
    principals,
    keyUse: createKeyUse(deps),
    failedAttempts: createFailedAttempts(100),
    addressOf: ({ address }) => address,
  });
  return {
    counted,
    ask: async (token: string) => authenticate(`Bearer ${token}`, { headers: {}, address: undefined }),
  };
}

describe('a server key', () => {
  test('may do what it was made for and nothing else', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    expect(await key.data(VIEWER)).toEqual({
      viewer: {
        kind: 'SERVER_KEY',
        permissions: ['CONNECTIONS_READ'],
        tenant: null,
        externalUserId: null,
        expiresAt: null,
      },
    });
    expect(await key.data('{ installations { totalCount } }')).toEqual({ installations: { totalCount: 0 } });
    const refused = await key.graphql(
      'mutation { createTenant(input: { externalId: "org_forbidden" }) { __typename } }',
    );
    expect([refused.status, codeOf(refused), refused.data]).toEqual([200, 'FORBIDDEN', { createTenant: null }]);
    expect(await server.db.prisma.tenant.count({ where: { externalId: 'org_forbidden' } })).toBe(0);
  });

  test('is shown once and stored nowhere', async () => {
    const key = await createServerKey(server, { permissions: ['KEYS_WRITE'], name: 'shown once' });
    expect(parseApiToken(key.token)).toMatchObject({ kind: 'SERVER_KEY' });
    const secret = key.token.split('_')[3] ?? '';
    expect(secret).toMatch(/^[0-9A-Za-z]{43}$/);
    expect(await dumpDatabase(server.db)).not.toContain(secret);
    expect(server.logs.join('\n')).not.toContain(secret);
    const { node, serverKeys } = await server.data(
      `query ($id: ID!) {
        node(id: $id) { ... on ServerKey { name key } }
        serverKeys(first: 100) { edges { node { id key } } }
      }`,
      { id: key.id },
    );
    expect(node).toEqual({ name: 'shown once', key: null });
    expect(serverKeys.edges).toContainEqual({ node: { id: key.id, key: null } });
  });

  test('that is mistyped is refused without a look into the database', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const last = key.token.at(-1) === '0' ? '1' : '0';
    for (const token of [`${key.token.slice(0, -1)}${last}`, key.token.slice(0, -1), `${key.token}0`]) {
      const { counted, ask } = countingAuthenticate();
      expect([await ask(token), counted.lookUps]).toEqual([{ refusal: 'UNAUTHENTICATED' }, 0]);
      expect((await callerOf(server, key.id, token).graphql(VIEWER)).status).toBe(401);
    }
  });

  test('that is unknown, forged for a known id, or malformed gets one and the same answer', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const { id: rowId } = parseApiToken(key.token) ?? { id: '' };
    const tokens = [
      createApiToken('SERVER_KEY', randomUUID(), server.url).token.reveal(),
      createApiToken('SERVER_KEY', rowId, server.url).token.reveal(),
      createApiToken('FRONTEND_SESSION', rowId, server.url).token.reveal(),
      'not-a-key',
    ];
    const answers = await Promise.all(tokens.map((token) => callerOf(server, '', token).graphql(VIEWER)));
    expect(new Set(answers.map(({ status, data, errors }) => JSON.stringify({ status, data, errors }))).size).toBe(1);
    expect(answers[0]).toMatchObject({ status: 401, errors: [{ extensions: { code: 'UNAUTHENTICATED' } }] });
  });

  test('is looked up once for requests that come together, and not again for some seconds', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const { counted, ask } = countingAuthenticate();
    await Promise.all(Array.from({ length: 50 }, () => ask(key.token)));
    expect(await ask(key.token)).toMatchObject({ principal: { kind: 'SERVER_KEY' } });
    expect(counted.lookUps).toBe(1);
  });

  test('that expires is refused from that moment on', async () => {
    const expiresAt = new Date(Date.now() + 1_500);
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], expiresAt });
    expect((await key.graphql(VIEWER)).status).toBe(200);
    await until(async () => (await key.graphql(VIEWER)).status === 401);
    expect(Math.abs(Date.now() - expiresAt.getTime())).toBeLessThan(1_000);
  });

  test('that is revoked is refused at once, and is not there any more', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    expect((await key.graphql(VIEWER)).status).toBe(200);
    expect(await revokeServerKey(server, key.id)).toEqual({
      __typename: 'RevokeServerKeySuccess',
      deletedId: key.id,
    });
    expect((await key.graphql(VIEWER)).status).toBe(401);
    expect(await revokeServerKey(server, key.id)).toMatchObject({ __typename: 'NotFoundError' });
    expect(await server.data('query ($id: ID!) { node(id: $id) { id } }', { id: key.id })).toEqual({ node: null });
  });

  test('tells when it was last used, and is not written for each use', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const lastUsedAt = async () => {
      const { node } = await server.data('query ($id: ID!) { node(id: $id) { ... on ServerKey { lastUsedAt } } }', {
        id: key.id,
      });
      return node.lastUsedAt as string | null;
    };
    expect(await lastUsedAt()).toBeNull();
    await key.data(VIEWER);
    await until(async () => (await lastUsedAt()) !== null);
    expect(Math.abs(Date.now() - Date.parse((await lastUsedAt()) ?? ''))).toBeLessThan(10_000);

    let writes = 0;
    const query: typeof server.db.query = (statement) => {
      writes += 1;
      return server.db.query(statement);
    };
    const keyUse = createKeyUse({ db: { query }, clock: systemClock });
    for (let use = 0; use < 1_000; use += 1) keyUse.note(parseApiToken(key.token)?.id ?? '');
    expect(writes).toBe(0);
    for (let time = 0; time < 3; time += 1) await keyUse.record();
    expect(writes).toBe(1);
  });

  test('from a browser is refused', async () => {
    const key = await createServerKey(server, { permissions: PERMISSIONS });
    const marks = [
      { origin: 'https://product.example' },
      { 'sec-fetch-site': 'same-origin' },
      { 'sec-fetch-dest': 'empty' },
      { cookie: 'a=b' },
    ];
    for (const mark of marks) {
      const answer = await server.graphql(VIEWER, {}, { ...key.headers, ...mark } as Record<string, string>);
      expect([answer.status, codeOf(answer)]).toEqual([403, 'SERVER_KEY_IN_BROWSER']);
    }
  });
});

describe('wrong keys', () => {
  test('are told to wait after a hundred a minute, while the right ones get in from the same address', async () => {
    const strict = await startSecondServer(server.db);
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const ask = (token: string) =>
      fetch(`${strict.url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
        body: JSON.stringify({ query: VIEWER }),
      });
    const statuses: number[] = [];
    for (let attempt = 0; attempt < 100; attempt += 1) statuses.push((await ask(`wrong-${attempt}`)).status);
    expect(new Set(statuses)).toEqual(new Set([401]));
    const limited = await ask('wrong');
    expect([limited.status, await limited.json()]).toEqual([
      429,
      { errors: [{ message: expect.any(String), extensions: { code: 'TOO_MANY_ATTEMPTS' } }] },
    ]);
    const wait = Number(limited.headers.get('retry-after'));
    expect(wait).toBeGreaterThan(30);
    expect(wait).toBeLessThanOrEqual(60);
    expect((await ask(key.token)).status).toBe(200);
    await strict.close();
  });

  test('for one key count together, from wherever they come', async () => {
    const attempts = createFailedAttempts(2);
    expect(await attempts.note(['10.0.0.1', 'the key'])).toBeNull();
    expect(await attempts.note(['10.0.0.2', 'the key'])).toBeNull();
    expect(await attempts.note(['10.0.0.3', 'the key'])).toBeGreaterThan(50);
    expect(await attempts.note(['10.0.0.4', 'another key'])).toBeNull();
  });
});

describe('a server key makes keys', () => {
  const make = async (caller: { data: typeof server.data }, input: Record<string, unknown>) =>
    (await caller.data(CREATE_SERVER_KEY, { input: { name: 'made', ...input } })).createServerKey;

  test('that can do no more than itself', async () => {
    const tenantId = await createTenant(server);
    const maker = await createServerKey(server, { permissions: ['KEYS_WRITE', 'CONNECTIONS_READ'] });
    expect(await make(maker, { permissions: ['CONNECTIONS_READ'] })).toMatchObject({
      __typename: 'CreateServerKeySuccess',
    });
    expect(await make(maker, { permissions: ['CREDENTIALS_READ'] })).toMatchObject({ path: ['input', 'permissions'] });
    const bound = await createServerKey(server, { permissions: ['KEYS_WRITE', 'CONNECTIONS_READ'], tenantId });
    expect(await make(bound, { permissions: ['CONNECTIONS_READ'] })).toMatchObject({ path: ['input', 'tenantId'] });
    expect(
      await make(bound, { permissions: ['CONNECTIONS_READ'], tenantId: await createTenant(server) }),
    ).toMatchObject({
      __typename: 'NotFoundError',
    });
    expect(await make(bound, { permissions: ['CONNECTIONS_READ'], tenantId })).toMatchObject({
      serverKey: { tenant: { externalId: tenantId } },
    });
  });

  test.each([
    ['no permission', { permissions: [] }, ['input', 'permissions']],
    ['an empty name', { permissions: ['AUDIT_READ'], name: ' ' }, ['input', 'name']],
    ['a past expiry', { permissions: ['AUDIT_READ'], expiresAt: '2020-01-01T00:00:00Z' }, ['input', 'expiresAt']],
  ])('but not with %s', async (_what, input, path) => {
    expect(await make(server, input)).toMatchObject({ __typename: 'InvalidInputError', path });
  });

  test('but not for provider apps, which belong to all tenants, from within one', async () => {
    const tenantId = await createTenant(server);
    expect(await make(server, { permissions: ['PROVIDER_APPS_WRITE'], tenantId })).toMatchObject({
      path: ['input', 'permissions'],
    });
    const bound = await createServerKey(server, { permissions: ['TENANTS_WRITE'], tenantId });
    const refused = await bound.graphql(
      'mutation { createTenant(input: { externalId: "org_second" }) { __typename } }',
    );
    expect(codeOf(refused)).toBe('FORBIDDEN');
  });
});

test('a key with every permission reads credentials, and one without that permission does not', async () => {
  const connection = await connectUser(server);
  const query = `query ($input: CredentialInput!) { credential(input: $input) { ... on Credential { accessToken } } }`;
  const reader = await createServerKey(server, { permissions: ['CREDENTIALS_READ'] });
  expect((await reader.data(query, { input: connection.input })).credential.accessToken).toMatch(/./);
  const others = PERMISSIONS.filter((permission) => permission !== 'CREDENTIALS_READ');
  const other = await createServerKey(server, { permissions: others });
  const refused = await other.graphql(query, { input: connection.input });
  expect([codeOf(refused), refused.data]).toEqual(['FORBIDDEN', { credential: null }]);
});

describe.each([
  ['server-sent events', openSse],
  ['WebSocket', openWebSocket],
])('a stream over %s', (transport, openStream) => {
  const HEALTH = 'subscription { healthChanged { id } }';

  test('ends when its key is revoked', async () => {
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'] });
    const stream = await openStream(server.url, HEALTH, { adminKey: key.token });
    const end = stream.next().catch((error: { code?: number }) => error);
    await until(() => server.logs.length > 0);
    await new Promise((resolve) => setTimeout(resolve, 200));
    const since = Date.now();
    await revokeServerKey(server, key.id);
    const last = await end;
    if (transport === 'WebSocket') expect(last).toMatchObject({ code: 4403 });
    else expect(last).toMatchObject({ errors: [{ extensions: { code: 'SERVER_KEY_REVOKED' } }] });
    expect(Date.now() - since).toBeLessThan(5_000);
    await stream.close();
  });

  test('is not opened for a key that may not read connections', async () => {
    const key = await createServerKey(server, { permissions: ['CREDENTIALS_READ'] });
    const stream = await openStream(server.url, HEALTH, { adminKey: key.token });
    const answer = await stream.next().catch((error: unknown) => error);
    expect(JSON.stringify(answer)).toContain('FORBIDDEN');
    await stream.close();
  });
});
