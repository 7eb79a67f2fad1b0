import { realpath, stat } from 'node:fs/promises';
import { PGlite } from '@electric-sql/pglite';
import { PrismaPGlite } from 'pglite-prisma-adapter';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Database, DatabaseIdentity, Sql, SqlStatement } from './database.js';
import { lockFolder } from './folder-lock.js';
import { applyMigrations } from './migrate.js';

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

async function wrap(pglite: PGlite, identity: Database['identity'], release: () => Promise<void>): Promise<Database> {
  const adapter = new PrismaPGlite(pglite);
  await applyMigrations(adapter);
  const prisma = new PrismaClient({ adapter });
  return {
    kind: 'embedded',
    prisma,
    query: runWith(pglite).query,
    transaction: (run) => pglite.transaction((tx) => run(runWith(tx as unknown as PGlite))),
    pool: () => null,
    identity,
    close: async () => {
      await prisma.$disconnect();
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
