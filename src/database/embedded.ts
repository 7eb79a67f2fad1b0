import { realpath, stat } from 'node:fs/promises';
import { PGlite } from '@electric-sql/pglite';
import { PrismaPGlite } from 'pglite-prisma-adapter';
import { PrismaClient } from '../generated/prisma/client.js';
import { busy } from './connection-shares.js';
import type { Database, DatabaseIdentity, Sql, SqlStatement } from './database.js';
import { lockFolder } from './folder-lock.js';
import { applyMigrations } from './migrate.js';
import { createTenantAccess } from './tenant-access.js';
import type { TenantConnection } from './tenant-reads.js';
import { bindRowsToTenants } from './tenant-rows.js';
import { beginFor, raiseTenantWall, type RunText } from './tenant-wall.js';

const INT8_OID = 20;
const parsers = { [INT8_OID]: Number };

function runWith(client: Pick<PGlite, 'query'>): Sql {
  return {
    query: async <Row>(statement: SqlStatement): Promise<Row[]> => {
      const { rows } = await client.query<Row>(statement.text, statement.values as unknown[], { parsers });
      return rows;
    },
  };
}

/** A folder keeps its number when it is moved, and its place when a file system numbers its files anew. */
export async function readFolderIdentity(path: string): Promise<DatabaseIdentity> {
  const [{ ino }, real] = await Promise.all([stat(path, { bigint: true }), realpath(path)]);
  return { kind: 'embedded', path: real, inode: String(ino) };
}

/** The embedded build has its own way to begin: what follows `BEGIN` makes the transaction the tenant's. */
const settingsFor = (tenantId: string) => beginFor(tenantId, 'READ WRITE').replace(/^BEGIN [A-Z ]+; /, '');

function beginRead(pglite: PGlite, tenantId: string): Promise<TenantConnection<PGlite>> {
  return new Promise((resolve, reject) => {
    const done = pglite.transaction(async (tx) => {
      await tx.exec(`SET TRANSACTION READ ONLY; ${settingsFor(tenantId)}`);
      const failure = await new Promise((end) => {
        resolve({
          client: tx as unknown as PGlite,
          end: async (reason) => {
            end(reason);
            await done.catch(() => undefined);
          },
        });
      });
      if (failure !== undefined) throw new Error('A statement failed.', { cause: failure });
    });
    done.catch(reject);
  });
}

/** The embedded database as Prisma's adapter takes it, whose statements go elsewhere. */
const standIn = (pglite: PGlite, query: (...statement: unknown[]) => Promise<unknown>): PGlite =>
  new Proxy(pglite, { get: (target, name) => (name === 'query' ? query : (Reflect.get(target, name) as unknown)) });

/** Applies the migrations that are missing, and raises the wall between tenants. */
export async function prepare(pglite: PGlite): Promise<void> {
  await applyMigrations(new PrismaPGlite(pglite));
  // What types there are was read when the database was opened.
  await pglite.refreshArrayTypes();
  const run: RunText = async (text, values) => {
    if (values !== undefined) return (await pglite.query<Record<string, unknown>>(text, values)).rows;
    return (await pglite.exec(text)).at(-1)?.rows ?? [];
  };
  await bindRowsToTenants(run);
  await raiseTenantWall(run);
}

async function wrap(pglite: PGlite, identity: Database['identity'], release: () => Promise<void>): Promise<Database> {
  await prepare(pglite);
  const prisma = new PrismaClient({ adapter: new PrismaPGlite(pglite) });
  const tenants = createTenantAccess<PGlite>({
    begin: (tenantId) => beginRead(pglite, tenantId),
    isWaitedFor: () => false,
    refuse: busy,
    maxSessions: 1,
    patienceMs: Number.POSITIVE_INFINITY,
    sqlOf: runWith,
    openPrisma: (query) => new PrismaClient({ adapter: new PrismaPGlite(standIn(pglite, query)) }),
    transaction: (tenantId, run) =>
      pglite.transaction(async (tx) => {
        await tx.exec(settingsFor(tenantId));
        return run(runWith(tx as unknown as PGlite));
      }),
  });
  return {
    kind: 'embedded',
    prisma,
    query: runWith(pglite).query,
    transaction: (run) => pglite.transaction((tx) => run(runWith(tx as unknown as PGlite))),
    tenant: tenants.of,
    // There is one connection, and everybody waits for it in the order in which they came.
    shareOf(this: Database): Database {
      return this;
    },
    pool: () => null,
    identity,
    close: async () => {
      await Promise.all([prisma.$disconnect(), tenants.close()]);
      if (!pglite.closed) await pglite.close();
      await release();
    },
  };
}

/**
 * Opens the embedded database in `folder`, made if it is not there, and applies the migrations it lacks.
 *
 * Committed data survives the death of the process, not the loss of power: the embedded build does not fsync. One
 * process at a time; the folder is locked for as long as it lives.
 *
 * @throws {FolderLockedError} another process has the folder open.
 */
export async function openEmbedded(folder: string): Promise<Database> {
  const lock = await lockFolder(folder);
  try {
    const path = `${folder}/database`;
    const pglite = await PGlite.create(path);
    const identity = await readFolderIdentity(path);
    return await wrap(pglite, async () => identity, lock.release);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** Opens an embedded database in memory: gone when closed. Holds what `dump` (from `dumpDataDir`) had, if given. */
export async function openInMemory(dump?: Blob): Promise<Database> {
  const pglite = await PGlite.create(dump === undefined ? {} : { loadDataDir: dump });
  return wrap(
    pglite,
    async () => null,
    async () => undefined,
  );
}
