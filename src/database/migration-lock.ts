import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import { runTransaction } from './postgres-transaction.js';

/** Any number: what matters is that every process, of every version, asks for the same lock. */
const MIGRATION_LOCK = 7_203_411;

/** Held by each step while it runs. */
const STEP_LOCK = 7_203_412;

/** Between two attempts to get the lock that somebody else has. */
const POLL_MS = 100;

const ROLLBACK_TIMEOUT_MS = 1_000;

/** Limits that the role or the database may have for statements would end migrations, or whoever holds the lock. */
const WITHOUT_LIMITS = `SELECT set_config(name, '0', true) FROM pg_settings
  WHERE name IN ('statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_timeout')`;

const BEGIN_STEP = `BEGIN; ${WITHOUT_LIMITS}; SELECT pg_advisory_xact_lock(${STEP_LOCK})`;

const HELD = `SELECT virtualtransaction AS transaction, pid FROM pg_locks
  WHERE locktype = 'advisory' AND granted AND objsubid = 1 AND classid = 0 AND objid = ${MIGRATION_LOCK}
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`;

/** The transaction that holds the lock has ended while the work was going on. */
export class MigrationLockLostError extends Error {
  constructor() {
    super(
      'The lock for migrations was lost while they were under way, so nothing more was changed: the connection that ' +
        'held it was ended. Start again; if it happens again, let LATCHKEY_MIGRATION_DATABASE_URL go past the pooler.',
    );
    this.name = 'MigrationLockLostError';
  }
}

/** The lock, while it is held. */
export interface MigrationLock {
  /**
   * Runs `run` in a transaction of its own, on another connection than the one that holds the lock. Steps of all
   * processes run one by one, and none begins unless the lock is held then.
   *
   * @throws {MigrationLockLostError} it is not.
   */
  step<T>(run: (client: pg.PoolClient) => Promise<T>): Promise<T>;
  /** Whether somebody who is connected as this client is has the same database before them. */
  isSeenBy(client: pg.ClientBase): Promise<boolean>;
}

interface Holder {
  pid: number;
  transaction: string;
}

const isHeldBy = ({ pid, transaction }: Holder, client: pg.ClientBase) =>
  client
    .query(`SELECT FROM (${HELD}) held WHERE pid = $1 AND transaction = $2`, [pid, transaction])
    .then(({ rowCount }) => rowCount === 1);

/** Whoever waits does so without a transaction: behind a pooler each would keep a connection from the one that works. */
async function acquire(client: pg.ClientBase): Promise<Holder> {
  for (;;) {
    await client.query(`BEGIN; ${WITHOUT_LIMITS}`);
    await client.query(`SELECT pg_try_advisory_xact_lock(${MIGRATION_LOCK})`);
    const { rows } = await client.query<Holder>(`${HELD} AND pid = pg_backend_pid()`);
    if (rows[0] !== undefined) return rows[0];
    await client.query('ROLLBACK');
    await delay(POLL_MS);
  }
}

/**
 * Waits until this process is the only one that migrates, and runs `run`.
 *
 * The lock belongs to a transaction, which a pooler that lends connections for one transaction leaves on one of them,
 * and not to a session. It is held on one connection by a transaction that does nothing else: what is done under it
 * must commit by itself, be it that a migration which failed is to be found by the next start. So the lock could be
 * lost, by whoever ends that connection, without the work noticing. Hence the steps: each waits for the step of any
 * other process, and looks then, before it does anything, whether the lock is still held by its own process. Who has
 * lost it has no step under way when another one's begins, and none after it.
 */
export async function underMigrationLock<T>(pool: pg.Pool, run: (lock: MigrationLock) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  // Nobody else listens to a connection that has no statement under way; the next step finds that the lock is gone.
  const ignore = () => undefined;
  client.on('error', ignore);
  let lost: MigrationLockLostError | undefined;
  try {
    const holder = await acquire(client);
    const step: MigrationLock['step'] = (work) =>
      runTransaction(pool, BEGIN_STEP, async (worker) => {
        if (!(await isHeldBy(holder, worker))) throw (lost = new MigrationLockLostError());
        return work(worker);
      });
    return await run({ step, isSeenBy: (other) => isHeldBy(holder, other) });
  } catch (error) {
    // What runs the steps may say it in words of its own.
    throw lost ?? error;
  } finally {
    // A pooler closes a connection whose client leaves within a transaction. Where this fails, closing ends it as well.
    await client.query({ text: 'ROLLBACK', query_timeout: ROLLBACK_TIMEOUT_MS } as pg.QueryConfig).catch(ignore);
    client.release(true);
    client.off('error', ignore);
  }
}
