import { serverAudits } from 'graphql-http';
import { expect, test } from 'vitest';
import { freePort } from './support/free-port.js';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { createTenant, PRODUCT } from './support/story.js';
import { codesOf, WAYS } from './support/ways.js';

const development = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const port = await freePort();
const production = await startSecondServer(development.db, {
  NODE_ENV: 'production',
  PORT: String(port),
  LATCHKEY_PUBLIC_URL: `http://localhost:${port}`,
  DATABASE_URL: 'postgres://127.0.0.1/not-used',
});
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };

const tenantId = await createTenant(development);
const keys = {
  administrator: await createServerKey(development, { permissions: ['KEYS_WRITE'] }),
  reader: await createServerKey(development, { permissions: ['CONNECTIONS_READ', 'CREDENTIALS_READ'] }),
};
const session = await createFrontendSession(development, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT);

const SCHEMA = [
  '{ __schema { queryType { name } } }',
  '{ __type(name: "Query") { name } }',
  'query A { ...F } fragment F on Query { ... { alias: __type(name: "Query") { kind } } }',
  'query ($yes: Boolean = true) { viewer { kind } __schema @include(if: $yes) { types { name } } }',
];

test.each(WAYS)('in production the schema is read by administrators alone, %s', async (_name, way) => {
  for (const query of SCHEMA) {
    for (const { headers } of [keys.reader, session]) {
      const answer = await way(production.url, { query }, headers);
      expect([answer.data ?? null, codesOf(answer)]).toEqual([null, ['INTROSPECTION_DISABLED']]);
    }
    for (const headers of [keys.administrator.headers, admin]) {
      expect(codesOf(await way(production.url, { query }, headers))).toEqual([]);
    }
  }
  // Whoever was let in first makes no difference: what is known of a document is not known of who asks.
  expect(codesOf(await way(production.url, { query: SCHEMA[0]! }, session.headers))).toEqual([
    'INTROSPECTION_DISABLED',
  ]);
});

test('the name of a type is told to everybody, and in development the whole schema', async () => {
  for (const [, way] of WAYS) {
    const query = '{ __typename viewer { __typename } }';
    const data = { __typename: 'Query', viewer: { __typename: 'Viewer' } };
    expect(await way(production.url, { query }, session.headers)).toEqual({ data });
    expect(codesOf(await way(development.url, { query: SCHEMA[0]! }, session.headers))).toEqual([]);
  }
});

const NEARLY: [string, string, Record<string, unknown>?][] = [
  ['a field', '{ viever { kind } }'],
  ['an argument', '{ tenants(frist: 1) { totalCount } }'],
  ['a type', '{ ... on Quer { viewer { kind } } }'],
  ['an enum value', '{ installations(filter: { status: [HEALTY] }) { totalCount } }'],
  ['an input field', '{ installations(filter: { tenantIdd: "x" }) { totalCount } }'],
  [
    'an enum value in a variable',
    'query ($filter: GrantFilter) { installations(filter: $filter) { totalCount } }',
    { filter: { status: ['HEALTY'] } },
  ],
];

test.each(NEARLY)(
  'the real name of %s that is nearly right is told in development alone',
  async (_what, query, variables) => {
    for (const [, way] of WAYS) {
      const asked = { query, ...(variables ? { variables } : {}) };
      const told = await way(development.url, asked, admin);
      expect(JSON.stringify(told)).toContain('Did you mean');
      const hidden = await way(production.url, asked, admin);
      expect(codesOf(hidden)).toEqual(codesOf(told));
      expect(JSON.stringify(hidden)).not.toContain('Did you mean');
    }
  },
);

test('a document with a thousand mistakes is told of five', async () => {
  const query = `{ ${Array.from({ length: 900 }, (_, index) => `x${index}`).join(' ')} }`;
  const { errors } = await development.graphql(query);
  expect(errors).toHaveLength(6);
  expect(errors?.at(-1)?.message).toMatch(/aborted/);
});

// --------------------------------------------------------------------------------------------------- outside suites

test('in production all 61 audits of the GraphQL over HTTP specification pass with a key that may read the schema', async () => {
  const audits = serverAudits({
    url: `${production.url}/graphql`,
    fetchFn: (url: string, init: RequestInit = {}) =>
      fetch(url, {
        ...init,
        headers: { ...(init.headers as Record<string, string>), ...keys.administrator.headers },
      }),
  });
  const results = [];
  for (const { id, name, fn } of audits) results.push({ id, name, status: (await fn()).status });
  expect(results.filter(({ status }) => status !== 'ok')).toEqual([]);
  expect(results).toHaveLength(61);
});

const json = { 'content-type': 'application/json', accept: 'application/json' };
const ask = (init: RequestInit & { headers?: Record<string, string> }, search = '', caller = session) =>
  fetch(`${production.url}/graphql${search}`, { ...init, headers: { ...init.headers, ...caller.headers } });
const send = async (body: unknown) => (await ask({ method: 'POST', headers: json, body: JSON.stringify(body) })).json();

/**
 * The twelve probes of GraphQL Cop (github.com/dolevf/graphql-cop), as a browser with a session sends them. Each says
 * whether its weakness was found.
 */
const PROBES: [string, () => Promise<boolean>][] = [
  [
    'alias overloading',
    async () => {
      const { data } = await send({
        query: `query cop { ${Array.from({ length: 101 }, (_, i) => `alias${i}:__typename`).join(' ')} }`,
      });
      return data?.alias100 !== undefined;
    },
  ],
  [
    'array-based query batching',
    async () => {
      const answer = await send(Array.from({ length: 10 }, () => ({ query: 'query cop { __typename }' })));
      return Array.isArray(answer);
    },
  ],
  [
    'circular query by introspection',
    async () => {
      const { data } = await send({
        query: `query cop { __schema { types { fields { type { fields { type { fields { type { fields { type { name }
          } } } } } } } } } }`,
      });
      return data?.__schema !== undefined;
    },
  ],
  [
    'directive overloading',
    async () => {
      const { errors } = await send({ query: `query cop { __typename ${'@aa'.repeat(10)} }` });
      return errors.length === 10;
    },
  ],
  [
    'field suggestions',
    async () => /Did you mean/.test(JSON.stringify(await send({ query: '{ __schema { directive } }' }))),
  ],
  [
    'introspection',
    async () => (await send({ query: 'query cop { __schema { types { name } } }' })).data !== undefined,
  ],
  [
    'a mutation by GET',
    async () => {
      const answer = await ask({ headers: { accept: 'application/json' } }, '?query=mutation{__typename}');
      return ((await answer.json()) as { data?: unknown }).data !== undefined;
    },
  ],
  [
    'a form as POST (CSRF)',
    async () => {
      const body = new URLSearchParams({ query: 'query cop { __typename }' });
      const answer = await ask({ method: 'POST', body });
      return ((await answer.json()) as { data?: unknown }).data !== undefined;
    },
  ],
  [
    'GraphiQL',
    async () => {
      const pages = ['/graphiql', '/playground', '/console', '/graphql', '/altair'].map(async (path) => {
        const answer = await fetch(`${production.url}${path}`, { headers: { accept: 'text/html', ...admin } });
        return /graphiql|playground|graphql explorer/i.test(await answer.text());
      });
      return (await Promise.all(pages)).includes(true);
    },
  ],
  [
    'trace mode',
    async () => /tracing|exception|stacktrace/i.test(JSON.stringify(await send({ query: 'query cop { __typename }' }))),
  ],
  [
    'unhandled errors',
    async () => /exception|stack/i.test(JSON.stringify(await send({ query: 'qwerty cop { abc }' }))),
  ],
  // Here a query by GET is a request with a header that no link and no form can make, so there is nothing to forge.
  [
    'a query by GET without a key (CSRF)',
    async () => {
      const answer = await fetch(`${production.url}/graphql?query={__typename}`, { headers: { cookie: 'session=1' } });
      return ((await answer.json()) as { data?: unknown }).data !== undefined;
    },
  ],
];

test.each(PROBES)('the probe for %s finds nothing', async (_name, isFound) => {
  expect(await isFound()).toBe(false);
});

test('a field that is asked for 500 times is answered once, and 1000 times not at all', async () => {
  const repeated = (count: number) => send({ query: `query cop { ${'__typename \n'.repeat(count)} }` });
  expect(await repeated(500)).toEqual({ data: { __typename: 'Query' } });
  expect((await repeated(1_000)).errors[0].extensions.code).toMatch(/^GRAPHQL_/);
});
