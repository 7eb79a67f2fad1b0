import { expect, test } from 'vitest';
import { startTestServer } from './support/server.js';
import { connect, createTenant, registerApp } from './support/story.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer();
const accountId = server.sandbox.control.accounts()[0]!.id;
const otherAccount = server.sandbox.control.createAccount({ name: 'Other' }).id;
const adminApp = await registerApp(server, 'ADMIN_MANAGED');
const userApp = await registerApp(server, 'USER_MANAGED');
const secondApp = await registerApp(server, 'USER_MANAGED');
const [tenantId, otherTenant] = [await createTenant(server), await createTenant(server)];

await connect(
  server,
  'beginInstallation',
  { tenantId, userId: 'admin', appId: adminApp.id },
  newZoomUser(server, { role: 'Admin' }),
);
for (const [tenant, userId, app] of [
  [tenantId, 'u1', userApp],
  [tenantId, 'u2', userApp],
  [tenantId, 'u3', userApp],
  [tenantId, 'u1', secondApp],
  [otherTenant, 'u1', userApp],
] as const) {
  await connect(server, 'beginAuthorization', { tenantId: tenant, userId, appId: app.id }, newZoomUser(server));
}
await server.data(
  `mutation ($id: ID!) { updateProviderApp(input: { id: $id, scopes: [{ name: "user:read:user" }, { name: "webinar:read:webinar" }] }) { __typename } }`,
  { id: secondApp.id },
);

const NODE = '__typename id externalUserId app { id } tenant { externalId } health { status } missingScopes { name }';
const list = async (args: string, variables: Record<string, unknown> = {}) => {
  const types = { t: 'String', u: 'String', a: 'ID', s: '[HealthStatus!]', m: 'String' } as Record<string, string>;
  const declared = Object.keys(variables)
    .map((name) => `$${name}: ${types[name]}`)
    .join(', ');
  const { userConnections } = await server.data(
    `query ${declared === '' ? '' : `(${declared})`} { userConnections${args} { totalCount edges { cursor node { ${NODE} } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }`,
    variables,
  );
  return {
    ...userConnections,
    users: userConnections.edges.map(
      ({ node }: any) => `${node.tenant.externalId === tenantId ? 'a' : 'b'}:${node.externalUserId}`,
    ),
  };
};

test('without a filter a list shows all connections of its kind, and counts them', async () => {
  const all = await list('');
  expect(all).toMatchObject({ totalCount: 5, users: ['a:u1', 'a:u2', 'a:u3', 'a:u1', 'b:u1'] });
  expect(all.edges.every(({ node }: any) => node.__typename === 'UserConnection')).toBe(true);
  const { installations } = await server.data(
    '{ installations { totalCount edges { node { __typename installedBy { displayName email } providerAccountId } } } }',
  );
  expect(installations).toMatchObject({
    totalCount: 1,
    edges: [{ node: { __typename: 'Installation', providerAccountId: accountId } }],
  });
});

test.each([
  ['tenant', '(filter: { tenantId: $t })', { t: tenantId }, ['a:u1', 'a:u2', 'a:u3', 'a:u1']],
  ['user', '(filter: { userId: $u })', { u: 'u1' }, ['a:u1', 'a:u1', 'b:u1']],
  ['tenant and user', '(filter: { tenantId: $t, userId: $u })', { t: otherTenant, u: 'u1' }, ['b:u1']],
  ['app', '(filter: { appId: $a })', { a: secondApp.id }, ['a:u1']],
  ['provider', '(filter: { provider: ZOOM })', {}, ['a:u1', 'a:u2', 'a:u3', 'a:u1', 'b:u1']],
  ['status', '(filter: { status: $s })', { s: ['DEGRADED'] }, ['a:u1']],
  [
    'several statuses',
    '(filter: { status: $s })',
    { s: ['DEGRADED', 'HEALTHY'] },
    ['a:u1', 'a:u2', 'a:u3', 'a:u1', 'b:u1'],
  ],
  ['missing scope', '(filter: { missingScope: $m })', { m: 'webinar:read:webinar' }, ['a:u1']],
  [
    'a filter of nulls',
    '(filter: { tenantId: $t, userId: $u, status: $s })',
    { t: null, u: null, s: null },
    ['a:u1', 'a:u2', 'a:u3', 'a:u1', 'b:u1'],
  ],
  ['no status at all', '(filter: { status: $s })', { s: [] }, []],
  ['an empty tenant', '(filter: { tenantId: $t })', { t: '' }, []],
  ['an empty user', '(filter: { userId: $u })', { u: '' }, []],
  ['an empty app', '(filter: { appId: $a })', { a: '' }, []],
  ['an empty scope', '(filter: { missingScope: $m })', { m: '' }, []],
  [
    'the id of something else',
    '(filter: { appId: $a })',
    { a: Buffer.from('Tenant:00000000-0000-4000-8000-000000000000').toString('base64url') },
    [],
  ],
])('a list filtered by %s shows and counts what matches', async (_name, args, variables, users) => {
  expect(await list(args, variables)).toMatchObject({ users, totalCount: users.length });
});

test('pages of a filtered list follow each other, and each knows whether there are more', async () => {
  const first = await list('(first: 2, filter: { tenantId: $t })', { t: tenantId });
  expect([first.users, first.totalCount, first.pageInfo.hasNextPage, first.pageInfo.hasPreviousPage]).toEqual([
    ['a:u1', 'a:u2'],
    4,
    true,
    false,
  ]);
  const second = await list(`(first: 2, after: "${first.pageInfo.endCursor}", filter: { tenantId: $t })`, {
    t: tenantId,
  });
  expect([second.users, second.pageInfo.hasNextPage, second.pageInfo.hasPreviousPage]).toEqual([
    ['a:u3', 'a:u1'],
    false,
    true,
  ]);
  const back = await list(`(last: 2, before: "${second.pageInfo.startCursor}", filter: { tenantId: $t })`, {
    t: tenantId,
  });
  expect(back.users).toEqual(['a:u1', 'a:u2']);
  expect(
    (await list(`(first: 2, after: "${second.pageInfo.endCursor}", filter: { tenantId: $t })`, { t: tenantId })).users,
  ).toEqual([]);
});

test('lists inside a tenant and an app hold what is theirs, counted and filtered each by itself', async () => {
  const { tenant, app } = await server.data(
    `query ($t: String!, $a: ID!) {
      tenant(externalId: $t) {
        installations { totalCount edges { node { id userConnections(first: 2) { totalCount edges { node { externalUserId } } } } } }
        userConnections(first: 1) { totalCount edges { node { externalUserId installation { id } } } }
        degraded: userConnections(filter: { status: [DEGRADED] }) { totalCount edges { node { app { id } } } }
        none: userConnections(filter: { tenantId: "another" }) { totalCount edges { node { id } } }
        health { healthy degraded reauthorizationRequired revoked }
      }
      app: providerApp(id: $a) {
        installations { totalCount }
        userConnections { totalCount edges { node { externalUserId } } }
        u2: userConnections(filter: { userId: "u2" }) { totalCount edges { node { externalUserId } } }
      }
    }`,
    { t: tenantId, a: userApp.id },
  );
  const [installation] = tenant.installations.edges;
  expect(tenant).toEqual({
    installations: {
      totalCount: 1,
      edges: [
        {
          node: {
            id: expect.any(String),
            userConnections: {
              totalCount: 4,
              edges: [{ node: { externalUserId: 'u1' } }, { node: { externalUserId: 'u2' } }],
            },
          },
        },
      ],
    },
    userConnections: {
      totalCount: 4,
      edges: [{ node: { externalUserId: 'u1', installation: { id: installation.node.id } } }],
    },
    degraded: { totalCount: 1, edges: [{ node: { app: { id: secondApp.id } } }] },
    none: { totalCount: 0, edges: [] },
    health: { healthy: 4, degraded: 1, reauthorizationRequired: 0, revoked: 0 },
  });
  expect(app).toEqual({
    installations: { totalCount: 0 },
    userConnections: {
      totalCount: 4,
      edges: ['u1', 'u2', 'u3', 'u1'].map((externalUserId) => ({ node: { externalUserId } })),
    },
    u2: { totalCount: 1, edges: [{ node: { externalUserId: 'u2' } }] },
  });
});

test('an installation has the user connections of its own account only, and none of another tenant', async () => {
  const stranger = newZoomUser(server, { accountId: otherAccount });
  const elsewhere = await registerApp(server, 'USER_MANAGED');
  const third = await createTenant(server);
  const session = await connect(
    server,
    'beginAuthorization',
    { tenantId: third, userId: 'x', appId: elsewhere.id },
    stranger,
  );
  expect(session.status).toBe('COMPLETED');
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { installation { id } providerAccountId } } } }',
    { t: third },
  );
  expect(userConnections.edges).toEqual([{ node: { installation: null, providerAccountId: otherAccount } }]);
});

test('whatever has an id is found again by it, as what it is', async () => {
  const found = await server.data(
    `query ($t: String!, $a: ID!) {
      tenant(externalId: $t) { id installations { edges { node { id } } } userConnections { edges { node { id } } } healthEvents { edges { node { id } } } }
      providerApp(id: $a) { id scopes { id name } }
    }`,
    { t: tenantId, a: userApp.id },
  );
  const ids = {
    Tenant: found.tenant.id,
    Installation: found.tenant.installations.edges[0].node.id,
    UserConnection: found.tenant.userConnections.edges[0].node.id,
    HealthEvent: found.tenant.healthEvents.edges[0].node.id,
    ProviderApp: found.providerApp.id,
    Scope: found.providerApp.scopes[0].id,
  };
  for (const [typename, id] of Object.entries(ids)) {
    expect((await server.data('query ($id: ID!) { node(id: $id) { __typename id } }', { id })).node).toEqual({
      __typename: typename,
      id,
    });
  }
  // The same row under another name is not found: a user connection is no installation.
  const decoded = (id: string) => Buffer.from(id, 'base64url').toString('utf8').split(':')[1]!;
  for (const [claimed, id] of [
    ['Installation', ids.UserConnection],
    ['UserConnection', ids.Installation],
    ['Tenant', ids.ProviderApp],
    ['HealthEvent', ids.Tenant],
    ['Grant', ids.Installation],
    ['Query', ids.Tenant],
    ['__proto__', ids.Tenant],
    ['AuthorizationSession', ids.Tenant],
  ] as const) {
    const forged = Buffer.from(`${claimed}:${decoded(id)}`).toString('base64url');
    expect([claimed, (await server.data('query ($id: ID!) { node(id: $id) { id } }', { id: forged })).node]).toEqual([
      claimed,
      null,
    ]);
  }
});

test.each([
  ['revokeInstallation', 'UserConnection'],
  ['revokeUserConnection', 'Installation'],
  ['refreshGrant', 'Tenant'],
  ['checkGrant', 'ProviderApp'],
])('%s answers NotFoundError to the id of something else, of nothing, and to what is no id', async (field, other) => {
  const { userConnections, installations } = await server.data(
    '{ userConnections { edges { node { id } } } installations { edges { node { id } } } }',
  );
  const uuid = Buffer.from(
    (field === 'revokeInstallation' ? userConnections : installations).edges[0].node.id,
    'base64url',
  )
    .toString('utf8')
    .split(':')[1]!;
  const own = { revokeInstallation: 'Installation', revokeUserConnection: 'UserConnection' }[field];
  const ids = [
    '',
    'x',
    `${other}:${uuid}`,
    ...(own === undefined ? [] : [`${own}:${uuid}`]),
    'Installation:00000000-0000-4000-8000-000000000000',
    'UserConnection:1',
    "UserConnection:' OR 1=1",
  ];
  for (const id of ids) {
    const answer = await server.data(`mutation ($id: ID!) { ${field}(input: { id: $id }) { __typename } }`, {
      id: id.includes(':') ? Buffer.from(id).toString('base64url') : id,
    });
    expect([id, answer[field].__typename]).toEqual([id, 'NotFoundError']);
  }
  expect((await list('(filter: { status: [REVOKED] })')).totalCount).toBe(0);
});

test('mutations of connections say that they succeeded also to who asks for nothing else', async () => {
  const third = await createTenant(server);
  await connect(server, 'beginAuthorization', { tenantId: third, userId: 'x', appId: userApp.id }, newZoomUser(server));
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { id } } } }',
    { t: third },
  );
  const { id } = userConnections.edges[0].node;
  for (const field of ['refreshGrant', 'checkGrant', 'revokeUserConnection']) {
    const answer = await server.data(
      `mutation ($id: ID!) { ${field}(input: { id: $id }) { __typename ... on Error { message } } }`,
      { id },
    );
    expect(answer[field].__typename).toMatch(/Success$/);
  }
});
