import { access, constants } from 'node:fs/promises';
import type pg from 'pg';
import sql from 'sql-template-tag';
import type { Config } from '../config.js';
import type { Sql } from '../database/database.js';
import { FolderLockedError, lockFolder } from '../database/folder-lock.js';
import { migrationNames } from '../database/migrate.js';
import { readIdentity } from '../database/postgres-identity.js';
import { deploymentNames, findMismatch, readDeployment } from '../domain/deployment.js';
import type { RootKeyProvider } from '../vault/root-key.js';
import { lookAt } from './doctor-connection.js';
import { examineMigrationRole, examineRole } from './doctor-database-role.js';
import { failed, type Finding, passed, warned } from './doctor-finding.js';

const OLDEST_SERVER = 130_000;
const CLOCK_WARN_SECONDS = 2;
const CLOCK_FAIL_SECONDS = 30;

/** Reads only: nothing is migrated, claimed or locked for longer than a look. */
export function findDatabaseTroubles(config: Config, rootKeys: RootKeyProvider | null): Promise<Finding[]> {
  const { databaseUrl } = config;
  return databaseUrl === null ? examineFolder(config) : examineServer(databaseUrl, config, rootKeys);
}

async function examineFolder({ dataDir }: Config): Promise<Finding[]> {
  const hint = 'The embedded database is for one process and for development: set DATABASE_URL for production.';
  try {
    const isThere = await access(dataDir, constants.W_OK).then(
      () => true,
      (error: NodeJS.ErrnoException) => {
        if (error.code === 'ENOENT') return false;
        throw error;
      },
    );
    if (!isThere) return [warned('database', `embedded; the first start makes ${dataDir}`, hint)];
    await (await lockFolder(dataDir)).release();
    return [warned('database', `embedded, in ${dataDir}`, hint)];
  } catch (error) {
    if (error instanceof FolderLockedError)
      return [warned('database', `embedded, in use by a server (${dataDir})`, hint)];
    const { code = 'an unknown failure' } = error as NodeJS.ErrnoException;
    return [
      failed(
        'database',
        `${dataDir} cannot be used: ${code}`,
        'Set LATCHKEY_DATA_DIR to a folder that can be written.',
      ),
    ];
  }
}

const examineServer = (url: string, config: Config, rootKeys: RootKeyProvider | null): Promise<Finding[]> =>
  lookAt(url, 'DATABASE_URL', async (db, client) => {
    const clock = await examineClock(db);
    const roles = [await examineRole(db, config), ...(await examineMigrationRole(db, config))];
    return [await examineService(db), ...roles, ...(await examineContent(db, client, config, rootKeys)), clock];
  });

async function examineService(db: Sql): Promise<Finding> {
  const [server] = await db.query<{ version: string; number: number; readOnly: string }>(sql`
    SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
      current_setting('transaction_read_only') AS "readOnly"`);
  const detail = `PostgreSQL ${server?.version}`;
  if (server?.readOnly === 'on') {
    return failed('database', `${detail}, read-only`, 'Point DATABASE_URL at the primary, not at a replica.');
  }
  if ((server?.number ?? 0) < OLDEST_SERVER) return failed('database', detail, 'Use PostgreSQL 13 or later.');
  return passed('database', detail);
}

/** A fresh database has no tables, and gets them at the first start. */
async function examineContent(
  db: Sql,
  client: pg.Client,
  config: Config,
  rootKeys: RootKeyProvider | null,
): Promise<Finding[]> {
  const [tables] = await db.query<{ present: string | null }>(sql`
    SELECT to_regclass('_prisma_migrations')::text AS present`);
  if (tables?.present === null || tables === undefined) {
    return [warned('migrations', 'none applied yet', 'The first start of a server applies them.')];
  }
  const names = await migrationNames();
  const applied = await db.query<{ name: string; done: boolean }>(sql`
    SELECT migration_name AS name, finished_at IS NOT NULL AS done FROM _prisma_migrations WHERE rolled_back_at IS NULL`);
  const broken = applied.find(({ done }) => !done);
  if (broken !== undefined) {
    const remedy = 'See docs/operations.md about migrations; restore the backup from before the upgrade if in doubt.';
    return [failed('migrations', `${broken.name} was begun and not finished`, remedy)];
  }
  const missing = names.filter((name) => !applied.some((row) => row.name === name));
  if (missing.length > 0) {
    const remedy = 'Start a server of this version, which applies them, or run the version that the database is of.';
    return [failed('migrations', `${missing.length} missing, the first is ${missing[0]}`, remedy)];
  }
  const migrations = passed('migrations', `${names.length} applied`);
  return [migrations, ...(await examineRootKeys(db, rootKeys)), await examineDeployment(db, client, config)];
}

async function examineRootKeys(db: Sql, rootKeys: RootKeyProvider | null): Promise<Finding[]> {
  if (rootKeys === null) return [];
  const given = await rootKeys.describe();
  const used = await db.query<{ id: string }>(sql`SELECT DISTINCT root_key_id AS id FROM tenant_key ORDER BY id`);
  const missing = used.filter(({ id }) => !given.some((key) => key.id === id)).map(({ id }) => id);
  if (missing.length === 0) return [passed('root key', 'opens every key of the database')];
  const remedy = `Give the root key of fingerprint ${missing.join(', ')}, behind a newer one where there is one.`;
  return [failed('root key', `the database needs another: ${missing.join(', ')}`, remedy)];
}

async function examineDeployment(db: Sql, client: pg.Client, config: Config): Promise<Finding> {
  const row = await readDeployment(db);
  if (row === undefined) return passed('deployment', 'the database belongs to none yet');
  const mismatch = findMismatch(row, { ...deploymentNames(config), database: await readIdentity(client) });
  if (mismatch === null) return passed('deployment', 'the database is of this one');
  const who = mismatch === 'other_database' ? 'the database was copied or restored' : 'the database is of another one';
  const remedy = 'Make sure that no other deployment uses these connections any more, then: latchkey adopt';
  return failed('deployment', `quarantine: ${who}`, remedy);
}

async function examineClock(db: Sql): Promise<Finding> {
  const before = Date.now();
  const [row] = await db.query<{ now: Date }>(sql`SELECT clock_timestamp() AS now`);
  const middle = (before + Date.now()) / 2;
  const seconds = Math.abs(middle - (row?.now.getTime() ?? 0)) / 1_000;
  const detail = `${seconds.toFixed(1)} s from the database's`;
  const remedy = 'Synchronize the clocks of both machines (chrony, systemd-timesyncd).';
  if (seconds > CLOCK_FAIL_SECONDS) return failed('clock', detail, remedy);
  return seconds > CLOCK_WARN_SECONDS ? warned('clock', detail, remedy) : passed('clock', detail);
}
