import { randomBytes } from 'node:crypto';
import { expect, test } from 'vitest';
import { startTestServer } from './support/server.js';
import { createTenant as makeTenant } from './support/story.js';

const server = await startTestServer();

const RESULT = `__typename
  ... on CreateTenantSuccess { tenant { ...T } }
  ... on InvalidInputError { path }
  ... on Error { message }`;
const FIELDS =
  'fragment T on Tenant { id externalId name createdAt allowedOrigins key { version createdAt pendingReseal } health { healthy degraded reauthorizationRequired revoked } }';

const createTenant = async (input: Record<string, unknown>) =>
  (
    await server.data(`mutation ($input: CreateTenantInput!) { createTenant(input: $input) { ${RESULT} } } ${FIELDS}`, {
      input,
    })
  ).createTenant;
const updateTenant = async (input: Record<string, unknown>) =>
  (
    await server.data(
      `mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { ${RESULT.replace('CreateTenant', 'UpdateTenant')} } } ${FIELDS}`,
      { input },
    )
  ).updateTenant;
const read = async (externalId: string) =>
  (await server.data(`query ($e: String!) { tenant(externalId: $e) { ...T } } ${FIELDS}`, { e: externalId })).tenant;
const fresh = () => `org_${randomBytes(6).toString('hex')}`;

test('a new tenant has a key of its own, no connections, and is found by either of its identifiers', async () => {
  const externalId = fresh();
  const { tenant } = await createTenant({
    externalId,
    name: 'Acme – Köln',
    allowedOrigins: ['https://app.example.com', 'http://localhost:3000'],
  });
  expect(tenant).toEqual({
    id: expect.any(String),
    externalId,
    name: 'Acme – Köln',
    createdAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
    allowedOrigins: ['https://app.example.com', 'http://localhost:3000'],
    key: { version: 1, createdAt: expect.any(String), pendingReseal: 0 },
    health: { healthy: 0, degraded: 0, reauthorizationRequired: 0, revoked: 0 },
  });
  expect(await read(externalId)).toEqual(tenant);
  const { node } = await server.data(`query ($id: ID!) { node(id: $id) { ...T } } ${FIELDS}`, { id: tenant.id });
  expect(node).toEqual(tenant);
});

test('an identifier is taken once, also by callers who come at the same moment', async () => {
  const externalId = fresh();
  const answers = await Promise.all(Array.from({ length: 10 }, () => createTenant({ externalId })));
  expect(answers.map((answer): string => answer.__typename).toSorted()).toEqual([
    ...Array(9).fill('AlreadyExistsError'),
    'CreateTenantSuccess',
  ]);
});

test.each(['', ' ', 'two words', 'tab\there', 'line\nbreak', 'nul\0', 'köln', '…', 'x'.repeat(201)])(
  '%j cannot be an identifier',
  async (externalId) => {
    expect(await createTenant({ externalId })).toMatchObject({
      __typename: 'InvalidInputError',
      path: ['input', 'externalId'],
    });
  },
);

test.each(['', '  ', 'x'.repeat(201), 'nul\0', 'two\nlines'])('%j cannot be a name', async (name) => {
  expect(await createTenant({ externalId: fresh(), name })).toMatchObject({
    __typename: 'InvalidInputError',
    path: ['input', 'name'],
  });
});

test.each([
  ['https://app.example.com', 'https://app.example.com'],
  ['https://app.example.com/', 'https://app.example.com'],
  ['https://APP.Example.com', 'https://app.example.com'],
  ['HTTPS://app.example.com', 'https://app.example.com'],
  ['https://app.example.com:443', 'https://app.example.com'],
  ['https://app.example.com:8443', 'https://app.example.com:8443'],
  ['https://münchen.example', 'https://xn--mnchen-3ya.example'],
  ['http://localhost', 'http://localhost'],
  ['http://127.0.0.1:5173', 'http://127.0.0.1:5173'],
  ['http://[::1]:5173', 'http://[::1]:5173'],
])('the origin %s is kept as %s', async (given, kept) => {
  expect((await createTenant({ externalId: fresh(), allowedOrigins: [given, given] })).tenant.allowedOrigins).toEqual([
    kept,
  ]);
});

test.each([
  '',
  'null',
  '*',
  'https://*',
  'https://*.example.com',
  'app.example.com',
  '//app.example.com',
  'https:app.example.com',
  'https:/app.example.com',
  'https:///app.example.com',
  'http://app.example.com',
  'http://localhost.example.com',
  'http://127.0.0.1.nip.io',
  'https://app.example.com/path',
  'https://app.example.com//',
  'https://app.example.com?',
  'https://app.example.com?x=1',
  'https://app.example.com#',
  'https://app.example.com#x',
  'https://user@app.example.com',
  'https://user:pw@app.example.com',
  'https://app.example.com\\',
  'https://app.example.com\\@evil.example',
  ' https://app.example.com',
  'https://app.example.com ',
  'https://app.exa\tmple.com',
  'https://app.example.com.',
  'https://app.example.com:99999',
  'ftp://app.example.com',
  'javascript:alert(1)',
  'data:text/html,x',
  'file:///etc/passwd',
  'blob:https://app.example.com/x',
  'ws://localhost',
  'https://%61pp.example.com',
  'https://',
])('%j is no exact origin', async (origin) => {
  const answer = await createTenant({ externalId: fresh(), allowedOrigins: ['https://ok.example', origin] });
  expect(answer).toMatchObject({ __typename: 'InvalidInputError', path: ['input', 'allowedOrigins', '1'] });
});

test('a tenant may have fifty origins and not one more', async () => {
  const origins = Array.from({ length: 51 }, (_, index) => `https://a${index}.example`);
  expect(
    (await createTenant({ externalId: fresh(), allowedOrigins: origins.slice(1) })).tenant.allowedOrigins,
  ).toHaveLength(50);
  expect(await createTenant({ externalId: fresh(), allowedOrigins: origins })).toMatchObject({
    path: ['input', 'allowedOrigins'],
  });
});

test('an update changes what it names, and only that', async () => {
  const externalId = fresh();
  const { tenant } = await createTenant({ externalId, name: 'Acme', allowedOrigins: ['https://a.example'] });
  expect((await updateTenant({ tenantId: externalId })).tenant).toEqual(tenant);
  expect((await updateTenant({ tenantId: externalId, name: 'Bcme' })).tenant).toEqual({ ...tenant, name: 'Bcme' });
  expect((await updateTenant({ tenantId: externalId, allowedOrigins: ['https://b.example'] })).tenant).toMatchObject({
    name: 'Bcme',
    allowedOrigins: ['https://b.example'],
  });
  expect((await updateTenant({ tenantId: externalId, allowedOrigins: null })).tenant.allowedOrigins).toEqual([
    'https://b.example',
  ]);
  expect((await updateTenant({ tenantId: externalId, name: null, allowedOrigins: [] })).tenant).toMatchObject({
    name: null,
    allowedOrigins: [],
  });
  expect(await updateTenant({ tenantId: externalId, name: '' })).toMatchObject({ path: ['input', 'name'] });
  expect(await updateTenant({ tenantId: externalId, allowedOrigins: ['http://x.example'] })).toMatchObject({
    path: ['input', 'allowedOrigins', '0'],
  });
  expect((await read(externalId)).allowedOrigins).toEqual([]);
});

test('what does not exist is not updated and not found', async () => {
  for (const tenantId of ['', 'nobody', 'x'.repeat(10_000)]) {
    expect((await updateTenant({ tenantId })).__typename).toBe('NotFoundError');
    expect(await read(tenantId)).toBeNull();
  }
});

test.each([
  ['createTenant', 'CreateTenantInput', () => ({ externalId: fresh() })],
  ['updateTenant', 'UpdateTenantInput', async () => ({ tenantId: await makeTenant(server) })],
] as const)('%s says that it succeeded also to who asks for nothing else', async (field, type, input) => {
  const answer = await server.data(
    `mutation ($input: ${type}!) { ${field}(input: $input) { __typename ... on Error { message } } }`,
    { input: await input() },
  );
  expect(answer[field].__typename).toMatch(/Success$/);
});

test('the list of tenants is walked forwards and backwards, oldest first, without gaps or repetition', async () => {
  const made = [];
  for (let i = 0; i < 7; i += 1) made.push(await makeTenant(server));
  const walk = async (
    args: (cursor: string | null) => string,
    cursor: 'endCursor' | 'startCursor',
    more: 'hasNextPage' | 'hasPreviousPage',
  ) => {
    const seen: string[] = [];
    for (let at: string | null = null, going = true; going;) {
      const { tenants } = await server.data(
        `{ tenants(${args(at)}) { totalCount pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor node { externalId } } } }`,
      );
      const page = tenants.edges.map(({ node }: { node: { externalId: string } }) => node.externalId);
      expect(tenants.totalCount).toBeGreaterThanOrEqual(7);
      if (cursor === 'endCursor') seen.push(...page);
      else seen.unshift(...page);
      at = tenants.pageInfo[cursor];
      going = tenants.pageInfo[more];
    }
    return seen;
  };
  const forwards = await walk(
    (after) => `first: 3${after === null ? '' : `, after: "${after}"`}`,
    'endCursor',
    'hasNextPage',
  );
  const backwards = await walk(
    (before) => `last: 3${before === null ? '' : `, before: "${before}"`}`,
    'startCursor',
    'hasPreviousPage',
  );
  expect(backwards).toEqual(forwards);
  expect(new Set(forwards).size).toBe(forwards.length);
  expect(forwards.slice(-7)).toEqual(made);
});
