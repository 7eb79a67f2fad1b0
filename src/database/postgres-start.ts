import { PrismaPg } from '@prisma/adapter-pg';
import type pg from 'pg';
import { admitApplication } from './application-role.js';
import { applyMigrations } from './migrate.js';
import { type MigrationLock, underMigrationLock } from './migration-lock.js';
import { openStartPool, refuse, type UrlSetting } from './postgres-connect.js';
import { bindRowsToTenants } from './tenant-rows.js';
import { raiseTenantWall, type RunText } from './tenant-wall.js';

/** The two settings that name the database do not name the same one. */
export class MigrationUrlError extends Error {
  constructor(what: string) {
    super(
      `LATCHKEY_MIGRATION_DATABASE_URL names another ${what} than DATABASE_URL. Let them differ in nothing but the role.`,
    );
    this.name = 'MigrationUrlError';
  }
}

export interface StartOptions {
  /** What the server works with. */
  connectionString: string;
  /** What the tables are owned, migrated and guarded by; null: the same. */
  migrationUrl: string | null;
  rowLevelSecurity: boolean;
}

/** A pool as Prisma's adapter takes it, whose statements go elsewhere. */
export const standIn = (pool: pg.Pool, query: (...statement: never[]) => Promise<unknown>): pg.Pool =>
  new Proxy(pool, { get: (target, name) => (name === 'query' ? query : (Reflect.get(target, name) as unknown)) });

/** Prisma's own lock, of the session: a pooler would leave it behind on a connection, and ours is held. */
const ENGINE_LOCK = /^SELECT pg_advisory_lock\(/;

const textOf = (statement: unknown): string =>
  typeof statement === 'string' ? statement : (statement as { text: string }).text;

/** Prisma's engine sends each statement by itself; each is a step. */
function migrationAdapter(pool: pg.Pool, lock: MigrationLock): PrismaPg {
  const query = async (...statement: unknown[]): Promise<unknown> => {
    if (ENGINE_LOCK.test(textOf(statement[0]))) return { rows: [], fields: [], rowCount: 0 };
    return lock.step((client) => client.query(...(statement as [string])));
  };
  return new PrismaPg(standIn(pool, query));
}

async function connect(pool: pg.Pool, setting: UrlSetting): Promise<void> {
  const client = await pool.connect().catch((error: NodeJS.ErrnoException) => refuse(error, setting));
  client.release();
}

const roleOf = async (pool: pg.Pool): Promise<string> =>
  (await pool.query<{ role: string }>('SELECT current_user::text AS role')).rows[0]?.role ?? '';

const schemaOf = async (pool: pg.Pool): Promise<string | null> =>
  (await pool.query<{ schema: string | null }>('SELECT current_schema()::text AS schema')).rows[0]?.schema ?? null;

/** Where the table is that everybody who uses this database sees. */
const TABLE = `SELECT to_regclass('_prisma_migrations')::oid::text AS oid`;

async function prepare(owner: pg.Pool, application: pg.Pool | null, rowLevelSecurity: boolean): Promise<void> {
  const roles = application && (await Promise.all([roleOf(application), roleOf(owner)]));
  // The same role twice is as one URL is.
  const role = roles === null || roles[0] === roles[1] ? null : roles[0];
  await underMigrationLock(owner, async (lock) => {
    if (application !== null) await compare(owner, application, lock);
    await applyMigrations(migrationAdapter(owner, lock));
    const run: RunText = (text, values) =>
      lock.step(async (client) => (await client.query(text, values)).rows as Record<string, unknown>[]);
    await bindRowsToTenants(run);
    if (rowLevelSecurity) await raiseTenantWall(run, role);
    if (role !== null) await admitApplication(run, role);
    if (application === null) return;
    const [ours, theirs] = await Promise.all([run(TABLE), application.query<{ oid: string | null }>(TABLE)]);
    if (ours[0]?.['oid'] !== theirs.rows[0]?.oid) throw new MigrationUrlError('schema (search_path)');
  });
}

/** Before anything is made in the wrong place. A role that may not use the schema yet sees none. */
async function compare(owner: pg.Pool, application: pg.Pool, lock: MigrationLock): Promise<void> {
  const client = await application.connect();
  try {
    if (!(await lock.isSeenBy(client))) throw new MigrationUrlError('database');
  } finally {
    client.release();
  }
  const [ours, theirs] = await Promise.all([schemaOf(owner), schemaOf(application)]);
  if (theirs !== null && theirs !== ours) throw new MigrationUrlError('schema (search_path)');
}

/**
 * Applies the migrations that are missing, and raises the walls: between tenants, and around the role of the server
 * where the tables belong to another. Several processes may start at once.
 *
 * @throws {DatabaseUnreachableError} a server cannot be reached; one that refuses us is the driver's own error.
 * @throws {MigrationUrlError} the two URLs lead to different places.
 * @throws {MigrationLockLostError} somebody ended the connection that held the lock.
 */
export async function prepareDatabase({
  connectionString,
  migrationUrl,
  rowLevelSecurity,
}: StartOptions): Promise<void> {
  const owner = openStartPool(migrationUrl ?? connectionString);
  const application = migrationUrl === null ? null : openStartPool(connectionString);
  try {
    if (application !== null) await connect(application, 'DATABASE_URL');
    await connect(owner, migrationUrl === null ? 'DATABASE_URL' : 'LATCHKEY_MIGRATION_DATABASE_URL');
    await prepare(owner, application, rowLevelSecurity);
  } finally {
    await Promise.all([owner.end(), application?.end()]);
  }
}
