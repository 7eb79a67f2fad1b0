import { createHash } from 'node:crypto';
import { PrismaPg } from '@prisma/adapter-pg';
import { LRUCache } from 'lru-cache';
import pg from 'pg';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Log } from '../log.js';
import { createConnectionShares } from './connection-shares.js';
import { BACKGROUND, type Database, type Sql, type SqlStatement } from './database.js';
import { isRead, onLiveConnection } from './dead-connection.js';
import { applyMigrations } from './migrate.js';
import { readIdentity } from './postgres-identity.js';
import { beginTransaction, runTransaction } from './postgres-transaction.js';
import { createTenantAccess } from './tenant-access.js';
import { bindRowsToTenants } from './tenant-rows.js';
import { beginFor, raiseTenantWall, type RunText } from './tenant-wall.js';

/** Any number: what matters is that every process asks for the same lock. */
const MIGRATION_LOCK = 7_203_411;

/** Distinct statement texts are few; the bound only guards against one that is built from data by mistake. */
const MAX_STATEMENT_NAMES = 500;

const INT8_OID = 20;

const IDLE_TIMEOUT_MS = 4_000;

/** Parts of the pool that one tenant may hold at once, and what many share that could fill it. */
const TENANT_PART = 1 / 4;
const COMMON_PART = 1 / 2;
/** Who reads with Prisma for keys of all tenants. */
const READERS = 'readers';

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
  const shares = createConnectionShares({
    limitOf: (holder) => partOf(poolSize, holder === READERS || holder === BACKGROUND ? COMMON_PART : TENANT_PART),
    patienceMs: queryTimeoutMs,
  });
  const openPrisma = (name: (text: string) => string, query: (statement: pg.QueryConfig) => Promise<unknown>) =>
    new PrismaClient({
      adapter: new PrismaPg(standIn(pool, query), {
        statementNameGenerator: ({ sql }: { sql: string }) => name(sql),
      }),
    });
  const prisma = openPrisma(nameOf, (statement) => shares.run(READERS, () => queryPool(pool, statement)));

  const sqlWith =
    (name: (text: string) => string) =>
    (client: pg.Pool | pg.PoolClient): Sql => ({
      query: async <Row>({ text, values }: SqlStatement): Promise<Row[]> => {
        const statement = { name: name(text), text, values: values as unknown[], types };
        const result = await (client === pool ? queryPool(pool, statement) : client.query(statement));
        return result.rows as Row[];
      },
    });
  const sqlOf = sqlWith(nameOf);
  // Under names of their own: a prepared statement that changed hands between roles would be planned anew each time.
  const tenantNameOf = (text: string) => `t${nameOf(text)}`;
  const tenantSqlOf = sqlWith(tenantNameOf);
  const tenants = createTenantAccess<pg.PoolClient>({
    begin: async (tenantId) => {
      const turn = shares.take(tenantId);
      if (turn !== undefined) await turn;
      const giveBack = () => shares.give(tenantId);
      try {
        const { client, end } = await beginTransaction(pool, beginFor(tenantId, 'READ ONLY'));
        return { client, end: (failure) => end(failure).finally(giveBack) };
      } catch (error) {
        giveBack();
        throw error;
      }
    },
    isWaitedFor: shares.isWaitedFor,
    maxSessions: partOf(poolSize, TENANT_PART),
    patienceMs: queryTimeoutMs,
    sqlOf: tenantSqlOf,
    openPrisma: (query) => openPrisma(tenantNameOf, query),
    transaction: (tenantId, run) =>
      shares.run(tenantId, () =>
        runTransaction(pool, beginFor(tenantId, 'READ WRITE'), (client) => run(tenantSqlOf(client))),
      ),
  });
  const everybody: Pick<Database, 'query' | 'transaction'> = {
    query: sqlOf(pool).query,
    transaction: (run) => runTransaction(pool, 'BEGIN', (client) => run(sqlOf(client))),
  };
  const sharing = (holder: string): typeof everybody => ({
    query: (statement) => shares.run(holder, () => everybody.query(statement)),
    transaction: (run) => shares.run(holder, () => everybody.transaction(run)),
  });

  const database: Database = {
    kind: 'postgres',
    prisma,
    ...everybody,
    tenant: rowLevelSecurity
      ? tenants.of
      : (tenantId) => ({ ...sharing(tenantId), read: (run) => run({ prisma, ...sharing(tenantId) }) }),
    shareOf: (holder) => ({ ...database, ...sharing(holder) }),
    pool: () => ({
      open: pool.totalCount,
      idle: pool.idleCount,
      waiting: pool.waitingCount,
      max: poolSize,
      shares: shares.figures(),
    }),
    identity: () => readIdentity(pool),
    close: async () => {
      await Promise.all([prisma.$disconnect(), tenants.close()]);
      await pool.end();
    },
  };
  return database;
}

const partOf = (poolSize: number, part: number): number => Math.max(1, Math.floor(poolSize * part));

/** Sends a statement by whichever connection is free; a read by another one where that is found dead. */
const queryPool = (pool: pg.Pool, statement: pg.QueryConfig): Promise<pg.QueryResult> =>
  isRead(statement.text) ? onLiveConnection(() => pool.query(statement)) : pool.query(statement);

/** A pool as Prisma's adapter takes it, whose statements go elsewhere. */
const standIn = (pool: pg.Pool, query: (statement: pg.QueryConfig) => Promise<unknown>): pg.Pool =>
  new Proxy(pool, { get: (target, name) => (name === 'query' ? query : (Reflect.get(target, name) as unknown)) });

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
