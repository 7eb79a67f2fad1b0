import { randomBytes, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import { afterAll, expect, test } from 'vitest';
import { noteAudit, withAudit } from '../../src/domain/audit.js';
import { createAuditKey } from '../../src/domain/audit-key.js';
import { createAuditTrail } from '../../src/domain/audit-trail.js';
import { verifyAudit } from '../../src/domain/audit-verification.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault } from '../../src/vault/vault.js';
import { createPostgresDatabase } from '../support/database.js';

const connectionString = await createPostgresDatabase();
const rootKeys = parseRootKeys(randomBytes(32).toString('base64'), { production: false });

/** What each process has of its own: connections, a vault, and what it remembers of chains. */
async function openProcess() {
  const plain = await openPostgres({ connectionString, log: createLog('silent'), poolSize: 8 });
  afterAll(() => plain.close());
  const vault = createVault({ rootKeys: createLocalRootKeys(rootKeys) });
  await vault.verify(plain);
  await vault.createTenantKey(plain, null);
  await createAuditKey(vault, plain);
  return { db: withAudit(plain, createAuditTrail({ vault })), vault };
}

const TENANTS = Array.from({ length: 3 }, () => randomUUID());
const ROUNDS = 15;

test('processes that append to the same chains at once, new ones among them, make no gap and no deadlock', async () => {
  const processes = [await openProcess(), await openProcess()];
  const workers = processes.flatMap(({ db }) => [db, db, db, db]);
  await Promise.all(
    workers.map(async (db, worker) => {
      for (let round = 0; round < ROUNDS; round += 1) {
        await db.transaction(async (tx) => {
          // Every order of chains, the system's at either end or in the middle.
          const order = [null, ...TENANTS].toSorted((a, b) => hash(worker, round, a) - hash(worker, round, b));
          for (const tenantId of order.slice(0, 1 + (round % 4))) noteAudit(tx, { tenantId, action: 'test.done' });
        });
      }
    }),
  );
  const [{ db, vault }] = processes as [Awaited<ReturnType<typeof openProcess>>];
  const chains = await verifyAudit({ db, vault });
  expect(chains.map(({ fault }) => fault)).toEqual([null, null, null, null]);
  const [done] = await db.query<{ count: number }>(sql`
    SELECT count(*) AS count FROM audit_event WHERE action = 'test.done'`);
  const each = Array.from({ length: ROUNDS }, (_, round) => 1 + (round % 4)).reduce((sum, count) => sum + count, 0);
  expect(done?.count).toBe(workers.length * each);
});

/** A number that looks like none, the same each time. */
function hash(...parts: readonly unknown[]): number {
  return [...parts.join('/')].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 65_521, 7);
}
