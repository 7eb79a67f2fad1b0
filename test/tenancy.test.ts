import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import { connectUser } from './support/connections.js';
import { tripWithCode } from './support/consent-trip.js';
import { type Caller, createFrontendSession, createServerKey } from './support/principals.js';
import { createRandom, operationsToTry } from './support/random.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, PRODUCT, registerApp } from './support/story.js';
import { newZoomUser } from './support/zoom-user.js';

// A fast machine asks more often than a page may.
const server = await startTestServer({ LATCHKEY_RATE_LIMIT_FRONTEND_SESSION: '0' });
const app = await registerApp(server, 'USER_MANAGED');
const adminApp = await registerApp(server, 'ADMIN_MANAGED');

const PERMISSIONS = [
  'CREDENTIALS_READ',
  'CONNECTIONS_READ',
  'CONNECTIONS_WRITE',
  'TENANTS_WRITE',
  'SESSIONS_CREATE',
  'KEYS_WRITE',
  'AUDIT_READ',
];
const ACTIONS = ['CONNECT_INSTALLATION', 'CONNECT_USER', 'READ_CONNECTIONS', 'REVOKE'];

const NOWHERE = '00000000-0000-4000-8000-000000000000';
const globalId = (typename: string, id: string) => Buffer.from(`${typename}:${id}`).toString('base64url');
const rowOf = (id: string) => Buffer.from(id, 'base64url').toString('utf8').split(':')[1] ?? '';

/** A tenant with something of everything, and everything of it that must not turn up elsewhere. */
interface World {
  tenantId: string;
  name: string;
  ids: Record<string, string>;
  connectCode: string;
  userId: string;
  callers: Caller[];
  /** Texts that no other tenant's caller may ever be sent, but for those that it sent itself. */
  marks: string[];
}

async function createWorld(): Promise<World> {
  const tenantId = await createTenant(server);
  const userId = `user_of_${tenantId}`;
  const name = `Tenant ${tenantId}`;
  await server.data(`mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { __typename } }`, {
    input: { tenantId, name },
  });
  const connection = await connectUser(server, { app, tenantId, userId });
  const second = await connectUser(server, { app, tenantId, userId: `${userId}_2` });
  const admin = newZoomUser(server, { role: 'Admin' });
  const installation = await connect(server, 'beginInstallation', { tenantId, userId, appId: adminApp.id }, admin);
  const input = { tenantId, userId, appId: app.id };
  const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, newZoomUser(server));
  // Longer than a long run takes: a code that has expired would protect itself.
  await server.db.query(sql`
    UPDATE authorization_session SET expires_at = now() + interval '1 day' WHERE id = ${rowOf(trip.sessionId)}::uuid`);
  const key = await createServerKey(server, { permissions: PERMISSIONS, tenantId });
  const whole = await createFrontendSession(
    server,
    { tenantId, allow: ['CONNECT_INSTALLATION', 'READ_CONNECTIONS', 'REVOKE'] },
    PRODUCT,
  );
  const own = await createFrontendSession(server, { tenantId, userId, allow: ACTIONS }, PRODUCT);
  const [tenant] = await server.db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${tenantId}`);
  const [event] = await server.db.query<{ id: string }>(sql`
    SELECT e.id FROM health_event e WHERE e.grant_id = ${connection.rowId}::uuid LIMIT 1`);
  const { createWebhookEndpoint } = await server.data(
    `mutation ($input: CreateWebhookEndpointInput!) { createWebhookEndpoint(input: $input) {
      ... on CreateWebhookEndpointSuccess { webhookEndpoint { id secret } } } }`,
    { input: { tenantId, url: `https://${tenantId.replace('_', '-')}.example/`, description: name } },
  );
  // One that was taken, so that nothing of it changes while others try to steal it.
  const [delivery] = await server.db.query<{ id: string }>(sql`
    INSERT INTO webhook_delivery (endpoint_id, event_id, status, next_attempt_at)
    VALUES (${rowOf(createWebhookEndpoint.webhookEndpoint.id)}::uuid, ${event?.id}::uuid, 'DELIVERED', NULL) RETURNING id`);
  const ids = {
    WebhookEndpoint: createWebhookEndpoint.webhookEndpoint.id,
    WebhookDelivery: globalId('WebhookDelivery', delivery?.id ?? ''),
    Tenant: globalId('Tenant', tenant?.id ?? ''),
    UserConnection: connection.id,
    Installation: installation.grant.id,
    HealthEvent: globalId('HealthEvent', event?.id ?? ''),
    AuthorizationSession: trip.sessionId,
    ServerKey: key.id,
    FrontendSession: own.id,
  };
  const rows = [...Object.values(ids), second.id].flatMap((id) => [id, rowOf(id)]);
  return {
    tenantId,
    name,
    ids,
    connectCode,
    userId,
    callers: [key, whole, own],
    marks: [tenantId, userId, name, ...rows],
  };
}

const worlds = [await createWorld(), await createWorld(), await createWorld()];

/** What does not exist, in every place where a stolen id may be put. */
const NOTHING: Pick<World, 'tenantId' | 'userId' | 'ids' | 'connectCode'> = {
  tenantId: 'org_that_is_none',
  userId: 'user_of_org_that_is_none',
  ids: Object.fromEntries(Object.keys(worlds[0]!.ids).map((typename) => [typename, globalId(typename, NOWHERE)])),
  connectCode: 'y'.repeat(43),
};

type Target = typeof NOTHING;

const errors = '... on Error { __typename message }';
const grantFields = 'id tenant { externalId name } health { status }';

interface Operation {
  query: string;
  variables(target: Target): Record<string, unknown>;
}

const byId = (query: string, typename: string): Operation => ({
  query,
  variables: ({ ids }) => ({ id: ids[typename] }),
});
const byTenant = (query: string, input: (target: Target) => Record<string, unknown>): Operation => ({
  query,
  variables: (target) => input(target),
});
const mutation = (name: string, success: string, input: (target: Target) => Record<string, unknown>): Operation => {
  const type = `${name.charAt(0).toUpperCase()}${name.slice(1)}`;
  return {
    query: `mutation ($input: ${type}Input!) { ${name}(input: $input) { __typename ... on ${type}Success { ${success} } ${errors} } }`,
    variables: (target) => ({ input: input(target) }),
  };
};

/** Every operation that takes an id or a name of something. */
const OPERATIONS: Operation[] = [
  ...[
    'Tenant',
    'UserConnection',
    'Installation',
    'HealthEvent',
    'AuthorizationSession',
    'ServerKey',
    'WebhookEndpoint',
    'WebhookDelivery',
  ].map((typename) =>
    byId(
      `query ($id: ID!) { node(id: $id) { __typename id
        ... on Tenant { externalId name userConnections { totalCount edges { node { id } } } }
        ... on Grant { ${grantFields} healthEvents { edges { node { id } } } }
        ... on WebhookEndpoint { url description onlyTenant: tenant { externalId } deliveries { edges { node { id } } } }
        ... on WebhookDelivery { taken: status event { id } }
        ... on HealthEvent { grant { ${grantFields} } tenant { externalId } } } }`,
      typename,
    ),
  ),
  byId('query ($id: ID!) { authorizationSession(id: $id) { id status startUrl } }', 'AuthorizationSession'),
  byTenant('query ($t: String!) { tenant(externalId: $t) { id name health { healthy } } }', ({ tenantId }) => ({
    t: tenantId,
  })),
  byTenant(
    `query ($f: GrantFilter) { userConnections(filter: $f) { totalCount edges { node { ${grantFields} externalUserId } } } }`,
    ({ tenantId }) => ({ f: { tenantId } }),
  ),
  byTenant(
    `query ($f: GrantFilter) { userConnections(filter: $f) { totalCount edges { node { ${grantFields} } } } }`,
    ({ userId }) => ({ f: { userId } }),
  ),
  byTenant(
    `query ($f: GrantFilter) { installations(filter: $f) { totalCount edges { node { ${grantFields} userConnections { totalCount edges { node { id } } } } } } }`,
    ({ tenantId }) => ({ f: { tenantId } }),
  ),
  byTenant(
    `query ($f: HealthEventFilter) { healthEvents(filter: $f) { edges { node { id tenant { externalId } grant { id } } } } }`,
    ({ tenantId }) => ({ f: { tenantId } }),
  ),
  byTenant(
    `query ($f: HealthEventFilter) { healthEvents(filter: $f) { edges { node { id tenant { externalId } } } } }`,
    ({ ids }) => ({ f: { grantId: ids['UserConnection'] } }),
  ),
  byTenant(
    `query ($f: GrantFilter) { providerApps { edges { node { id userConnections(filter: $f) { totalCount edges { node { ${grantFields} } } } } } } }`,
    ({ tenantId }) => ({ f: { tenantId } }),
  ),
  byTenant(
    `query ($i: CredentialInput!) { credential(input: $i) { __typename ... on Credential { version grant { ${grantFields} } } ${errors} } }`,
    ({ tenantId, userId }) => ({ i: { tenantId, userId, credentialFor: 'USER' } }),
  ),
  byTenant(
    `query ($i: CredentialInput!) { credential(input: $i) { __typename ... on Credential { version } ${errors} } }`,
    ({ tenantId }) => ({ i: { tenantId, credentialFor: 'INSTALLATION' } }),
  ),
  byTenant(
    `query ($f: WebhookEndpointFilter) { webhookEndpoints(filter: $f) { edges { node { id url } } } }`,
    ({ tenantId }) => ({ f: { tenantId } }),
  ),
  mutation('createWebhookEndpoint', 'webhookEndpoint { id }', ({ tenantId }) => ({
    tenantId,
    url: 'https://thief.example/',
  })),
  mutation('updateWebhookEndpoint', 'webhookEndpoint { id url }', ({ ids }) => ({
    id: ids['WebhookEndpoint'],
    url: 'https://thief.example/',
  })),
  mutation('rotateWebhookEndpointSecret', 'webhookEndpoint { id }', ({ ids }) => ({ id: ids['WebhookEndpoint'] })),
  mutation('deleteWebhookEndpoint', 'deletedId', ({ ids }) => ({ id: ids['WebhookEndpoint'] })),
  mutation('replayWebhookDeliveries', 'webhookReplay { count }', ({ ids }) => ({
    endpointId: ids['WebhookEndpoint'],
    deliveryIds: [ids['WebhookDelivery']],
  })),
  mutation('updateTenant', 'tenant { id name }', ({ tenantId }) => ({ tenantId, name: 'taken over' })),
  mutation('beginAuthorization', 'authorizationSession { status }', ({ tenantId, userId }) => ({
    tenantId,
    userId,
    appId: app.id,
  })),
  mutation('beginInstallation', 'authorizationSession { status }', ({ tenantId, userId }) => ({
    tenantId,
    userId,
    appId: adminApp.id,
  })),
  mutation('completeAuthorization', 'authorizationSession { id }', ({ connectCode, userId }) => ({
    connectCode,
    userId,
  })),
  mutation('importGrant', 'grant { id }', ({ tenantId, userId }) => ({
    tenantId,
    userId,
    appId: app.id,
    refreshToken: 'none',
  })),
  mutation('refreshGrant', `grant { ${grantFields} }`, ({ ids }) => ({ id: ids['UserConnection'] })),
  mutation('checkGrant', `grant { ${grantFields} }`, ({ ids }) => ({ id: ids['Installation'] })),
  mutation('revokeUserConnection', `userConnection { ${grantFields} }`, ({ ids }) => ({ id: ids['UserConnection'] })),
  mutation('revokeInstallation', `installation { ${grantFields} }`, ({ ids }) => ({ id: ids['Installation'] })),
  mutation('createServerKey', 'serverKey { id }', ({ tenantId }) => ({
    name: 'stolen',
    permissions: ['CONNECTIONS_READ'],
    tenantId,
  })),
  mutation('revokeServerKey', 'deletedId', ({ ids }) => ({ id: ids['ServerKey'] })),
  mutation('createFrontendSession', 'frontendSession { id }', ({ tenantId }) => ({
    tenantId,
    allow: ['READ_CONNECTIONS'],
  })),
  mutation('revokeFrontendSession', 'deletedId', ({ ids }) => ({ id: ids['FrontendSession'] })),
];

/** Operations without a condition, which must show a tenant's own things and no others. */
const LISTS = [
  '{ viewer { tenant { id externalId } } }',
  `{ userConnections(first: 100) { totalCount edges { node { ${grantFields} externalUserId } } } }`,
  `{ installations(first: 100) { totalCount edges { node { ${grantFields} } } } }`,
  '{ healthEvents(first: 100) { edges { node { id tenant { externalId } grant { id } } } } }',
  `{ providerApps { edges { node { id installations { totalCount } userConnections { totalCount edges { node { ${grantFields} } } } } } } }`,
  '{ tenants { totalCount edges { node { externalId } } } }',
  '{ webhookEndpoints { edges { node { id url tenant { externalId } deliveries { edges { node { id event { id } } } } } } } }',
  '{ serverKeys { edges { node { id tenant { externalId } } } } }',
];

/** Everything that the database holds of a tenant, as text that can be compared. */
async function stateOf({ tenantId }: World): Promise<string> {
  const rows = await server.db.query<{ row: string }>(sql`
    SELECT x.row FROM tenant t CROSS JOIN LATERAL (
      SELECT t::text AS row
      UNION ALL SELECT g::text FROM provider_grant g WHERE g.tenant_id = t.id
      UNION ALL SELECT c::text FROM credential c WHERE c.tenant_id = t.id
      UNION ALL SELECT s::text FROM authorization_session s WHERE s.tenant_id = t.id
      UNION ALL SELECT e.id::text FROM health_event e WHERE e.tenant_id = t.id
      UNION ALL SELECT r::text FROM provider_revocation r WHERE r.tenant_id = t.id
      UNION ALL SELECT (k.id, k.name, k.permissions)::text FROM server_key k WHERE k.tenant_id = t.id
      UNION ALL SELECT f::text FROM frontend_session f WHERE f.tenant_id = t.id
      UNION ALL SELECT (w.id, w.url, w.description, w.secret_version, w.disabled_at)::text
        FROM webhook_endpoint w WHERE w.tenant_id = t.id
      UNION ALL SELECT d::text FROM webhook_delivery d JOIN webhook_endpoint w ON w.id = d.endpoint_id
        WHERE w.tenant_id = t.id
    ) x WHERE t.external_id = ${tenantId} ORDER BY 1`);
  return rows.map(({ row }) => row).join('\n');
}

const textOf = ({ status, data, errors: told }: { status: number; data: unknown; errors: unknown }) =>
  JSON.stringify({ status, data, errors: told });

describe('callers of three tenants that steal ids from each other', () => {
  const random = createRandom();

  test(`get for them what they get for nothing, see nothing of each other, and change nothing (${random.seed})`, async () => {
    const before = await Promise.all(worlds.map(stateOf));
    const wrong: string[] = [];
    for (let step = 0; step < operationsToTry(); step += 1) {
      const thief = random.of(worlds);
      const victim = random.of(worlds.filter((world) => world !== thief));
      const caller = random.of(thief.callers);
      const foreign = worlds.filter((world) => world !== thief).flatMap(({ marks }) => marks);
      if (random.chance(0.2)) {
        const list = random.of(LISTS);
        const shown = textOf(await caller.graphql(list));
        if (foreign.some((mark) => shown.includes(mark))) wrong.push(`${list} shows ${shown}`);
        continue;
      }
      const operation = random.of(OPERATIONS);
      const stolen = { ...victim, ids: { ...victim.ids } };
      const [answer, nothing] = [
        await caller.graphql(operation.query, operation.variables(stolen)),
        await caller.graphql(operation.query, operation.variables(NOTHING)),
      ].map(textOf);
      if (answer !== nothing) wrong.push(`${operation.query} tells ${answer}, and of nothing ${nothing}`);
      if (foreign.some((mark) => answer?.includes(mark))) wrong.push(`${operation.query} shows ${answer}`);
    }
    expect([...new Set(wrong)]).toEqual([]);
    expect(await Promise.all(worlds.map(stateOf))).toEqual(before);
  }, 600_000);

  test('find their own things by the same operations', async () => {
    for (const world of worlds) {
      const [key] = world.callers;
      for (const operation of OPERATIONS.filter(({ query }) => query.startsWith('query'))) {
        const own = textOf(await key!.graphql(operation.query, operation.variables(world)));
        const nothing = textOf(await key!.graphql(operation.query, operation.variables(NOTHING)));
        expect([operation.query, own === nothing]).toEqual([operation.query, false]);
      }
      for (const list of LISTS.slice(0, 4)) {
        expect(textOf(await key!.graphql(list))).toContain(world.tenantId);
      }
    }
  }, 120_000);
});
