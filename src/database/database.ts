import type { Sql as SqlFragment } from 'sql-template-tag';
import type { PrismaClient } from '../generated/prisma/client.js';
import type { ShareFigures } from './connection-shares.js';

/** A statement, or a part of one, as the `sql` tag makes it. */
export type { SqlFragment };

/** What is sent: a text with `$1`, `$2` and so on, and what these stand for. */
export type SqlStatement = Pick<SqlFragment, 'text' | 'values'>;

/**
 * Runs statements written with the `sql` tag of `sql-template-tag`.
 *
 * Rows come back with the same JavaScript types on both databases: `int8` as number, `timestamptz` as Date, `bytea` as
 * Uint8Array, `text[]` as string[]. Statements are prepared once per connection and distinct text.
 */
export interface Sql {
  query<Row>(statement: SqlStatement): Promise<Row[]>;
}

/** Who asks for what the server does by itself, in `shareOf`. */
export const BACKGROUND = 'background';

/**
 * The one store of all state: PostgreSQL, or the embedded build of it.
 *
 * Writes are SQL, through `query` and `transaction`; Prisma serves the reads of GraphQL, the schema and its
 * migrations. Inside `transaction` use only the `tx` that is handed in: the embedded database has a single connection,
 * so a statement on the outer one would wait for the transaction that waits for it.
 */
export interface Database extends Sql {
  readonly kind: 'postgres' | 'embedded';
  readonly prisma: PrismaClient;
  /**
   * Commits when `run` resolves, rolls back when it rejects. Read committed. `run` is repeated when the database ended
   * the transaction to resolve a deadlock, so it must have no effect outside of `tx`.
   */
  transaction<T>(run: (tx: Sql) => Promise<T>): Promise<T>;
  /** The same database for whoever is restricted to one tenant, named by its row. */
  tenant(tenantId: string): TenantDatabase;
  /**
   * The same database for whoever asks on behalf of a tenant, named by its row, or `BACKGROUND`: what they ask counts as
   * theirs, like all that goes through `tenant`. Each may hold a part of the pool, so that nobody can take it whole; more
   * waits in order. Without a pool it is the same.
   *
   * What waits too long for its turn fails with DatabaseBusyError, and has not begun.
   */
  shareOf(holder: string): Database;
  /** Connections of this process; null where there is no pool. */
  pool(): PoolFigures | null;
  /** What tells this database from a copy of it, as it is now; null where nothing does, as in memory. */
  identity(): Promise<DatabaseIdentity | null>;
  close(): Promise<void>;
}

/**
 * Stays as it is when the server restarts, fails over to a replica, or its files are moved; a dump that was restored, and
 * a copied folder, have another.
 */
export type DatabaseIdentity =
  | {
      kind: 'postgres';
      /** Of the cluster, the same on replicas and on copies of its files; null where it may not be read. */
      systemIdentifier: string | null;
      /** Of the database within the cluster. */
      oid: string;
    }
  | { kind: 'embedded'; path: string; inode: string };

/** Ways to read; good within the `read` that gave them. */
export interface TenantReads extends Sql {
  readonly prisma: PrismaClient;
}

/**
 * The database as one tenant may see it: every statement runs as a role to which row-level security shows, and lets
 * change, the rows of this tenant alone, whatever the statement asks for. A foreign row is not there; writing one, or
 * using a table that is no tenant's, fails with SQLSTATE 42501.
 */
export interface TenantDatabase extends Pick<Database, 'query' | 'transaction'> {
  /**
   * Runs reads, of Prisma or SQL. Those of one tenant that come close together share a transaction, in which nothing can
   * be written; `query` and `transaction` have one of their own, which is committed when they resolve.
   */
  read<T>(run: (reads: TenantReads) => Promise<T>): Promise<T>;
}

export interface PoolFigures {
  open: number;
  idle: number;
  /** Statements and transactions that wait for a connection. */
  waiting: number;
  max: number;
  /** Of the parts that tenants and others may hold of it: what waits for one may do so although others are free. */
  shares: ShareFigures;
}
