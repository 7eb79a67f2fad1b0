import { randomBytes } from 'node:crypto';
import pg from 'pg';
import sql from 'sql-template-tag';
import { afterAll, beforeAll, expect, inject, test } from 'vitest';
import { createCandidateReader } from '../../src/domain/credential-reader.js';
import type { Database } from '../../src/database/database.js';
import { openPostgres } from '../../src/database/postgres.js';
import { TENANT_ROLE } from '../../src/database/tenant-wall.js';
import { createLog } from '../../src/log.js';

const suffix = randomBytes(4).toString('hex');
const owner = `latchkey_owner_${suffix}`;
const database = `latchkey_owned_${suffix}`;
const admin = new pg.Client({ connectionString: inject('postgresUrl') });
const log = createLog('silent');

const urlFor = (user: string, name = database) => {
  const url = new URL(inject('postgresUrl'));
  url.username = user;
  url.pathname = `/${name}`;
  return url.href;
};

const open = (rowLevelSecurity?: boolean): Promise<Database> =>
  openPostgres({
    connectionString: urlFor(owner),
    log,
    ...(rowLevelSecurity === undefined ? {} : { rowLevelSecurity }),
  });

async function inDatabase(statement: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: urlFor('postgres') });
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end();
  }
}

beforeAll(async () => {
  await admin.connect();
  await admin.query(`CREATE ROLE ${owner} LOGIN`);
  await admin.query(`CREATE DATABASE ${database} OWNER ${owner}`);
});
afterAll(async () => {
  await admin.query(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`);
  await admin.query(`DROP ROLE IF EXISTS ${owner}`);
  await admin.end();
});

const setting = async (name: string) => (await admin.query(`SHOW ${name}`)).rows[0][name] as string;

/** The row of a new tenant with one grant and its credential, written as jobs write. */
async function addTenant(db: Database, externalId: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(sql`
    WITH t AS (INSERT INTO tenant (id, external_id) VALUES (gen_random_uuid(), ${externalId}) RETURNING id),
    k AS (INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
      SELECT gen_random_uuid(), id, id::text, 1, true, 'none', '\\x00' FROM t),
    a AS (INSERT INTO provider_app (id, key, provider, name, kind, environment, client_id, secret_version,
        sealed_client_secret, client_secret_set_at)
      VALUES (gen_random_uuid(), ${externalId}, 'ZOOM', 'app', 'USER_MANAGED', 'COMMERCIAL', ${externalId}, 1, '\\x00', now())
      RETURNING id),
    g AS (INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
        health_status, health_reason, health_since, authorized_at)
      SELECT gen_random_uuid(), 'USER_CONNECTION', t.id, a.id, 'u', 'u', 'acc', 'HEALTHY', 'CONNECTED', now(), now()
      FROM t, a RETURNING id, tenant_id, app_id),
    c AS (INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, key_version, api_url,
        issued_at, expires_at)
      SELECT id, tenant_id, app_id, 1, '\\x00', 1, 'https://api.zoom.us', now(), now() + interval '1 hour' FROM g)
    SELECT id FROM t`);
  return row!.id;
}

test('a server whose role may not make roles says what to run, and starts once it was run', async () => {
  await expect(open()).rejects.toThrow(`GRANT ${TENANT_ROLE} TO <the role of DATABASE_URL>`);
  const inherit = Number(await setting('server_version_num')) >= 160_000 ? 'WITH INHERIT FALSE, SET TRUE' : '';
  await admin.query(`GRANT ${TENANT_ROLE} TO ${owner} ${inherit}`);
  const db = await open();
  await db.close();
});

test('the owner of the tables, bound by forced row-level security as well, reads and writes for all; a tenant for itself', async () => {
  const db = await open();
  try {
    const [one, two] = [await addTenant(db, 'one'), await addTenant(db, 'two')];
    expect(await db.prisma.grant.count()).toBe(2);
    expect(await db.tenant(one).read(({ prisma }) => prisma.grant.findMany({ select: { tenantId: true } }))).toEqual([
      { tenantId: one },
    ]);
    const read = (tenantId: string) =>
      createCandidateReader({
        query: (statement) => db.tenant(tenantId).read(({ query }) => query(statement)),
      }).find({ tenantId: 'one', userId: 'u', kind: 'USER_CONNECTION', grantId: null });
    expect(await read(one)).toMatchObject([{ tenantId: one, version: 1 }]);
    expect(await read(two)).toEqual([]);
  } finally {
    await db.close();
  }
});

test('the credential read of a key of all tenants has the plan that it has without row-level security', async () => {
  const db = await open();
  const plan = async () => {
    const statements: { text: string; values: unknown[] }[] = [];
    const capture = async (statement: { text: string; values: unknown[] }) => (statements.push(statement), []);
    await createCandidateReader({ query: capture as never }).find({
      tenantId: 'one',
      userId: 'u',
      kind: 'USER_CONNECTION',
      grantId: null,
    });
    expect(statements).toHaveLength(1);
    const client = new pg.Client({ connectionString: urlFor(owner) });
    await client.connect();
    try {
      const { text, values } = statements[0]!;
      const { rows } = await client.query(`EXPLAIN (COSTS OFF) ${text}`, values);
      return rows.map((row) => row['QUERY PLAN'] as string);
    } finally {
      await client.end();
    }
  };
  try {
    const tenantId = await addTenant(db, 'planned');
    await db.query(sql`
      INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
        health_status, health_reason, health_since, authorized_at)
      SELECT gen_random_uuid(), 'USER_CONNECTION', g.tenant_id, g.app_id, n::text, n::text, 'acc', 'HEALTHY',
        'CONNECTED', now(), now()
      FROM provider_grant g, generate_series(1, 2000) n WHERE g.tenant_id = ${tenantId}::uuid`);
    await db.query(sql`
      INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, key_version, api_url,
        issued_at, expires_at)
      SELECT id, tenant_id, app_id, 1, '\\x00', 1, 'https://api.zoom.us', now(), now() FROM provider_grant
      WHERE subject <> 'u'`);
    await db.query(sql`
      INSERT INTO tenant (id, external_id) SELECT gen_random_uuid(), 'other_' || n FROM generate_series(1, 500) n`);
    await inDatabase('ANALYZE');
    const walled = await plan();
    for (const name of ['tenant', 'provider_grant', 'credential']) {
      await inDatabase(`ALTER TABLE ${name} DISABLE ROW LEVEL SECURITY`);
    }
    expect(walled).toEqual(await plan());
    const text = walled.join('\n');
    expect(text).toContain('Index Scan using credential_pkey');
    expect(text).toMatch(/Index Cond: \(\(tenant_id = tenant.id\) AND \(kind = .* AND \(external_user_id/);
    expect(text).not.toContain('Seq Scan');
  } finally {
    await db.close();
  }
});

test('a wall that was taken down, and one that a restored database lacks, stands again after the next start', async () => {
  await inDatabase(`ALTER TABLE credential NO FORCE ROW LEVEL SECURITY; DROP POLICY system ON health_event;
    CREATE TABLE added (id int, tenant_id uuid); ALTER TABLE added OWNER TO ${owner}`);
  await (await open()).close();
  const rows = await inDatabase(`
    SELECT relname, relrowsecurity AND relforcerowsecurity AS forced,
      (SELECT count(*)::int FROM pg_policy WHERE polrelid = c.oid) AS policies
    FROM pg_class c WHERE relname IN ('credential', 'health_event', 'added') ORDER BY relname`);
  expect(rows).toEqual(
    ['added', 'credential', 'health_event'].map((relname) => ({ relname, forced: true, policies: 2 })),
  );
});

test('servers that start at once on several databases of one server make one role', async () => {
  const names = [0, 1, 2].map((index) => `${database}_${index}`);
  try {
    for (const name of names) await admin.query(`CREATE DATABASE ${name} TEMPLATE ${inject('templateDatabase')}`);
    const opened = await Promise.all(
      [...names, ...names].map((name) => openPostgres({ connectionString: urlFor('postgres', name), log })),
    );
    await Promise.all(opened.map((db) => db.close()));
    const { rows } = await admin.query(`SELECT count(*)::int FROM pg_roles WHERE rolname = '${TENANT_ROLE}'`);
    expect(rows).toEqual([{ count: 1 }]);
  } finally {
    for (const name of names) await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  }
});

test('without row-level security, as the setting says, a tenant reads by the conditions of its statements alone', async () => {
  const db = await open(false);
  try {
    const [tenant] = await db.query<{ id: string }>(sql`SELECT id FROM tenant LIMIT 1`);
    expect(await db.tenant(tenant!.id).read(({ prisma }) => prisma.grant.count())).toBeGreaterThan(1);
  } finally {
    await db.close();
  }
});
