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
