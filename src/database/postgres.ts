import { createHash } from 'node:crypto';
import { PrismaPg } from '@prisma/adapter-pg';
import { LRUCache } from 'lru-cache';
import pg from 'pg';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Log } from '../log.js';
import { createConnectionShares } from './connection-shares.js';
import { BACKGROUND, type Database, type Sql, type SqlStatement } from './database.js';
import { isRead, onLiveConnection } from './dead-connection.js';
import { readIdentity } from './postgres-identity.js';
import { prepareDatabase, standIn } from './postgres-start.js';
import { beginTransaction, runTransaction } from './postgres-transaction.js';
import { createTenantAccess } from './tenant-access.js';
import { beginFor } from './tenant-wall.js';

/** Distinct statement texts are few; the bound only guards against one that is built from data by mistake. */
const MAX_STATEMENT_NAMES = 500;

const INT8_OID = 20;

const IDLE_TIMEOUT_MS = 4_000;

const IDLE_IN_TRANSACTION_MS = 30_000;

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

/** Names a statement by its text; undefined: it is sent without a name. */
type StatementNames = (text: string) => string | undefined;

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
  /** Another role for the same database, which owns the tables and alone changes them; absent: there is no other. */
  migrationUrl?: string | null;
  log: Log;
  /** Connections of this process; waiting ones queue. */
  poolSize?: number;
  /** Longest a statement may take before it fails, also when the server has stopped answering. */
  queryTimeoutMs?: number;
  /**
   * Off: nothing is sent that a pooler which lends connections for one transaction does not take, which are statements
   * with names, and limits as parameters of the session.
   */
  preparedStatements?: boolean;
  /** Off: what is asked for one tenant runs as what is asked for all. */
  rowLevelSecurity?: boolean;
}

const sqlOf = (send: (statement: pg.QueryConfig) => Promise<pg.QueryResult>, nameOf: StatementNames): Sql => ({
  query: async <Row>({ text, values }: SqlStatement): Promise<Row[]> => {
    const result = await send({ name: nameOf(text), text, values: values as unknown[], types });
    return result.rows as Row[];
  },
});

const openPrisma = (pool: pg.Pool, nameOf: StatementNames): PrismaClient =>
  // Nothing is prepared under no name; the adapter's types know only names.
  new PrismaClient({
    adapter: new PrismaPg(pool, { statementNameGenerator: ({ sql }: { sql: string }) => nameOf(sql) as string }),
  });

/** Limits, in milliseconds, of the transaction alone. */
const setLocal = (limits: Record<string, number>): string =>
  Object.entries(limits)
    .map(([name, ms]) => `SET LOCAL ${name} = ${ms}`)
    .join('; ');

/**
 * Opens a PostgreSQL database and applies the migrations it lacks; several processes may start at once.
 *
 * Prisma and the SQL interface share one connection pool. A connection that fails while idle is replaced.
 *
 * @throws {DatabaseUnreachableError} the server cannot be reached; one that refuses us is the driver's own error.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const { connectionString, log, poolSize = 20, queryTimeoutMs = 5_000 } = options;
  const { migrationUrl = null, preparedStatements = true, rowLevelSecurity = true } = options;
  await prepareDatabase({ connectionString, migrationUrl, rowLevelSecurity });
  const limits = { statement_timeout: queryTimeoutMs, idle_in_transaction_session_timeout: IDLE_IN_TRANSACTION_MS };
  const pool = new pg.Pool({
    connectionString,
    max: poolSize,
    connectionTimeoutMillis: 5_000,
    // When a network falls silent, each idle connection would cost whoever is given it a whole time limit.
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
    query_timeout: queryTimeoutMs,
    ...(preparedStatements ? limits : {}),
    keepAlive: true,
    application_name: 'latchkey',
  });
  pool.on('error', (error) => log.warn('an idle database connection failed', { errorName: error.name }));
  const statementName = createStatementNames();
  const nameOf: StatementNames = preparedStatements ? statementName : () => undefined;
  const shares = createConnectionShares({
    limitOf: (holder) => partOf(poolSize, holder === READERS || holder === BACKGROUND ? COMMON_PART : TENANT_PART),
    patienceMs: queryTimeoutMs,
  });
  // Under names of their own: a prepared statement that changed hands between roles would be planned anew each time.
  const tenantNameOf: StatementNames = preparedStatements ? (text) => `t${statementName(text)}` : nameOf;
  const begin = (how: string): string => (preparedStatements ? how : `${how}; ${setLocal(limits)}`);
  const readers = standIn(pool, (statement: pg.QueryConfig) => shares.run(READERS, () => queryPool(pool, statement)));
  const prisma = openPrisma(readers, nameOf);
  const tenants = createTenantAccess<pg.PoolClient>({
    begin: async (tenantId) => {
      const turn = shares.take(tenantId);
      if (turn !== undefined) await turn;
      const giveBack = () => shares.give(tenantId);
      try {
        const { client, end } = await beginTransaction(pool, begin(beginFor(tenantId, 'READ ONLY')));
        return { client, end: (failure) => end(failure).finally(giveBack) };
      } catch (error) {
        giveBack();
        throw error;
      }
    },
    isWaitedFor: shares.isWaitedFor,
    refuse: shares.refuse,
    maxSessions: partOf(poolSize, TENANT_PART),
    patienceMs: queryTimeoutMs,
    sqlOf: (client) => sqlOf((statement) => client.query(statement), tenantNameOf),
    openPrisma: (query) => openPrisma(standIn(pool, query), tenantNameOf),
    transaction: (tenantId, run) =>
      shares.run(tenantId, () =>
        runTransaction(pool, begin(beginFor(tenantId, 'READ WRITE')), (client) =>
          run(sqlOf((statement) => client.query(statement), tenantNameOf)),
        ),
      ),
  });
  const everybody: Pick<Database, 'query' | 'transaction'> = {
    query: sqlOf((statement) => queryPool(pool, statement), nameOf).query,
    transaction: (run) =>
      runTransaction(pool, begin('BEGIN'), (client) => run(sqlOf((statement) => client.query(statement), nameOf))),
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
