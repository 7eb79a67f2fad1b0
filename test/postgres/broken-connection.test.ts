import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { isOutage } from '../../src/database/outage.js';
import { openTestDatabase } from '../support/database.js';
import { until } from '../support/until.js';

const db = await openTestDatabase();

async function endSession(pid: number): Promise<void> {
  await db.query(sql`SELECT pg_terminate_backend(${pid})`);
  await until(async () => (await db.query(sql`SELECT 1 FROM pg_stat_activity WHERE pid = ${pid}`)).length === 0);
}

const pidOf = async (tx: typeof db | { query: typeof db.query }) => {
  const [row] = await tx.query<{ pid: number }>(sql`SELECT pg_backend_pid() AS pid`);
  return row?.pid ?? 0;
};

test('a connection that breaks between two statements fails its transaction, as an outage, and not the process', async () => {
  const failure: unknown = await db
    .transaction(async (tx) => {
      await endSession(await pidOf(tx));
      return tx.query(sql`SELECT 1`);
    })
    .catch((error: unknown) => error);
  expect(isOutage(failure)).toBe(true);
  expect(await db.query(sql`SELECT 1 AS one`)).toEqual([{ one: 1 }]);
});

test('a statement that is wrong is no outage', async () => {
  const failure: unknown = await db.query(sql`SELECT * FROM nothing_of_that_name`).catch((error: unknown) => error);
  expect(failure).toBeInstanceOf(Error);
  expect(isOutage(failure)).toBe(false);
});

/** Ends all sessions of the database but the one that asks. */
const endOthers = (tx: Pick<typeof db, 'query'>) =>
  tx.query(sql`
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()`);

test('a read, and a transaction that begins, are not hindered by connections that ended', async () => {
  for (let round = 0; round < 3; round += 1) {
    await Promise.all(Array.from({ length: 5 }, () => db.query(sql`SELECT pg_sleep(0.02)::text`)));
    await db.transaction(endOthers);
    const answers = await Promise.all([
      db.query(sql`SELECT 1 AS one`),
      db.prisma.tenant.count(),
      db.transaction((tx) => tx.query(sql`SELECT 1 AS one`)),
    ]);
    expect(answers).toEqual([[{ one: 1 }], 0, [{ one: 1 }]]);
  }
});

test('a change whose connection breaks is not made a second time', async () => {
  await db.query(sql`CREATE TABLE counted (id serial)`);
  const failure: unknown = await db
    .query(sql`WITH cut AS (SELECT pg_terminate_backend(pg_backend_pid())) INSERT INTO counted SELECT 1 FROM cut`)
    .catch((error: unknown) => error);
  expect(isOutage(failure)).toBe(true);
  expect(await db.query(sql`SELECT count(*) AS count FROM counted`)).toEqual([{ count: 0 }]);
});

test('a read that is cut off in its middle is sent once more', async () => {
  const reading = db.query(sql`SELECT pg_sleep(0.3)::text AS slept`);
  await until(async () => {
    const [row] = await db.query<{ pid: number }>(sql`
      SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE '%AS slept' AND state = 'active'`);
    if (row === undefined) return false;
    await db.query(sql`SELECT pg_terminate_backend(${row.pid}::int)`);
    return true;
  });
  expect(await reading).toEqual([{ slept: '' }]);
});
