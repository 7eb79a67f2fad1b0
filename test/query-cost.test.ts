import { parse } from 'graphql';
import { expect, test } from 'vitest';
import { costOf } from '../src/http/operation-cost.js';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { snippetsOf } from './support/snippets.js';
import { createTenant, PRODUCT } from './support/story.js';
import { codesOf, WAYS } from './support/ways.js';

const server = await startTestServer({ LATCHKEY_MAX_FRONTEND_SESSION_COST: '400' });
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };

const cost = (query: string, variables?: Record<string, unknown>) => costOf({ document: parse(query), variables });

/** What typical operations cost. A change of the schema or of the reckoning that moves one shows here. */
const BUDGET: [string, number, string][] = [
  ['who is calling', 3, '{ viewer { kind permissions } }'],
  [
    'a credential',
    7,
    `query ($input: CredentialInput!) { credential(input: $input) {
      __typename ... on Credential { accessToken expiresAt apiUrl warning } ... on ReauthorizationRequiredError { reason } } }`,
  ],
  [
    'the start of a trip',
    6,
    `mutation ($input: BeginAuthorizationInput!) { beginAuthorization(input: $input) {
      ... on BeginAuthorizationSuccess { authorizationSession { id startUrl } } ... on InvalidInputError { path }
      ... on Error { message } } }`,
  ],
  ['a page of connections', 101, '{ userConnections { edges { node { id health { status } } } } }'],
  ['the longest page of them', 501, '{ userConnections(first: 100) { edges { node { id health { status } } } } }'],
  [
    'a page of tenants with the connections of each',
    2_941,
    `{ tenants(first: 20) { edges { node { id externalId
      installations { edges { node { id health { status reason remedy } } } } } } pageInfo { endCursor } } }`,
  ],
  ['a stream of health', 8, 'subscription { healthChanged { cursor current reason grant { id health { status } } } }'],
];

test.each(BUDGET)('%s costs %i', (_name, expected, query) => {
  const variables = { input: { tenantId: 't', userId: 'u', credentialFor: 'INSTALLATION' } };
  const needed = query.includes('CredentialInput') ? variables : { input: { tenantId: 't', userId: 'u' } };
  expect(cost(query, query.includes('$input') ? needed : undefined)).toBe(expected);
});

test('every operation of the guide for frontends is far below what a session may ask for', async () => {
  const code = (await snippetsOf('frontend.md', 'js')).join('\n');
  const operations = [...code.matchAll(/`((?:mutation|subscription|\{\n)[^`]*)`/g)].map(([, text = '']) => text);
  expect(operations.length).toBe(5);
  for (const text of operations) {
    const variables = { input: { tenantId: 't', userId: 'u', connectCode: 'c' }, id: 'x' };
    const known = text.includes('CompleteAuthorization') ? { input: { connectCode: 'c' } } : variables;
    const input = text.includes('BeginAuthorization') ? { input: { tenantId: 't', userId: 'u' } } : known;
    expect([text, cost(text, input)]).toEqual([text, expect.any(Number)]);
    expect(cost(text, input)!).toBeLessThan(1_000);
  }
});

test.each(['first', 'last'])('what is selected in a page counts once for each of its items, by %s', (size) => {
  const one = cost(`{ tenants(${size}: 1) { edges { node { id } } } }`)!;
  const ten = cost(`{ tenants(${size}: 10) { edges { node { id } } } }`)!;
  expect(ten - 1).toBe(10 * (one - 1));
  const query = `query ($n: Int) { tenants(${size}: $n) { edges { node { id } } } }`;
  expect(cost(query, { n: 10 })).toBe(ten);
  const document = parse(query);
  expect([100, 1, 10].map((n) => costOf({ document, variables: { n } }))).toEqual([301, 4, 31]);
});

test('what is reached through fragments counts as much', () => {
  const plain = cost('{ tenants(first: 50) { edges { node { installations { totalCount } } } } }');
  expect(
    cost(`{ ...Q } fragment Q on Query { tenants(first: 50) { ... on TenantConnection { edges { ...E } } } }
      fragment E on TenantEdge { node { ... on Tenant { installations { totalCount } } } }`),
  ).toBe(plain);
});

const TOO_MUCH: [string, string, Record<string, unknown>?][] = [
  ['one enormous page', '{ healthEvents(first: 100000) { edges { cursor } } }'],
  [
    'pages within pages',
    '{ tenants(first: 100) { edges { node { installations(first: 100) { edges { node { id createdAt } } } } } } }',
  ],
  ['a page whose size is a variable', 'query ($n: Int) { tenants(first: $n) { edges { cursor } } }', { n: 1_000_000 }],
];

test.each(WAYS.flatMap(([name, way]) => TOO_MUCH.map((much) => [much[0], name, way, much] as const)))(
  'an operation of %s is refused with COST_LIMIT_EXCEEDED %s',
  async (_what, _name, way, [, query, variables]) => {
    const answer = await way(server.url, { query, ...(variables ? { variables } : {}) }, admin);
    expect(answer.data ?? null).toBeNull();
    expect(answer.errors).toEqual([
      expect.objectContaining({
        extensions: { code: 'COST_LIMIT_EXCEEDED', cost: expect.any(Number), limit: 20_000 },
      }),
    ]);
  },
);

test.each(WAYS.slice(3))('a subscription that asks for too much with each event is refused %s', async (_name, way) => {
  const query = 'subscription { healthChanged { tenant { healthEvents(first: 30000) { edges { cursor } } } } }';
  expect(codesOf(await way(server.url, { query }, admin))).toEqual(['COST_LIMIT_EXCEEDED']);
});

test('a refused mutation changes nothing', async () => {
  const { errors, status } = await server.graphql(
    `mutation { createTenant(input: { externalId: "org_costly" }) {
      ... on CreateTenantSuccess { tenant { healthEvents(first: 90000) { edges { cursor } } } } } }`,
    undefined,
    { accept: 'application/graphql-response+json' },
  );
  expect([status, errors?.[0]?.extensions.code]).toEqual([400, 'COST_LIMIT_EXCEEDED']);
  expect(await server.db.prisma.tenant.count({ where: { externalId: 'org_costly' } })).toBe(0);
});

test('a variable that is null where it must not be does not hide what the rest costs', async () => {
  const query = `query ($id: ID! = "x") { node(id: $id) { id } tenants(first: 100) { edges { node {
    installations(first: 100) { edges { node { id createdAt } } } } } } }`;
  for (const [, way] of WAYS) {
    const answer = await way(server.url, { query: query.replace('ID! =', 'ID ='), variables: { id: null } }, admin);
    expect([answer.data ?? null, codesOf(answer)]).toEqual([null, ['BAD_USER_INPUT']]);
  }
});

test.each(WAYS)('a session has a limit of its own, which no server key has, %s', async (_name, way) => {
  const tenantId = await createTenant(server);
  const session = await createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT);
  const restricted = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
  const query = '{ userConnections(first: 100) { edges { node { id health { status } } } } }';
  const refused = await way(server.url, { query }, session.headers);
  expect([refused.data ?? null, refused.errors?.[0]?.extensions]).toEqual([
    null,
    { code: 'COST_LIMIT_EXCEEDED', cost: 501, limit: 400 },
  ]);
  const shorter = { query: query.replace('100', '50') };
  expect(await way(server.url, shorter, session.headers)).toEqual({ data: { userConnections: { edges: [] } } });
  expect(await way(server.url, { query }, restricted.headers)).toEqual({ data: { userConnections: { edges: [] } } });
});
