// What a read costs for a caller of one tenant, which row-level security holds to its rows, and for one of all tenants:
//   npm run bench:row-level-security            on a throw-away server
//   TEST_DATABASE_URL=postgres://… npm run …    on a server of yours, in a database that is removed again
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import sql from 'sql-template-tag';
import { createCandidateReader } from '../../src/domain/credential-reader.js';
import type { TenantReads } from '../../src/database/database.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { startCluster } from '../support/postgres-cluster.js';

const ROUNDS = 600;
const WARM_UP = 100;
const NAME = `latchkey_bench_${process.pid}`;

const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const given = process.env['TEST_DATABASE_URL'];
const cluster = given === undefined ? await startCluster(folder) : { url: given, stop: async () => undefined };
const admin = new pg.Client({ connectionString: cluster.url });
await admin.connect();
await admin.query(`CREATE DATABASE ${NAME}`);
const url = new URL(cluster.url);
url.pathname = `/${NAME}`;
const db = await openPostgres({ connectionString: url.href, log: createLog('silent') });

// 200 tenants with 20 grants each, and their credentials.
await db.query(sql`
  INSERT INTO provider_app (id, key, provider, name, kind, environment, client_id, secret_version, sealed_client_secret,
    client_secret_set_at)
  VALUES (gen_random_uuid(), 'bench', 'ZOOM', 'bench', 'USER_MANAGED', 'COMMERCIAL', 'bench', 1, '\\x00', now())`);
await db.query(sql`
  INSERT INTO tenant (id, external_id) SELECT gen_random_uuid(), 'org_' || n FROM generate_series(1, 200) n`);
await db.query(sql`
  INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
  SELECT gen_random_uuid(), id, id::text, 1, true, 'none', '\\x00' FROM tenant`);
await db.query(sql`
  INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id, health_status,
    health_reason, health_since, authorized_at)
  SELECT gen_random_uuid(), 'USER_CONNECTION', t.id, a.id, 'u' || n, 'u' || n, 'acc', 'HEALTHY', 'CONNECTED', now(), now()
  FROM tenant t, provider_app a, generate_series(1, 20) n`);
await db.query(sql`
  INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, key_version, api_url, issued_at,
    expires_at)
  SELECT id, tenant_id, app_id, 1, ${Buffer.alloc(300)}, 1, 'https://api.zoom.us', now(), now() + interval '1 hour'
  FROM provider_grant`);
await db.query(sql`ANALYZE`);
const [tenant] = await db.query<{ id: string; externalId: string }>(sql`
  SELECT id, external_id AS "externalId" FROM tenant LIMIT 1`);
const [grant] = await db.query<{ id: string }>(sql`
  SELECT id FROM provider_grant WHERE tenant_id = ${tenant!.id}::uuid LIMIT 1`);

const all: TenantReads = { prisma: db.prisma, query: db.query };
const view = db.tenant(tenant!.id);

const credential = ({ query }: TenantReads) =>
  createCandidateReader({ query }).find({
    tenantId: tenant!.externalId,
    userId: 'u1',
    kind: 'USER_CONNECTION',
    grantId: null,
  });
const one = ({ prisma }: TenantReads) => prisma.grant.findFirst({ where: { id: grant!.id } });
async function nested(reads: TenantReads): Promise<void> {
  for (let level = 0; level < 4; level += 1) await one(reads);
}

const CASES: [string, (reads: TenantReads) => Promise<unknown>][] = [
  ['credential read (SQL)', credential],
  ['one Prisma read', one],
  ['four Prisma reads, one after the other', nested],
];

const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

for (const [name, read] of CASES) {
  const ways = { all: () => read(all), tenant: () => view.read(read) };
  const times = { all: [] as number[], tenant: [] as number[] };
  for (let round = 0; round < ROUNDS; round += 1) {
    // By turns, so that what else the machine does falls on both.
    for (const way of ['all', 'tenant'] as const) {
      const began = performance.now();
      await ways[way]();
      if (round >= WARM_UP) times[way].push(performance.now() - began);
    }
  }
  const [plain, bound] = [median(times.all), median(times.tenant)];
  console.log(
    `${name}: ${plain.toFixed(2)} ms for all tenants, ${bound.toFixed(2)} ms for one (+${(bound - plain).toFixed(2)} ms)`,
  );
}

await db.close();
await admin.query(`DROP DATABASE ${NAME} WITH (FORCE)`);
await admin.end();
await cluster.stop();
await rm(folder, { recursive: true, force: true });
process.exit();
