import sql, { raw } from 'sql-template-tag';
import { beforeAll, describe, expect, test } from 'vitest';
import { busy } from '../src/database/connection-shares.js';
import type { TenantDatabase } from '../src/database/database.js';
import { createTenantReads } from '../src/database/tenant-reads.js';
import { GLOBAL_TABLES, TENANT_ROLE } from '../src/database/tenant-wall.js';
import { connectUser } from './support/connections.js';
import { createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, registerApp } from './support/story.js';

const server = await startTestServer();
const { db } = server;

const FORBIDDEN = '42501';
const codeOf = (promise: Promise<unknown>) =>
  promise.then(
    () => 'nothing was refused',
    (error: { code?: unknown }) => error.code,
  );

interface Side {
  rowId: string;
  grantId: string;
  view: TenantDatabase;
}

let mine: Side;
let theirs: Side;

beforeAll(async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const side = async (): Promise<Side> => {
    const tenantId = await createTenant(server);
    const { rowId: grantId } = await connectUser(server, { app, tenantId, userId: `user_of_${tenantId}` });
    await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
    const [tenant] = await db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${tenantId}`);
    return { rowId: tenant!.id, grantId, view: db.tenant(tenant!.id) };
  };
  [mine, theirs] = [await side(), await side()];
});

interface Table {
  name: string;
  hasTenant: boolean;
  isForced: boolean;
  policies: string[];
}

const tables = () =>
  db.query<Table>(sql`
    SELECT c.relname::text AS name, c.relrowsecurity AND c.relforcerowsecurity AS "isForced",
      EXISTS (SELECT 1 FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant_id') AS "hasTenant",
      ARRAY(SELECT polname::text FROM pg_policy WHERE polrelid = c.oid ORDER BY polname) AS policies
    FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')`);

describe('the database', () => {
  test('has forced row-level security and a policy on every table, or lists it as no tenant’s and lets none at it', async () => {
    const found = await tables();
    expect(found.length).toBeGreaterThan(15);
    const walled = found.filter(({ isForced }) => isForced);
    for (const { name, policies } of walled) expect([name, policies]).toEqual([name, ['system', 'tenant']]);
    expect(walled.map(({ name }) => name)).toEqual(expect.arrayContaining(['tenant', 'provider_grant', 'credential']));
    const open = found.filter(({ isForced }) => !isForced);
    expect(open.map(({ name }) => name).toSorted()).toEqual(Object.keys(GLOBAL_TABLES).toSorted());
    for (const { name, hasTenant } of open) {
      expect([name, hasTenant]).toEqual([name, false]);
      expect(await codeOf(mine.view.query(sql`SELECT 1 FROM ${raw(`"${name}"`)}`))).toBe(FORBIDDEN);
    }
  });

  test('has a role for tenants that owns nothing, cannot log in, bypasses nothing and makes nothing', async () => {
    const [role] = await db.query(sql`
      SELECT rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication AS "isStrong",
        EXISTS (SELECT 1 FROM pg_class WHERE relowner = r.oid) AS "isOwner",
        EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid) AS "isMember"
      FROM pg_roles r WHERE rolname = ${TENANT_ROLE}`);
    expect(role).toEqual({ isStrong: false, isOwner: false, isMember: false });
    expect(await codeOf(mine.view.query(sql`CREATE TABLE public.made (id int)`))).toBe(FORBIDDEN);
    expect(await codeOf(mine.view.query(sql`DROP POLICY tenant ON credential`))).toBe(FORBIDDEN);
    expect(await codeOf(mine.view.query(sql`ALTER TABLE credential DISABLE ROW LEVEL SECURITY`))).toBe(FORBIDDEN);
    const [now] = await mine.view.query<{ role: string }>(sql`SELECT current_user::text AS role`);
    expect(now?.role).toBe(TENANT_ROLE);
  });

  test('shows a tenant its own rows when a statement asks for all', async () => {
    let shown = 0;
    for (const { name, hasTenant, isForced } of await tables()) {
      if (!hasTenant || !isForced) continue;
      const rows = await mine.view
        .query<{ tenantId: string }>(sql`SELECT tenant_id AS "tenantId" FROM ${raw(name)}`)
        .catch((error: { code?: unknown }) => {
          expect([name, error.code]).toEqual([name, FORBIDDEN]);
          return [];
        });
      shown += rows.length;
      expect([name, rows.filter(({ tenantId }) => tenantId !== mine.rowId)]).toEqual([name, []]);
    }
    expect(shown).toBeGreaterThan(4);
  });

  test('shows and changes nothing of another tenant’s without the conditions that are put to statements', async () => {
    const { view } = mine;
    const bare = await view.read(async ({ prisma }) => ({
      grant: await prisma.grant.findFirst({ where: { id: theirs.grantId } }),
      tenant: await prisma.tenant.findFirst({ where: { id: theirs.rowId } }),
      credential: await prisma.credential.findFirst({ where: { grantId: theirs.grantId } }),
      grants: await prisma.grant.count(),
      nested: await prisma.providerApp.findFirst({ select: { id: true, grants: { select: { tenantId: true } } } }),
      own: await prisma.grant.findFirst({ where: { id: mine.grantId }, select: { id: true } }),
    }));
    expect(bare).toMatchObject({ grant: null, tenant: null, credential: null, grants: 1, own: { id: mine.grantId } });
    expect(bare.nested?.grants).toEqual([{ tenantId: mine.rowId }]);
    const renamed = await view.query(
      sql`UPDATE tenant SET name = 'taken over' WHERE id = ${theirs.rowId}::uuid RETURNING id`,
    );
    expect(renamed).toEqual([]);
    expect(await view.query(sql`DELETE FROM server_key WHERE tenant_id = ${theirs.rowId}::uuid RETURNING id`)).toEqual(
      [],
    );
    const insert = sql`
      INSERT INTO server_key (id, name, key_hash, tenant_id)
      VALUES (gen_random_uuid(), 'stolen', '\\x00', ${theirs.rowId}::uuid)`;
    expect(await codeOf(view.query(insert))).toBe(FORBIDDEN);
    const insertForAll = sql`INSERT INTO server_key (id, name, key_hash) VALUES (gen_random_uuid(), 'all', '\\x00')`;
    expect(await codeOf(view.query(insertForAll))).toBe(FORBIDDEN);
    expect(await codeOf(view.query(sql`SELECT sealed_client_secret FROM provider_app`))).toBe(FORBIDDEN);
    const write = view.read(({ query }) => query(sql`UPDATE tenant SET name = 'read only'`));
    expect(await codeOf(write)).toBe('25006');
  });

  test('keeps tenants apart that read at the same time, and is its own again afterwards', async () => {
    const sides = [mine, theirs];
    const seen = await Promise.all(
      Array.from({ length: 200 }, (_, index) => {
        const { view, rowId } = sides[index % 2]!;
        return view.read(async ({ prisma, query }) => {
          if (index % 4 < 2) return [(await prisma.grant.findMany({ select: { tenantId: true } }))[0]?.tenantId, rowId];
          return [(await query<{ id: string }>(sql`SELECT id FROM tenant`))[0]?.id, rowId];
        });
      }),
    );
    expect(seen.filter(([tenantId, rowId]) => tenantId !== rowId)).toEqual([]);
    const after = await Promise.all(
      Array.from({ length: 20 }, () =>
        db.query<{ role: string; tenant: string | null; count: number }>(sql`
          SELECT current_user::text AS role, nullif(current_setting('latchkey.tenant_id', true), '') AS tenant,
            (SELECT count(*) FROM provider_grant) AS count`),
      ),
    );
    for (const [row] of after) expect(row).toMatchObject({ tenant: null, count: 2 });
    expect(after.map(([row]) => row?.role)).not.toContain(TENANT_ROLE);
  });
});

describe('reads of one tenant', () => {
  const unbounded = { isWaitedFor: () => false, refuse: busy, maxSessions: 5, patienceMs: 5_000 };

  function count() {
    const log: string[] = [];
    const reads = createTenantReads({
      ...unbounded,
      begin: async (tenantId) => {
        log.push(`begin ${tenantId}`);
        const end = async (failure: unknown) => void log.push(failure === undefined ? 'commit' : 'rollback');
        return { client: tenantId, end };
      },
    });
    return { log, reads };
  }

  test('that follow from each other share a transaction, which ends when none follows', async () => {
    const { log, reads } = count();
    for (let step = 0; step < 5; step += 1) await reads.run('a', async () => step);
    await Promise.all([reads.run('a', async () => 1), reads.run('b', async () => 2)]);
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(log).toEqual(['begin a', 'begin b', 'commit', 'commit']);
    await reads.run('a', async () => 3);
    expect(log.filter((line) => line === 'begin a')).toHaveLength(2);
  });

  test('are taken up by another transaction when one that goes before them fails', async () => {
    const { log, reads } = count();
    const failing = reads.run('a', async () => Promise.reject(new Error('refused')));
    const behind = reads.run('a', async () => 'answered');
    await expect(failing).rejects.toThrow('refused');
    expect(await behind).toBe('answered');
    expect(log.slice(0, 3).toSorted()).toEqual(['begin a', 'begin a', 'rollback']);
  });

  test('fail with the reason why no transaction could be begun', async () => {
    const reads = createTenantReads({
      ...unbounded,
      begin: async () => Promise.reject(new Error('no database')),
    });
    const outcomes = await Promise.allSettled([reads.run('a', async () => 1), reads.run('a', async () => 2)]);
    expect(outcomes.map((outcome) => (outcome as PromiseRejectedResult).reason.message)).toEqual([
      'no database',
      'no database',
    ]);
  });
});
