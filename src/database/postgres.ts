import { createHash } from 'node:crypto';
import { PrismaPg } from '@prisma/adapter-pg';
import { LRUCache } from 'lru-cache';
import pg from 'pg';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Log } from '../log.js';
import type { Database, Sql, SqlStatement } from './database.js';
import { applyMigrations } from './migrate.js';
import { readIdentity } from './postgres-identity.js';
import { createTenantAccess } from './tenant-access.js';
import type { TenantConnection } from './tenant-reads.js';
import { bindRowsToTenants } from './tenant-rows.js';
import { beginFor, raiseTenantWall, type RunText } from './tenant-wall.js';

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
  /** Off: what is asked for one tenant runs as what is asked for all. */
  rowLevelSecurity?: boolean;
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
  const { connectionString, log, poolSize = 20, queryTimeoutMs = 5_000, rowLevelSecurity = true } = options;
  await migrateUnderLock(connectionString, rowLevelSecurity);
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

  const sqlWith =
    (name: (text: string) => string) =>
    (client: pg.Pool | pg.PoolClient): Sql => ({
      query: async <Row>({ text, values }: SqlStatement): Promise<Row[]> => {
        const result = await client.query({ name: name(text), text, values: values as unknown[], types });
        return result.rows as Row[];
      },
    });
  const sqlOf = sqlWith(nameOf);
  // Under names of their own: a prepared statement that changed hands between roles would be planned anew each time.
  const tenantNameOf = (text: string) => `t${nameOf(text)}`;
  const tenantSqlOf = sqlWith(tenantNameOf);
  const tenants = createTenantAccess<pg.PoolClient>({
    begin: (tenantId) => beginTransaction(pool, beginFor(tenantId, 'READ ONLY')),
    sqlOf: tenantSqlOf,
    openPrisma: (query) => {
      const statementNameGenerator = ({ sql }: { sql: string }) => tenantNameOf(sql);
      return new PrismaClient({ adapter: new PrismaPg(standIn(pool, query), { statementNameGenerator }) });
    },
    transaction: (tenantId, run) =>
      runTransaction(pool, beginFor(tenantId, 'READ WRITE'), (client) => run(tenantSqlOf(client))),
  });
  const everybody = {
    query: sqlOf(pool).query,
    transaction: <T>(run: (tx: Sql) => Promise<T>) => runTransaction(pool, 'BEGIN', (client) => run(sqlOf(client))),
  };

  return {
    kind: 'postgres',
    prisma,
    ...everybody,
    tenant: rowLevelSecurity ? tenants.of : () => ({ ...everybody, read: (run) => run({ prisma, ...everybody }) }),
    pool: () => ({ open: pool.totalCount, idle: pool.idleCount, waiting: pool.waitingCount, max: poolSize }),
    identity: () => readIdentity(pool),
    close: async () => {
      await Promise.all([prisma.$disconnect(), tenants.close()]);
      await pool.end();
    },
  };
}

/** A pool as Prisma's adapter takes it, whose statements go elsewhere. */
const standIn = (pool: pg.Pool, query: (...statement: unknown[]) => Promise<unknown>): pg.Pool =>
  new Proxy(pool, { get: (target, name) => (name === 'query' ? query : (Reflect.get(target, name) as unknown)) });

/** Takes a connection and begins a transaction on it. */
async function beginTransaction(pool: pg.Pool, begin: string): Promise<TenantConnection<pg.PoolClient>> {
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
async function runTransaction<T>(pool: pg.Pool, begin: string, run: (client: pg.PoolClient) => Promise<T>): Promise<T> {
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

async function migrateUnderLock(connectionString: string, rowLevelSecurity: boolean): Promise<void> {
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
      const run: RunText = async (text, values) => (await holder.query(text, values)).rows as Record<string, unknown>[];
      await bindRowsToTenants(run);
      if (rowLevelSecurity) await raiseTenantWall(run);
    } finally {
      // Ending the session, instead of returning it to the pool, releases the lock.
      holder.release(true);
    }
  } finally {
    await pool.end();
  }
}
