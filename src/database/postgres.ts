import { createHash } from 'node:crypto';
import { PrismaPg } from '@prisma/adapter-pg';
import { LRUCache } from 'lru-cache';
import pg from 'pg';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Log } from '../log.js';
import type { Database, Sql, SqlStatement } from './database.js';
import { applyMigrations } from './migrate.js';
import { readIdentity } from './postgres-identity.js';

/** Any number: what matters is that every process asks for the same lock. */
const MIGRATION_LOCK = 7_203_411;

/** Distinct statement texts are few; the bound only guards against one that is built from data by mistake. */
const MAX_STATEMENT_NAMES = 500;

const INT8_OID = 20;

/** SQLSTATE of a transaction that was ended so that another could go on. Nothing of it was kept. */
const DEADLOCK_DETECTED = '40P01';
const MAX_ATTEMPTS = 3;

const ROLLBACK_TIMEOUT_MS = 1_000;

const IDLE_TIMEOUT_MS = 4_000;

/** `int8` as number: fences, positions and counts stay far below 2^53. */
const types: pg.CustomTypesConfig = {
  getTypeParser: (oid, format) =>
    oid === INT8_OID && format !== 'binary' ? Number : (pg.types.getTypeParser(oid, format as 'text') as never),
};

function createStatementNames(): (text: string) => string {
  const names = new LRUCache<string, string>({ max: MAX_STATEMENT_NAMES });
  return (text) => {
    let name = names.get(text);
    if (name === undefined) {
      name = createHash('sha256').update(text).digest('base64url').slice(0, 20);
      names.set(text, name);
    }
    return name;
  };
}

export interface PostgresOptions {
  connectionString: string;
  log: Log;
  /** Connections of this process; waiting ones queue. */
  poolSize?: number;
  /** Longest a statement may take before it fails, also when the server has stopped answering. */
  queryTimeoutMs?: number;
}

/** No connection to the server could be made. */
export class DatabaseUnreachableError extends Error {
  constructor(code: string | undefined) {
    const reason = code === undefined ? 'it does not answer' : `the system answers ${code}`;
    super(`The database cannot be reached: ${reason}. Check DATABASE_URL.`);
    this.name = 'DatabaseUnreachableError';
  }
}

/** SQLSTATE classes that say the server is there and refuses: authorization, no such database. */
const REFUSALS = /^(28|3D)...$/;

/**
 * Opens a PostgreSQL database and applies the migrations it lacks; several processes may start at once.
 *
 * Prisma and the SQL interface share one connection pool. A connection that fails while idle is replaced.
 *
 * @throws {DatabaseUnreachableError} the server cannot be reached; one that refuses us is the driver's own error.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const { connectionString, log, poolSize = 20, queryTimeoutMs = 5_000 } = options;
  await migrateUnderLock(connectionString);
  const pool = new pg.Pool({
    connectionString,
    max: poolSize,
    connectionTimeoutMillis: 5_000,
    // When a network falls silent, each idle connection would cost whoever is given it a whole time limit.
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    query_timeout: queryTimeoutMs,
    statement_timeout: queryTimeoutMs,
    idle_in_transaction_session_timeout: 30_000,
    keepAlive: true,
    application_name: 'latchkey',
  });
  pool.on('error', (error) => log.warn('an idle database connection failed', { errorName: error.name }));
  const nameOf = createStatementNames();
  const prisma = new PrismaClient({
    adapter: new PrismaPg(pool, { statementNameGenerator: ({ sql }: { sql: string }) => nameOf(sql) }),
  });

  const runWith = (client: pg.Pool | pg.PoolClient): Sql => ({
    query: async <Row>(statement: SqlStatement): Promise<Row[]> => {
      const { text } = statement;
      const result = await client.query({ name: nameOf(text), text, values: statement.values as unknown[], types });
      return result.rows as Row[];
    },
  });

  return {
    kind: 'postgres',
    prisma,
    query: runWith(pool).query,
    transaction: async (run) => {
      for (let attempt = 1; ; attempt += 1) {
        try {
          return await runTransaction(pool, runWith, run);
        } catch (error) {
          const deadlocked = (error as NodeJS.ErrnoException).code === DEADLOCK_DETECTED;
          if (!deadlocked || attempt === MAX_ATTEMPTS) throw error;
        }
      }
    },
    pool: () => ({ open: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: poolSize }),
    identity: () => readIdentity(pool),
    close: async () => {
      await prisma.$disconnect();
      await pool.end();
    },
  };
}

async function runTransaction<T>(
  pool: pg.Pool,
  runWith: (client: pg.PoolClient) => Sql,
  run: (tx: Sql) => Promise<T>,
): Promise<T> {
  const client = await pool.connect();
  let failure: Error | undefined;
  // The pool listens only while a connection is idle. One that breaks between two statements would end the process; the
  // next statement fails with the same error.
  const ignore = () => undefined;
  client.on('error', ignore);
  try {
    await client.query('BEGIN');
    const result = await run(runWith(client));
    await client.query('COMMIT');
    return result;
  } catch (error) {
    // A connection whose rollback fails is in an unknown state, so it is closed instead of reused; one that has fallen
    // silent is not waited for a second time.
    const rollback = { text: 'ROLLBACK', query_timeout: ROLLBACK_TIMEOUT_MS };
    await client.query(rollback).catch((rollbackError: Error) => (failure = rollbackError));
    throw error;
  } finally {
    client.release(failure);
    client.off('error', ignore);
  }
}

async function migrateUnderLock(connectionString: string): Promise<void> {
  const pool = new pg.Pool({ connectionString, connectionTimeoutMillis: 5_000, application_name: 'latchkey migrate' });
  // The statement that loses its connection fails with the same error; without a listener it would end the process.
  pool.on('error', () => undefined);
  try {
    const holder = await pool.connect().catch((error: NodeJS.ErrnoException) => {
      throw error.code !== undefined && REFUSALS.test(error.code) ? error : new DatabaseUnreachableError(error.code);
    });
    try {
      await holder.query('SELECT pg_advisory_lock($1)', [MIGRATION_LOCK]);
      await applyMigrations(new PrismaPg(pool));
    } finally {
      // Ending the session, instead of returning it to the pool, releases the lock.
      holder.release(true);
    }
  } finally {
    await pool.end();
  }
}
