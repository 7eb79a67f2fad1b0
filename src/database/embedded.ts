import { PGlite } from '@electric-sql/pglite';
import { PrismaPGlite } from 'pglite-prisma-adapter';
import { PrismaClient } from '../generated/prisma/client.js';
import type { Database, Sql, SqlStatement } from './database.js';
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

async function wrap(pglite: PGlite, release: () => Promise<void>): Promise<Database> {
  const adapter = new PrismaPGlite(pglite);
  await applyMigrations(adapter);
  const prisma = new PrismaClient({ adapter });
  return {
    kind: 'embedded',
    prisma,
    query: runWith(pglite).query,
    transaction: (run) => pglite.transaction((tx) => run(runWith(tx as unknown as PGlite))),
    pool: () => null,
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
    return await wrap(await PGlite.create(`${folder}/database`), lock.release);
  } catch (error) {
    await lock.release();
    throw error;
  }
}

/** Opens an embedded database in memory: gone when closed. Holds what `dump` (from `dumpDataDir`) had, if given. */
export async function openInMemory(dump?: Blob): Promise<Database> {
  const pglite = await PGlite.create(dump === undefined ? {} : { loadDataDir: dump });
  return wrap(pglite, async () => undefined);
}
