import type pg from 'pg';
import { onLiveConnection } from './dead-connection.js';
import type { TenantConnection } from './tenant-reads.js';

/** SQLSTATE of a transaction that was ended so that another could go on. Nothing of it was kept. */
const DEADLOCK_DETECTED = '40P01';
const MAX_ATTEMPTS = 3;

const ROLLBACK_TIMEOUT_MS = 1_000;

/** Takes a connection and begins a transaction on it; on another one where the first is found dead: nothing was asked yet. */
export const beginTransaction = (pool: pg.Pool, begin: string): Promise<TenantConnection<pg.PoolClient>> =>
  onLiveConnection(() => beginOnce(pool, begin));

async function beginOnce(pool: pg.Pool, begin: string): Promise<TenantConnection<pg.PoolClient>> {
  const client = await pool.connect();
  // The pool listens only while a connection is idle. One that breaks between two statements would end the process; the
  // next statement fails with the same error.
  const ignore = () => undefined;
  client.on('error', ignore);
  const end = async (failure: unknown): Promise<void> => {
    let broken: Error | undefined;
    // A connection whose rollback fails is in an unknown state, so it is closed instead of reused; one that has fallen
    // silent is not waited for a second time.
    const rollback = { text: 'ROLLBACK', query_timeout: ROLLBACK_TIMEOUT_MS };
    const rollBack = () => client.query(rollback).catch((error: Error) => (broken = error));
    try {
      if (failure === undefined) await client.query('COMMIT');
      else await rollBack();
    } catch (error) {
      await rollBack();
      throw error;
    } finally {
      client.release(broken);
      client.off('error', ignore);
    }
  };
  try {
    await client.query(begin);
    return { client, end };
  } catch (error) {
    await end(error);
    throw error;
  }
}

/** Repeats what the database ended to resolve a deadlock. */
export async function runTransaction<T>(
  pool: pg.Pool,
  begin: string,
  run: (client: pg.PoolClient) => Promise<T>,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await runOnce(pool, begin, run);
    } catch (error) {
      const deadlocked = (error as NodeJS.ErrnoException).code === DEADLOCK_DETECTED;
      if (!deadlocked || attempt === MAX_ATTEMPTS) throw error;
    }
  }
}

async function runOnce<T>(pool: pg.Pool, begin: string, run: (client: pg.PoolClient) => Promise<T>): Promise<T> {
  const { client, end } = await beginTransaction(pool, begin);
  let result: T;
  try {
    result = await run(client);
  } catch (error) {
    await end(error ?? new Error('The transaction failed.'));
    throw error;
  }
  await end(undefined);
  return result;
}
