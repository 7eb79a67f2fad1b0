import { randomBytes } from 'node:crypto';
import { buildSchema } from 'graphql';
import sql, { raw } from 'sql-template-tag';
import { expect, test } from 'vitest';
import { fieldsWithoutAudit } from '../src/graphql/audited.js';
import { auditEvents, MUTATIONS, mutate, newestEvent, refuseEvents } from './support/audit.js';
import { connectUser, createZoomUser } from './support/connections.js';
import { obtainElsewhere } from './support/outside-tokens.js';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import {
  begin,
  comeBack,
  connect,
  consent,
  createTenant,
  PRODUCT,
  registerApp,
  registerProviderApp,
  sandboxUser,
} from './support/story.js';
import { createEndpoint } from './support/webhook-endpoint.js';

const server = await startTestServer();

interface Step {
  action: string;
  /** Makes what the mutation is about. Called for each time that it is run. */
  input(): Promise<Record<string, unknown>>;
}

const unique = (prefix: string) => `${prefix}_${randomBytes(6).toString('hex')}`;
const userApp = await registerApp(server, 'USER_MANAGED');
const adminApp = await registerApp(server, 'ADMIN_MANAGED');
const account = server.sandbox.control.accounts()[0];

const appInput = () => ({
  name: 'another',
  kind: 'USER_MANAGED',
  clientId: unique('client'),
  clientSecret: unique('secret'),
  scopes: [],
});

const connected = async () => connectUser(server, { app: userApp });
const shared = await connected();
const tenantId = await createTenant(server);
const inTenant = async (more: Record<string, unknown> = {}) => ({ tenantId, ...more });

async function registered() {
  const { scopes, ...app } = appInput();
  return { id: (await registerProviderApp(server, { ...app, scopes })).id };
}

async function installation() {
  const input = { tenantId, userId: 'admin', appId: adminApp.id };
  const session = await connect(server, 'beginInstallation', input, sandboxUser(server, 'Admin').id);
  return { id: session.grant.id as string };
}

async function connectCode() {
  const input = { tenantId, userId: 'user_2', appId: userApp.id };
  const trip = await begin(server, 'beginAuthorization', input);
  return { ...(await comeBack(trip, await consent(trip, createZoomUser(server)))), userId: 'user_2' };
}

const HOOK = 'https://hooks.example/latchkey';
/** Of a tenant of its own: no tenant has many. */
const endpoint = async (): Promise<string> =>
  (await createEndpoint(server, { url: HOOK, tenantId: await createTenant(server) })).webhookEndpoint.id;

/** One way to run each mutation with success. */
const STEPS: Record<string, Step> = {
  createTenant: { action: 'tenant.created', input: async () => ({ externalId: unique('org') }) },
  updateTenant: { action: 'tenant.updated', input: () => inTenant({ name: 'renamed' }) },
  deleteTenant: {
    action: 'tenant.deletion_requested',
    input: async () => {
      const doomed = await createTenant(server);
      return { tenantId: doomed, confirm: doomed };
    },
  },
  rotateTenantKey: { action: 'tenant_key.rotated', input: () => inTenant() },
  registerProviderApp: { action: 'provider_app.registered', input: async () => appInput() },
  updateProviderApp: {
    action: 'provider_app.updated',
    input: async () => ({ ...(await registered()), name: 'renamed' }),
  },
  removeProviderApp: { action: 'provider_app.removed', input: async () => ({ id: (await registered()).id }) },
  beginInstallation: { action: 'authorization.begun', input: () => inTenant({ userId: 'u', appId: adminApp.id }) },
  beginAuthorization: { action: 'authorization.begun', input: () => inTenant({ userId: 'u', appId: userApp.id }) },
  completeAuthorization: {
    action: 'authorization.code_redeemed',
    input: async () => {
      const { connectCode: code, userId } = await connectCode();
      return { connectCode: code, userId };
    },
  },
  connectServerToServer: {
    action: 'grant.connected',
    input: async () => {
      const app = await registerApp(server, 'SERVER_TO_SERVER');
      return inTenant({ appId: app.id, providerAccountId: account?.id });
    },
  },
  importGrant: {
    action: 'grant.imported',
    input: async () => {
      const { accessToken, refreshToken } = await obtainElsewhere(server, userApp, createZoomUser(server));
      return inTenant({ appId: userApp.id, userId: 'user_1', accessToken, refreshToken });
    },
  },
  revokeInstallation: { action: 'grant.revoked', input: installation },
  revokeUserConnection: { action: 'grant.revoked', input: async () => ({ id: (await connected()).id }) },
  revokeGrants: { action: 'revocation.requested', input: async () => ({ tenantId: (await connected()).tenantId }) },
  createSignedUrl: {
    action: 'signed_url.created',
    input: async () => ({ tenantId: shared.tenantId, grantId: shared.id, kind: 'ACCESS', ttlSeconds: 600 }),
  },
  revokeSignedUrls: { action: 'signed_urls.revoked', input: () => inTenant() },
  refreshGrant: { action: 'grant.refresh_requested', input: async () => ({ id: shared.id }) },
  checkGrant: { action: 'grant.check_requested', input: async () => ({ id: shared.id }) },
  createServerKey: { action: 'key.created', input: async () => ({ name: 'k', permissions: ['AUDIT_READ'] }) },
  revokeServerKey: {
    action: 'key.revoked',
    input: async () => ({ id: (await createServerKey(server, { permissions: ['AUDIT_READ'] })).id }),
  },
  createFrontendSession: {
    action: 'frontend_session.created',
    input: () => inTenant({ allow: ['READ_CONNECTIONS'], ttlSeconds: 60 }),
  },
  createWebhookEndpoint: { action: 'webhook_endpoint.created', input: () => inTenant({ url: HOOK }) },
  updateWebhookEndpoint: {
    action: 'webhook_endpoint.updated',
    input: async () => ({ id: await endpoint(), description: 'renamed' }),
  },
  rotateWebhookEndpointSecret: {
    action: 'webhook_endpoint.secret_rotated',
    input: async () => ({ id: await endpoint() }),
  },
  deleteWebhookEndpoint: { action: 'webhook_endpoint.deleted', input: async () => ({ id: await endpoint() }) },
  replayWebhookDeliveries: {
    action: 'webhook_deliveries.replayed',
    input: async () => ({ endpointId: await endpoint(), since: new Date(0).toISOString() }),
  },
  revokeFrontendSession: {
    action: 'frontend_session.revoked',
    input: async () => {
      const session = await createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT);
      return { id: session.id };
    },
  },
};

/** What mutations change, as text. Neither the trail nor what jobs do by themselves. */
async function state(): Promise<string> {
  const tables: Record<string, string> = {
    tenant: 'id, external_id, name, allowed_origins, closed_at',
    tenant_key: 'id, active',
    provider_app: 'id, name, secret_version, required_scopes',
    provider_grant: 'id, health_status, health_reason, former_version',
    credential: 'grant_id, version',
    authorization_session: 'id, status, connect_code_hash, grant_id',
    server_key: 'id',
    frontend_session: 'id',
    url_signing_key: 'tenant_id, version',
    webhook_endpoint: 'id, description, secret_version',
    webhook_delivery: 'id',
    revocation: 'id, total',
    revocation_receipt: 'id, ended_at',
    tenant_deletion: 'id',
  };
  const texts: string[] = [];
  for (const [table, columns] of Object.entries(tables)) {
    const rows = await server.db.query<{ row: string }>(sql`
      SELECT (${raw(columns)})::text AS row FROM ${raw(table)} ORDER BY 1`);
    texts.push(table, ...rows.map(({ row }) => row));
  }
  return texts.join('\n');
}

const success = (name: string) => `${name.charAt(0).toUpperCase()}${name.slice(1)}Success`;

test('there is a step for every mutation of the schema', () => {
  expect(Object.keys(STEPS).toSorted()).toEqual(MUTATIONS.toSorted());
});

test('a mutation or a query for tokens that nobody has thought about keeps the server from starting', () => {
  const grown = buildSchema(`
    scalar Secret
    type Token { value: Secret }
    type Query { viewer: Int leak: Token }
    type Mutation { forgotten: Int createTenant: Int }`);
  expect(fieldsWithoutAudit(grown)).toEqual(['Mutation.forgotten', 'Query.leak']);
});

/** Tokens that the provider has handed out cannot be had again: storing them is tried until the trail takes them. */
const PATIENT = new Set(['connectServerToServer', 'importGrant']);

test.each(MUTATIONS)('%s does nothing without its event, and leaves it with what it does', async (name) => {
  const step = STEPS[name];
  if (step === undefined) throw new Error('no step');
  const input = await step.input();
  const [before, last] = [await state(), await newestEvent(server)];

  const allow = await refuseEvents(server);
  let answer = mutate(server, name, input);
  if (PATIENT.has(name)) await new Promise((resolve) => setTimeout(resolve, 150));
  else expect((await answer).errors?.[0]?.extensions.code).toBe('AUDIT_UNAVAILABLE');
  expect(await state()).toBe(before);
  await allow();

  if (!PATIENT.has(name)) answer = mutate(server, name, input);
  const { data, errors } = await answer;
  expect([errors, data?.[name].__typename]).toEqual([undefined, success(name)]);
  const events = await auditEvents(server, { action: step.action }, last?.cursor);
  // An installation is revoked together with the users of its account.
  if (name !== 'revokeInstallation') expect(events).toHaveLength(1);
  const [event] = events;
  expect(event).toMatchObject({ outcome: 'DONE', principalKind: 'ADMIN_KEY', principalId: 'admin' });
  // What is told about persons is erased with the tenant.
  if (name !== 'deleteTenant') expect(event?.clientAddress).toMatch(/127\.0\.0\.1/);
  const tenantId = input['tenantId'] ?? input['externalId'];
  if (tenantId !== undefined && name !== 'deleteTenant') expect(event?.tenant).toEqual({ externalId: tenantId });
  expect(event?.grant ?? event?.subject ?? event?.tenant ?? (name === 'deleteTenant' || null)).not.toBeNull();
});

test('what is refused leaves an event that says so, in the tenant that the key is restricted to', async () => {
  const key = await createServerKey(server, { permissions: ['TENANTS_WRITE'], tenantId });
  await mutate(server, 'updateTenant', { tenantId: shared.tenantId, name: 'taken over' }, key.headers);
  expect(await newestEvent(server, { action: 'tenant.updated' })).toMatchObject({
    outcome: 'REFUSED',
    reason: 'NotFoundError',
    principalKind: 'SERVER_KEY',
    principalId: key.id,
    tenant: { externalId: tenantId },
  });
});
