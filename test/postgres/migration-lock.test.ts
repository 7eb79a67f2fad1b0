import pg from 'pg';
import { afterAll, expect, test } from 'vitest';
import { type MigrationLock, MigrationLockLostError, underMigrationLock } from '../../src/database/migration-lock.js';
import { createPostgresDatabase } from '../support/database.js';
import { runAs } from '../support/database-roles.js';
import { until } from '../support/until.js';

const url = await createPostgresDatabase();
await runAs(url, 'CREATE TABLE told (id serial, what text)');

/** One process that migrates. */
function openPool(connectionString = url): pg.Pool {
  const pool = new pg.Pool({ connectionString });
  pool.on('error', () => undefined);
  afterAll(() => pool.end());
  return pool;
}

const tell = (lock: MigrationLock, what: string) =>
  lock.step((client) => client.query('INSERT INTO told (what) VALUES ($1)', [what]));

const told = async () => (await runAs(url, 'SELECT what FROM told ORDER BY id')).map(({ what }) => what);

const heldBy = `SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
  WHERE l.locktype = 'advisory' AND l.granted AND l.objid = 7203411 AND d.datname = current_database()`;

/** As a pooler with a time limit, or an operator, ends the connection that holds the lock. */
const endHolder = () => runAs(url, `SELECT pg_terminate_backend(pid) FROM (${heldBy}) holder`);

test('of several that want to migrate one does at a time', async () => {
  let inside = 0;
  await Promise.all(
    [openPool(), openPool(), openPool()].map((pool) =>
      underMigrationLock(pool, async (lock) => {
        inside += 1;
        expect(inside).toBe(1);
        await lock.step((client) => client.query('SELECT pg_sleep(0.05)'));
        inside -= 1;
      }),
    ),
  );
  expect(await runAs(url, heldBy)).toEqual([]);
});

test('who has lost the lock changes nothing any more, and says so', async () => {
  await runAs(url, 'DELETE FROM told');
  const lost = underMigrationLock(openPool(), async (lock) => {
    await tell(lock, 'before');
    await endHolder();
    await until(async () => (await runAs(url, heldBy)).length === 0);
    await tell(lock, 'after').catch(() => undefined);
    throw new Error('The engine says it in words of its own.');
  });
  await expect(lost).rejects.toBeInstanceOf(MigrationLockLostError);
  expect(await told()).toEqual(['before']);
});

test('the next one begins when the step is over that was under way when the lock was lost, and alone goes on', async () => {
  await runAs(url, 'DELETE FROM told');
  let release = (): void => undefined;
  const released = new Promise<void>((resolve) => (release = resolve));
  let isWorking = false;
  const first = underMigrationLock(openPool(), async (lock) => {
    await lock.step(async (client) => {
      isWorking = true;
      await released;
      await client.query(`INSERT INTO told (what) VALUES ('first')`);
    });
    await tell(lock, 'first again');
  });
  await until(() => isWorking);
  await endHolder();
  let isInside = false;
  const second = underMigrationLock(openPool(), async (lock) => {
    isInside = true;
    await tell(lock, 'second');
  });
  await until(() => isInside);
  await until(
    async () => (await runAs(url, `SELECT FROM pg_locks WHERE NOT granted AND objid = 7203412`)).length === 1,
  );
  expect(await told()).toEqual([]);
  release();
  await expect(first).rejects.toBeInstanceOf(MigrationLockLostError);
  await second;
  expect(await told()).toEqual(['first', 'second']);
});

test('limits on statements and idle transactions that the role has do not end the lock or what is done under it', async () => {
  const limited = new URL(url);
  limited.searchParams.set('options', '-c statement_timeout=50 -c idle_in_transaction_session_timeout=50');
  await underMigrationLock(openPool(limited.href), async (lock) => {
    await lock.step((client) => client.query('SELECT pg_sleep(0.2)'));
    await tell(lock, 'slowly');
  });
  expect(await told()).toContain('slowly');
});
