import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import sql, { raw } from 'sql-template-tag';
import { afterAll } from 'vitest';
import type { Database } from '../../../src/database/database.js';
import { sealAppSecrets } from '../../../src/domain/app-secret.js';
import { Secret } from '../../../src/secret.js';
import { createLocalRootKeys } from '../../../src/vault/root-key.js';
import { createVault, type Vault } from '../../../src/vault/vault.js';
import { openTestDatabase } from '../database.js';
import { createDisk, type Disk } from './disk.js';

const START = Date.parse('2027-01-01T00:00:00.000Z');
/** The vault's caches outlive a run: a key that is looked up again would be a step in one run and none in the next. */
const FOR_EVER_MS = 1_000_000_000;

/** Time of the whole model: of the database, the processes and the provider. It stands still until it is moved. */
export interface ModelTime {
  nowMs(): number;
  advance(seconds: number): Promise<void>;
}

/** What all runs share: one database with a tenant and an app, and no grant. */
export interface ModelWorld {
  db: Database;
  time: ModelTime;
  tenant: { id: string; externalId: string };
  app: { id: string; clientId: string };
  /** One for each process of the model: two share nothing, and what is on a disk outlives its process. */
  machines: readonly { vault: Vault; disk: Disk }[];
  /** Forgets what the last run left. */
  reset(): Promise<void>;
}

/**
 * The embedded database whose `now()` and `clock_timestamp()` are the model's: functions of these names are found before
 * the built-in ones, so that the statements run as they are and the time in them is exact.
 */
async function createTime(db: Database): Promise<ModelTime & { reset(): Promise<void> }> {
  let nowMs = START;
  const set = async (ms: number) => {
    nowMs = ms;
    await db.query(sql`SELECT set_config('model.now', ${new Date(ms).toISOString()}, false)`);
  };
  await set(START);
  await db.query(raw('CREATE SCHEMA model') as never);
  await db.query(
    raw(`CREATE FUNCTION model.now() RETURNS timestamptz LANGUAGE sql STABLE
      AS $$ SELECT pg_catalog.current_setting('model.now')::timestamptz $$`) as never,
  );
  await db.query(
    raw(`CREATE FUNCTION model.clock_timestamp() RETURNS timestamptz LANGUAGE sql STABLE
      AS $$ SELECT model.now() $$`) as never,
  );
  await db.query(raw('SET search_path TO model, pg_catalog, public') as never);
  // How long a lease has been held is measured by it; a process that was stopped sees that time has passed.
  const own = performance.now;
  performance.now = () => nowMs;
  afterAll(() => {
    performance.now = own;
  });
  return { nowMs: () => nowMs, advance: (seconds) => set(nowMs + seconds * 1_000), reset: () => set(START) };
}

/** Opens it, with as many machines as there may be processes at once. Closed after the test file. */
export async function openModelWorld(processes: number): Promise<ModelWorld> {
  const db = await openTestDatabase();
  const time = await createTime(db);
  const rootKeys = createLocalRootKeys([createSecretKey(randomBytes(32))]);
  const open = () => createVault({ rootKeys, keyTtlMs: FOR_EVER_MS, activeTtlMs: FOR_EVER_MS });
  const machines = await Promise.all(
    Array.from({ length: processes }, async () => ({ vault: open(), disk: await createDisk() })),
  );
  const tenant = { id: randomUUID(), externalId: 'org_model' };
  const app = { id: randomUUID(), clientId: 'client_model' };

  const first = machines[0]?.vault;
  if (first === undefined) throw new RangeError('There is at least one process.');
  await first.createTenantKey(db, null);
  await db.query(sql`
    INSERT INTO tenant (id, external_id, allowed_origins) VALUES (${tenant.id}::uuid, ${tenant.externalId}, '{}')`);
  await first.createTenantKey(db, tenant.id);
  const none = { formerClientSecret: null, webhookSecret: null, formerWebhookSecret: null };
  const clientSecret = new Secret('client-secret');
  const sealed = await sealAppSecrets(first, db, { id: app.id, secretVersion: 1 }, { clientSecret, ...none });
  await db.query(sql`
    INSERT INTO provider_app (id, key, provider, name, kind, environment, client_id, secret_version,
      sealed_client_secret, client_secret_set_at, required_scopes, optional_scopes)
    VALUES (${app.id}::uuid, 'model', 'ZOOM', 'Model', 'USER_MANAGED', 'COMMERCIAL', ${app.clientId}, 1,
      ${sealed.clientSecret}, now(), '{}', '{}')`);
  await db.query(sql`INSERT INTO refresh_pace (app_id, paced_until) VALUES (${app.id}::uuid, now())`);
  for (const { vault } of machines) await warm(vault, db, tenant.id);

  return {
    db,
    time,
    machines,
    tenant,
    app,
    reset: async () => {
      await time.reset();
      for (const { disk } of machines) await disk.clear();
      await db.query(sql`
        WITH grants AS (DELETE FROM provider_grant), revocations AS (DELETE FROM provider_revocation),
          events AS (DELETE FROM health_event), counter AS (UPDATE tenant SET event_sequence = 0),
          pace AS (UPDATE refresh_pace SET paced_until = '2026-01-01')
        UPDATE provider_app SET incident_reason = NULL, incident_since = NULL, incident_retry_at = NULL`);
    },
  };
}

/** Has the vault look up every key it will need. */
async function warm(vault: Vault, db: Database, tenantId: string): Promise<void> {
  for (const owner of [tenantId, null]) {
    const place = { tenantId: owner, table: 'model', column: 'warm', recordId: randomUUID(), version: 1 };
    const { sealed } = await vault.seal(db, place, new Secret('warm'));
    await vault.open(db, place, sealed);
  }
}
