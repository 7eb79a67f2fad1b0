import { randomBytes } from 'node:crypto';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { dumpDatabase } from './support/canary.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, USER_SCOPES } from './support/story.js';
import { until } from './support/until.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer();

const FIELDS = `fragment A on ProviderApp {
  id provider name kind environment clientId clientSecretSetAt webhookSecretSetAt redirectUri webhookUrl webhookValidatedAt setupUrl
  scopes { name level vocabulary resource description } incident { reason }
  installations { totalCount } userConnections { totalCount }
}`;
const OUTCOME = (
  success: string,
) => `__typename ... on ${success} { providerApp { ...A } } ... on InvalidInputError { path }
  ... on UnknownScopesError { scopes { name problem suggestions } } ... on Error { message }`;

const fresh = () => randomBytes(9).toString('base64url');
const input = (patch: Record<string, unknown> = {}) => ({
  name: 'Notes',
  kind: 'USER_MANAGED',
  clientId: fresh(),
  clientSecret: `s-${fresh()}`,
  ...patch,
});

const register = async (patch: Record<string, unknown> = {}) =>
  (
    await server.data(
      `mutation ($input: RegisterProviderAppInput!) { registerProviderApp(input: $input) { ${OUTCOME('RegisterProviderAppSuccess')} } } ${FIELDS}`,
      { input: input(patch) },
    )
  ).registerProviderApp;
const update = async (patch: Record<string, unknown>) =>
  (
    await server.data(
      `mutation ($input: UpdateProviderAppInput!) { updateProviderApp(input: $input) { ${OUTCOME('UpdateProviderAppSuccess')} } } ${FIELDS}`,
      { input: patch },
    )
  ).updateProviderApp;
const remove = async (id: string) =>
  (
    await server.data(
      `mutation ($id: ID!) { removeProviderApp(input: { id: $id }) { __typename ... on RemoveProviderAppSuccess { deletedId } ... on ProviderAppInUseError { liveGrants } ... on Error { message } } }`,
      { id },
    )
  ).removeProviderApp;
const read = async (id: string) =>
  (await server.data(`query ($id: ID!) { providerApp(id: $id) { ...A } } ${FIELDS}`, { id })).providerApp;

test('a registered app tells the addresses to paste at Zoom, distinct for each, and none of its secrets', async () => {
  const secrets = { clientSecret: `client-${fresh()}`, webhookSecret: `webhook-${fresh()}` };
  const { providerApp } = await register({
    ...secrets,
    scopes: [{ name: 'user:read:user' }, { name: 'meeting:read:meeting', optional: true }],
  });
  expect(providerApp).toMatchObject({
    provider: 'ZOOM',
    name: 'Notes',
    kind: 'USER_MANAGED',
    environment: 'COMMERCIAL',
    setupUrl: null,
    webhookValidatedAt: null,
    incident: null,
    clientSecretSetAt: expect.any(String),
    webhookSecretSetAt: expect.any(String),
    redirectUri: expect.stringMatching(new RegExp(`^${server.url}/oauth/callback/[A-Za-z0-9_-]{16}$`)),
    webhookUrl: expect.stringMatching(new RegExp(`^${server.url}/webhooks/zoom/[A-Za-z0-9_-]{16}$`)),
    scopes: [
      {
        name: 'user:read:user',
        level: 'USER',
        vocabulary: 'GRANULAR',
        resource: 'user',
        description: 'Read the profile of a user.',
      },
      {
        name: 'meeting:read:meeting',
        level: 'USER',
        vocabulary: 'GRANULAR',
        resource: 'meeting',
        description: expect.stringMatching(/\.$/),
      },
    ],
    installations: { totalCount: 0 },
    userConnections: { totalCount: 0 },
  });
  const other = (await register()).providerApp;
  expect(other.redirectUri).not.toBe(providerApp.redirectUri);
  expect(other.webhookSecretSetAt).toBeNull();
  expect(await read(providerApp.id)).toEqual(providerApp);
  const { node } = await server.data(`query ($id: ID!) { node(id: $id) { ...A } } ${FIELDS}`, { id: providerApp.id });
  expect(node).toEqual(providerApp);

  const dump = await dumpDatabase(server.db);
  for (const secret of Object.values(secrets)) {
    for (const text of [JSON.stringify(providerApp), dump, server.logs.join('\n')]) {
      for (const form of [secret, Buffer.from(secret).toString('hex'), Buffer.from(secret).toString('base64')])
        expect(text).not.toContain(form);
    }
  }
});

test('a client id is registered once per environment', async () => {
  const clientId = fresh();
  const answers = await Promise.all(Array.from({ length: 8 }, () => register({ clientId })));
  expect(answers.map(({ __typename }): string => __typename).toSorted()).toEqual([
    ...Array(7).fill('AlreadyExistsError'),
    'RegisterProviderAppSuccess',
  ]);
  expect((await register({ clientId, environment: 'GOVERNMENT' })).__typename).toBe('RegisterProviderAppSuccess');
});

test.each([
  ['name', ''],
  ['name', ' '],
  ['name', 'x'.repeat(201)],
  ['name', 'a\0'],
  ['clientId', ''],
  ['clientId', 'two words'],
  ['clientId', 'nul\0'],
  ['clientId', 'x'.repeat(501)],
  ['clientSecret', ''],
  ['clientSecret', 'line\n'],
  ['clientSecret', 'köln'],
  ['webhookSecret', ''],
  ['webhookSecret', ' padded '],
  ['setupUrl', ''],
  ['setupUrl', 'product.example'],
  ['setupUrl', 'javascript:alert(1)'],
  ['setupUrl', 'data:text/html,x'],
  ['setupUrl', 'https://user:pw@product.example'],
])('%s may not be %j', async (field, value) => {
  expect(await register({ [field]: value })).toMatchObject({ __typename: 'InvalidInputError', path: ['input', field] });
  if (field === 'clientId') return;
  const { providerApp } = await register();
  expect(await update({ id: providerApp.id, [field]: value })).toMatchObject({
    __typename: 'InvalidInputError',
    path: ['input', field],
  });
});

test('names that no scope has are refused one by one, unless they are to be taken', async () => {
  const names = ['user', 'User:Read', 'user read', '', 'nothing:of:zoom', `user:${'x'.repeat(120)}`];
  const refused = await register({ scopes: ['user:read:user', ...names].map((name) => ({ name })) });
  expect(refused).toMatchObject({
    __typename: 'UnknownScopesError',
    scopes: names.map((name) => ({ name, problem: 'NOT_IN_CATALOGUE' })),
  });
  const taken = await register({ scopes: names.slice(0, 2).map((name) => ({ name })), acceptUnknownScopes: true });
  expect(taken.providerApp.scopes.map(({ name }: { name: string }) => name)).toEqual(['user', 'User:Read']);
  expect(await update({ id: taken.providerApp.id, scopes: [{ name: 'user' }] })).toMatchObject({
    __typename: 'UnknownScopesError',
  });
  expect(
    (await update({ id: taken.providerApp.id, scopes: [{ name: 'user' }], acceptUnknownScopes: true })).__typename,
  ).toBe('UpdateProviderAppSuccess');
});

test('an update changes what it names, and only that', async () => {
  const { providerApp } = await register({
    setupUrl: 'https://product.example/setup',
    scopes: [{ name: 'user:read:user' }],
  });
  const { id } = providerApp;
  expect((await update({ id })).providerApp).toEqual(providerApp);
  expect((await update({ id, name: 'Other' })).providerApp).toEqual({ ...providerApp, name: 'Other' });
  expect((await update({ id, setupUrl: null })).providerApp).toEqual({ ...providerApp, name: 'Other', setupUrl: null });
  expect((await update({ id, name: null, scopes: [] })).providerApp).toEqual({
    ...providerApp,
    name: 'Other',
    setupUrl: null,
    scopes: [],
  });
  const rotated = (await update({ id, webhookSecret: 'another-secret' })).providerApp;
  expect(rotated.webhookSecretSetAt).not.toBeNull();
  expect(rotated.clientSecretSetAt).toBe(providerApp.clientSecretSetAt);
});

test.each([
  '',
  'x',
  'VGVuYW50Ong',
  Buffer.from('ProviderApp:1').toString('base64url'),
  Buffer.from('Tenant:00000000-0000-4000-8000-000000000000').toString('base64url'),
  Buffer.from('ProviderApp:00000000-0000-4000-8000-000000000000').toString('base64url'),
])('nothing has the id %j', async (id) => {
  expect(await read(id)).toBeNull();
  expect((await update({ id })).__typename).toBe('NotFoundError');
  expect((await remove(id)).__typename).toBe('NotFoundError');
});

test('an app that nobody uses is removed, and its client id is free again', async () => {
  const clientId = fresh();
  const { providerApp } = await register({ clientId });
  expect(await remove(providerApp.id)).toEqual({ __typename: 'RemoveProviderAppSuccess', deletedId: providerApp.id });
  expect(await read(providerApp.id)).toBeNull();
  expect((await remove(providerApp.id)).__typename).toBe('NotFoundError');
  expect((await register({ clientId })).__typename).toBe('RegisterProviderAppSuccess');
});

test('an app with connections stays until they are revoked at Zoom, too; their events outlive it', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id }, newZoomUser(server));
  expect(await remove(app.id)).toMatchObject({ __typename: 'ProviderAppInUseError', liveGrants: 1 });
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { id } } } }',
    { t: tenantId },
  );
  const [{ node }] = userConnections.edges;
  await server.data('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', { id: node.id });
  await until(async () => (await server.db.query(sql`SELECT 1 FROM provider_revocation`)).length === 0);
  expect(await remove(app.id)).toMatchObject({ __typename: 'RemoveProviderAppSuccess' });
  expect((await server.data('query ($id: ID!) { node(id: $id) { id } }', { id: node.id })).node).toBeNull();
  const { healthEvents } = await server.data(
    'query ($t: String!) { healthEvents(filter: { tenantId: $t }) { edges { node { reason grant { id } } } } }',
    { t: tenantId },
  );
  expect(healthEvents.edges).toEqual([
    { node: { reason: 'CONNECTED', grant: null } },
    { node: { reason: 'DISCONNECTED', grant: null } },
  ]);
  expect(await credential(server, { tenantId, credentialFor: 'USER', userId: 'u' })).toMatchObject({
    __typename: 'GrantNotFoundError',
  });
});

test('scopes that an app comes to require are missed by its connections at once, and found again when it does not', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const user = newZoomUser(server);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id }, user);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'gone', appId: app.id }, newZoomUser(server));
  const grants = async () =>
    (
      await server.data(
        'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { id externalUserId health { status reason remedy } missingScopes { name } } } } }',
        { t: tenantId },
      )
    ).userConnections.edges.map(({ node }: { node: unknown }) => node);
  const [, gone] = await grants();
  await server.data('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', { id: gone.id });

  const wanted = [...USER_SCOPES, 'meeting:write:meeting'];
  await update({ id: app.id, scopes: wanted.map((name) => ({ name })) });
  expect(await grants()).toMatchObject([
    {
      health: { status: 'DEGRADED', reason: 'SCOPES_MISSING', remedy: expect.any(String) },
      missingScopes: [{ name: 'meeting:write:meeting' }],
    },
    { health: { status: 'REVOKED', reason: 'DISCONNECTED' } },
  ]);
  // The token is as good as before for whatever does not need the new scope.
  expect(await credential(server, { tenantId, credentialFor: 'USER', userId: 'u' })).toMatchObject({
    __typename: 'Credential',
  });
  expect(
    await credential(server, {
      tenantId,
      credentialFor: 'USER',
      userId: 'u',
      requiredScopes: ['meeting:write:meeting'],
    }),
  ).toMatchObject({
    __typename: 'MissingScopesError',
    missingScopes: ['meeting:write:meeting'],
  });
  await update({ id: app.id, scopes: wanted.map((name) => ({ name, optional: name === 'meeting:write:meeting' })) });
  expect(await grants()).toMatchObject([
    { health: { status: 'HEALTHY', reason: 'RECOVERED' }, missingScopes: [] },
    { health: { status: 'REVOKED' } },
  ]);
  // The same scopes once more change nothing, and tell nothing.
  await update({ id: app.id, scopes: wanted.map((name) => ({ name, optional: name === 'meeting:write:meeting' })) });
  const { healthEvents } = await server.data(
    'query ($t: String!) { healthEvents(filter: { tenantId: $t }) { edges { node { reason previous current } } } }',
    { t: tenantId },
  );
  expect(healthEvents.edges.map(({ node }: { node: { reason: string } }) => node.reason)).toEqual([
    'CONNECTED',
    'CONNECTED',
    'DISCONNECTED',
    'SCOPES_MISSING',
    'RECOVERED',
  ]);
});

test.each([
  ['registerProviderApp', 'RegisterProviderAppInput', async () => input()],
  ['updateProviderApp', 'UpdateProviderAppInput', async () => ({ id: (await register()).providerApp.id, name: 'X' })],
  ['removeProviderApp', 'RemoveProviderAppInput', async () => ({ id: (await register()).providerApp.id })],
] as const)('%s says that it succeeded also to who asks for nothing else', async (field, type, make) => {
  const answer = await server.data(
    `mutation ($input: ${type}!) { ${field}(input: $input) { __typename ... on Error { message } } }`,
    { input: await make() },
  );
  expect(answer[field].__typename).toMatch(/Success$/);
});

test('the list of apps is walked without gaps or repetition', async () => {
  const made = [];
  for (let i = 0; i < 5; i += 1) made.push((await register()).providerApp.id);
  const seen: string[] = [];
  for (let after: string | null = null, more = true; more;) {
    const { providerApps } = await server.data(
      'query ($after: String) { providerApps(first: 2, after: $after) { edges { node { id } } pageInfo { hasNextPage endCursor } } }',
      { after },
    );
    seen.push(...providerApps.edges.map(({ node }: { node: { id: string } }) => node.id));
    after = providerApps.pageInfo.endCursor;
    more = providerApps.pageInfo.hasNextPage;
  }
  expect(new Set(seen).size).toBe(seen.length);
  expect(seen.slice(-5)).toEqual(made);
});
