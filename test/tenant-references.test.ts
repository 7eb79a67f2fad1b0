import sql, { raw } from 'sql-template-tag';
import { beforeAll, describe, expect, test } from 'vitest';
import type { SqlStatement, TenantDatabase } from '../src/database/database.js';
import { bindRowsToTenants } from '../src/database/tenant-rows.js';
import { connectUser } from './support/connections.js';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, PRODUCT, registerApp, type RegisteredApp } from './support/story.js';
import { connectReceiver, rowOf } from './support/webhook-endpoint.js';

const server = await startTestServer({ LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '127.0.0.1/32' });
const { db } = server;

/** What one tenant has, by rows. */
interface Side {
  tenantId: string;
  grantId: string;
  trip: string;
  serverKey: string;
  frontendSession: string;
  endpoint: string;
  /** From before the endpoint, which is not told of it therefore. */
  event: string;
  view: TenantDatabase;
}

let mine: Side;
let theirs: Side;

async function createSide(app: RegisteredApp): Promise<Side> {
  const externalId = await createTenant(server);
  const { rowId: grantId } = await connectUser(server, { app, tenantId: externalId, userId: `user_of_${externalId}` });
  const [tenant] = await db.query<{ id: string; event: string; trip: string }>(sql`
    SELECT t.id, e.id AS event, s.id AS trip FROM tenant t JOIN health_event e ON e.tenant_id = t.id
    JOIN authorization_session s ON s.tenant_id = t.id WHERE t.external_id = ${externalId}`);
  const { id: tenantId, event, trip } = tenant!;
  const key = await createServerKey(server, {
    permissions: ['SESSIONS_CREATE', 'TENANTS_WRITE', 'CONNECTIONS_READ'],
    tenantId: externalId,
  });
  const session = await createFrontendSession(
    { ...server, data: key.data },
    { tenantId: externalId, allow: ['READ_CONNECTIONS'] },
    PRODUCT,
  );
  const { rowId: endpoint } = await connectReceiver(server, { tenantId: externalId });
  const view = db.tenant(tenantId);
  return {
    tenantId,
    grantId,
    trip,
    serverKey: rowOf(key.id),
    frontendSession: rowOf(session.id),
    endpoint,
    event,
    view,
  };
}

beforeAll(async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  [mine, theirs] = [await createSide(app), await createSide(app)];
});

/** @returns the SQLSTATE it is refused with; null where it is not. Nothing of it stays. */
async function refusalOf(statement: SqlStatement, at: Pick<TenantDatabase, 'transaction'> = db) {
  const undone = new Error('undone');
  const error = await at
    .transaction(async (tx) => {
      await tx.query(statement);
      throw undone;
    })
    .catch((reason: unknown) => reason);
  return error === undone ? null : (error as { code?: unknown }).code;
}

const FOREIGN_KEY_VIOLATION = '23503';
const RESTRICT_VIOLATION = '23001';

/** Makes or changes a row of `mine` that names something of `other`. */
type Reference = (other: Side) => SqlStatement;

const REFERENCES: [name: string, reference: Reference][] = [
  [
    'a credential and its grant',
    ({ tenantId }) => sql`UPDATE credential SET tenant_id = ${tenantId}::uuid WHERE grant_id = ${mine.grantId}::uuid`,
  ],
  [
    'an authorization session and its grant',
    ({ grantId }) => sql`UPDATE authorization_session SET grant_id = ${grantId}::uuid WHERE id = ${mine.trip}::uuid`,
  ],
  [
    'a health event and its grant',
    ({ grantId }) => sql`UPDATE health_event SET grant_id = ${grantId}::uuid WHERE id = ${mine.event}::uuid`,
  ],
  [
    'a token to be revoked and its grant',
    ({ grantId }) => sql`
      INSERT INTO provider_revocation (id, grant_id, tenant_id, app_id, sealed_token, key_version, next_attempt_at)
      SELECT gen_random_uuid(), ${grantId}::uuid, tenant_id, app_id, '\\x00', key_version, now()
      FROM credential WHERE grant_id = ${mine.grantId}::uuid`,
  ],
  [
    'a meeting and the grant that knows it',
    ({ grantId }) => sql`
      INSERT INTO hosted_meeting (grant_id, meeting_id, tenant_id, host_user_id, is_personal, is_listed, is_gone, as_of)
      VALUES (${grantId}::uuid, '1', ${mine.tenantId}::uuid, 'host', false, false, false, now())`,
  ],
  [
    'a list of meetings and the grant that it is read by',
    ({ grantId }) => sql`
      INSERT INTO meeting_listing (grant_id, host_user_id, tenant_id, environment, provider_account_id, due_at)
      VALUES (${grantId}::uuid, 'another', ${mine.tenantId}::uuid, 'COMMERCIAL', 'account', now())`,
  ],
  [
    'a frontend session and the server key that made it',
    ({ serverKey }) => sql`
      UPDATE frontend_session SET server_key_id = ${serverKey}::uuid WHERE id = ${mine.frontendSession}::uuid`,
  ],
  [
    'an authorization session and the frontend session that began it',
    ({ frontendSession }) => sql`
      UPDATE authorization_session SET frontend_session_id = ${frontendSession}::uuid WHERE id = ${mine.trip}::uuid`,
  ],
  [
    'a delivery and the event that it tells',
    ({ event }) => sql`
      INSERT INTO webhook_delivery (endpoint_id, event_id) VALUES (${mine.endpoint}::uuid, ${event}::uuid)`,
  ],
];

describe('the database', () => {
  test.each(REFERENCES)('refuses another tenant’s: %s', async (_name, reference) => {
    expect(await refusalOf(reference(theirs))).toBe(FOREIGN_KEY_VIOLATION);
    expect(await refusalOf(reference(mine))).toBeNull();
  });

  test('refuses to a tenant’s own role a trip that another tenant’s frontend session, which it cannot see, began', async () => {
    const begin: Reference = ({ frontendSession }) => sql`
      INSERT INTO authorization_session (id, tenant_id, app_id, grant_kind, external_user_id, frontend_session_id,
        allow_identity_change, redirect_uri, status, expires_at)
      SELECT gen_random_uuid(), tenant_id, app_id, grant_kind, 'user', ${frontendSession}::uuid, false, '', 'PENDING',
        now() FROM authorization_session WHERE id = ${mine.trip}::uuid`;
    expect(await refusalOf(begin(theirs), mine.view)).toBe(FOREIGN_KEY_VIOLATION);
    expect(await refusalOf(begin(mine), mine.view)).toBeNull();
  });

  test('refuses to move a row that others name to another tenant, or to none', async () => {
    for (const table of ['provider_grant', 'server_key', 'frontend_session', 'health_event', 'webhook_endpoint']) {
      const move = (to: string | null) =>
        sql`UPDATE ${raw(table)} SET tenant_id = ${to}::uuid WHERE tenant_id = ${mine.tenantId}::uuid`;
      expect([table, await refusalOf(move(theirs.tenantId))]).toEqual([table, RESTRICT_VIOLATION]);
      expect([table, await refusalOf(move(null))]).toEqual([table, RESTRICT_VIOLATION]);
    }
  });

  test('takes what belongs to all tenants together with what belongs to one', async () => {
    const [everybodys] = await db.query<{ id: string }>(sql`
      INSERT INTO server_key (id, name, key_hash) VALUES (gen_random_uuid(), 'all', '\\x00') RETURNING id`);
    const made = sql`
      UPDATE frontend_session SET server_key_id = ${everybodys!.id}::uuid WHERE id = ${mine.frontendSession}::uuid`;
    expect(await refusalOf(made)).toBeNull();
    const { rowId } = await connectReceiver(server);
    const told = sql`INSERT INTO webhook_delivery (endpoint_id, event_id) VALUES (${rowId}::uuid, ${theirs.event}::uuid)`;
    expect(await refusalOf(told)).toBeNull();
  });

  test('has a rule, or the tenant in the foreign key, for each reference between rows of tenants', async () => {
    const found = await db.query<{ name: string; isBound: boolean }>(sql`
      WITH owned AS (
        SELECT attrelid AS oid, attnum FROM pg_attribute WHERE attname = 'tenant_id' AND NOT attisdropped
      ), reference AS (
        SELECT k.*, count(*) OVER (PARTITION BY k.conrelid) AS together,
          (SELECT attnum FROM owned WHERE owned.oid = k.conrelid) AS tenant
        FROM pg_constraint k JOIN owned ON owned.oid = k.confrelid WHERE k.contype = 'f'
      )
      SELECT conname::text AS name, coalesce(tenant = ANY(conkey), false) OR EXISTS (
          SELECT 1 FROM pg_trigger t WHERE t.tgrelid = conrelid AND t.tgname LIKE 'tenant\\_of\\_%'
            AND t.tgenabled = 'O' AND conkey[1] = ANY(t.tgattr::int2[])) AS "isBound"
      -- Rows of no tenant that name one row of a tenant's bring nothing of two tenants together.
      FROM reference WHERE tenant IS NOT NULL OR together > 1 ORDER BY conname`);
    expect(found.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['credential_grant_id_fkey', 'credential_tenant_id_key_version_fkey']),
    );
    expect(found.map(({ name }) => name)).toEqual(
      expect.arrayContaining(['frontend_session_server_key_id_fkey', 'webhook_delivery_event_id_fkey']),
    );
    for (const { name, isBound } of found) expect([name, isBound]).toEqual([name, true]);
  });

  test('gets the rules that it lacks at a start', async () => {
    const [, delivery] = REFERENCES.at(-1)!;
    await db.query(sql`DROP TRIGGER tenant_of_event ON webhook_delivery`);
    expect(await refusalOf(delivery(theirs))).toBeNull();
    await bindRowsToTenants((text) => {
      if (/^\s*SELECT/.test(text)) return db.query(sql`${raw(text)}`);
      return db.query(sql`${raw(`DO $start$ BEGIN EXECUTE $rules$${text}$rules$; END $start$`)}`);
    });
    expect(await refusalOf(delivery(theirs))).toBe(FOREIGN_KEY_VIOLATION);
  });
});
