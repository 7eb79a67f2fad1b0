import { expect, test } from 'vitest';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { openConnection, openSse } from './support/streams.js';

const server = await startTestServer();

/** The errors of one operation, by each way into the engine. */
const WAYS: [string, (query: string) => Promise<{ extensions: { code: string }; message: string }[]>][] = [
  ['directly', async (query) => (await server.graphql(query)).errors ?? []],
  [
    'by negotiation',
    async (query) => (await server.graphql(query, undefined, { accept: 'application/json, text/x' })).errors ?? [],
  ],
  [
    'by GET',
    async (query) => {
      const address = `${server.url}/graphql?${new URLSearchParams({ query })}`;
      const response = await fetch(address, { headers: { authorization: `Bearer ${TEST_ADMIN_KEY}` } });
      return ((await response.json()) as { errors?: never[] }).errors ?? [];
    },
  ],
  [
    'over server-sent events',
    async (query) => {
      const stream = await openSse(server.url, query);
      const result = await stream.next();
      await stream.close();
      return (result?.errors ?? []) as never;
    },
  ],
  [
    'over WebSocket',
    async (query) => {
      const socket = await openConnection(server.url);
      socket.send({ type: 'subscribe', id: '1', payload: { query } });
      const { type, payload } = await socket.next();
      socket.close();
      return type === 'error' ? payload : (payload.errors ?? []);
    },
  ],
];

/** healthEvents > edges > node > tenant > healthEvents > … : each name is one level. */
function ofDepth(depth: number): string {
  const names = ['healthEvents', 'edges', 'node', 'tenant'];
  const path = Array.from({ length: depth - 1 }, (_, level) => names[level % names.length]!);
  const leaf: Record<string, string> = { healthEvents: '__typename', edges: 'cursor', node: 'id', tenant: 'id' };
  return `${path.join(' { ')} { ${leaf[path.at(-1)!]} ${'}'.repeat(path.length)}`;
}

const LIMITS: [string, string, string][] = [
  ['8 levels of depth', `{ ${ofDepth(8)} }`, `{ ${ofDepth(9)} }`],
  [
    '8 levels of depth, through fragments',
    `{ healthEvents { ...A } } fragment A on HealthEventConnection { ${ofDepth(8)
      .replace(/^healthEvents \{ /, '')
      .replace(/\}$/, '')} }`,
    `{ healthEvents { ...A } } fragment A on HealthEventConnection { ${ofDepth(9)
      .replace(/^healthEvents \{ /, '')
      .replace(/\}$/, '')} }`,
  ],
  ['15 aliases', `{ ${aliases(15)} }`, `{ ${aliases(16)} }`],
  ['15 aliases, of the type name', `{ ${aliases(15, '__typename')} }`, `{ ${aliases(16, '__typename')} }`],
  [
    '10 directives',
    `{ viewer { kind ${'@include(if: true) '.repeat(1)} } ${directives(9)} }`,
    `{ viewer { kind @include(if: true) } ${directives(10)} }`,
  ],
  ['1000 tokens', ofTokens(1000), ofTokens(1001)],
];

function aliases(count: number, field = 'viewer { kind }'): string {
  return Array.from({ length: count }, (_, index) => `a${index}: ${field}`).join(' ');
}

function ofTokens(count: number): string {
  const [before, after] = ['{ installations(filter: { status: [', '] }) { totalCount } }'];
  const others = [...`${before}${after}`.matchAll(/\w+|[^\s\w]/g)].length;
  return `${before}${'HEALTHY '.repeat(count - others)}${after}`;
}

function directives(count: number): string {
  return Array.from({ length: count }, () => '... @include(if: true) { __typename }').join(' ');
}

test.each(
  WAYS.flatMap(([way, run]) => LIMITS.map(([limit, within, beyond]) => [limit, way, run, within, beyond] as const)),
)('a document may have %s and no more, %s', async (_limit, _way, run, within, beyond) => {
  expect(await run(within)).toEqual([]);
  const errors = await run(beyond);
  expect(errors.length).toBeGreaterThan(0);
  for (const error of errors) expect(error.extensions.code).toMatch(/^GRAPHQL_(PARSE|VALIDATION)_FAILED$/);
  expect(errors.map((error) => error.message).join()).toMatch(/limit|exceeded/i);
});

test('a document that unfolds without end is refused at once', async () => {
  const fragments = Array.from({ length: 40 }, (_, i) => `fragment F${i} on Tenant { ...F${i + 1} ...F${i + 1} }`).join(
    ' ',
  );
  const began = performance.now();
  const { errors } = await server.graphql(
    `{ tenants { edges { node { ...F0 } } } } ${fragments} fragment F40 on Tenant { id }`,
  );
  expect(performance.now() - began).toBeLessThan(5_000);
  expect(errors?.map(({ extensions }) => extensions.code)).toEqual(['COST_LIMIT_EXCEEDED']);
});

test('variables nested thousands deep are refused, not run into the ground', async () => {
  const body = `{"query":"query ($id: ID!) { node(id: $id) { id } }","variables":{"id":${'['.repeat(20_000)}${']'.repeat(20_000)}}}`;
  for (const accept of ['application/json', 'application/json, text/x']) {
    const response = await fetch(`${server.url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}`, accept },
      body,
    });
    expect([200, 400]).toContain(response.status);
    const { errors } = (await response.json()) as { errors: { extensions: { code: string } }[] };
    expect(errors[0]?.extensions.code).toBe('BAD_USER_INPUT');
  }
});

const EVERY_CONNECTION = ['tenants', 'providerApps', 'installations', 'userConnections', 'healthEvents'];

test.each(EVERY_CONNECTION)('a page of %s has at most 100 items, and its cursor must be one', async (field) => {
  const refused = async (args: string) =>
    (await server.graphql(`{ ${field}(${args}) { edges { cursor } } }`)).errors?.map((e) => e.extensions.code);
  expect(await refused('first: 100')).toBeUndefined();
  expect(await refused('first: 0')).toBeUndefined();
  const notCursors = [
    '',
    'x',
    '%%%',
    Buffer.from('GPC:S:1').toString('base64'),
    Buffer.from('e-1').toString('base64url'),
    Buffer.from('e9999999999999999').toString('base64url'),
    `GPC:S:${'9'.repeat(400)}`,
    '\\u0000',
  ];
  for (const args of [
    'first: 101',
    'last: 101',
    'first: -1',
    'last: -1',
    ...notCursors.flatMap((cursor) => [`after: "${cursor}"`, `before: "${cursor}", last: 2`]),
  ]) {
    expect([args, await refused(args)]).toEqual([args, ['BAD_USER_INPUT']]);
  }
  expect(await refused('first: 3000000000')).toEqual(['GRAPHQL_VALIDATION_FAILED']);
});

test.each(['installations', 'userConnections', 'healthEvents'])(
  'the limits of a page hold for %s inside a tenant, too',
  async (field) => {
    const externalId = `org_${field}`;
    await server.data('mutation ($e: String!) { createTenant(input: { externalId: $e }) { __typename } }', {
      e: externalId,
    });
    for (const args of ['first: 101', 'after: "x"', 'after: ""', 'last: -1']) {
      const { errors } = await server.graphql(
        `query ($e: String!) { tenant(externalId: $e) { ${field}(${args}) { edges { cursor } } } }`,
        { e: externalId },
      );
      expect([args, errors?.map((e) => e.extensions.code)]).toEqual([args, ['BAD_USER_INPUT']]);
    }
  },
);

test('a message over WebSocket may have 100 KiB; a longer one ends the connection', async () => {
  const socket = await openConnection(server.url);
  socket.send({
    type: 'subscribe',
    id: '1',
    payload: { query: '{ viewer { kind } }', variables: { x: 'x'.repeat(102_400) } },
  });
  expect((await socket.closed).code).toBe(1009);
});
