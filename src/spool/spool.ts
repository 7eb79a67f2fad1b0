import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.js';
import { encodeEntries, parseEntries, type SpoolEntry } from './spool-file.js';

export type { SpoolEntry };

const WRITTEN = '.spool';
const UNFINISHED = '.tmp';
const DAMAGED = '.damaged';
/** A file of another process is left to it for so long: it is most likely still at it. */
const FOREIGN_AGE_MS = 60_000;
const MAX_BATCH = 200;

/** An entry in hand. Exactly one of its ends must be called, once. */
export interface Spooled {
  readonly entry: SpoolEntry;
  /** Whether it would outlive this process. */
  readonly isDurable: boolean;
  /** The entry is stored elsewhere, or worth nothing any more. */
  settle(): void;
  /** It cannot be settled yet: `unsettled` gives it out again. */
  postpone(): void;
}

/**
 * A place on this machine's own disk for what was received and is not in the database yet. Entries are sealed by who
 * puts them in; only ids are readable.
 *
 * Entries that arrive together share one file: written, synced, renamed, and the folder synced, so a file with the
 * right name is whole whatever happens. A disk that fails is told in the log and holds nothing up: entries are then kept
 * in memory alone. Several processes may share a folder.
 */
export interface Spool {
  /** Resolves when the entry is on the disk, or cannot be put there. Never rejects. */
  keep(entry: SpoolEntry): Promise<Spooled>;
  /**
   * Entries that nobody is at: postponed ones, those of processes that have ended, and with `all` those of others that
   * may still be running.
   */
  unsettled(options?: { all?: boolean }): Promise<Spooled[]>;
}

interface Batch {
  file: string | null;
  open: number;
}

/** @param folder made when it is first needed; null: entries are kept in memory only. */
export function createSpool({ folder, log }: { folder: string | null; log: Log }): Spool {
  const gathering: { entry: SpoolEntry; resolve: (spooled: Spooled) => void }[] = [];
  let writing = false;
  const own = new Set<string>();
  const postponed = new Set<Spooled>();

  const complain = (message: string, error: unknown) =>
    log.error(message, { job: 'spool', code: (error as NodeJS.ErrnoException).code ?? 'unknown' });

  async function discard(batch: Batch): Promise<void> {
    const { file } = batch;
    if (folder === null || file === null) return;
    try {
      await rm(join(folder, file), { force: true });
    } catch (error) {
      complain('a spool file could not be removed', error);
    }
    own.delete(file);
  }

  function spooled(batch: Batch, entry: SpoolEntry): Spooled {
    const self: Spooled = {
      entry,
      isDurable: batch.file !== null,
      settle: () => {
        postponed.delete(self);
        batch.open -= 1;
        if (batch.open === 0) void discard(batch);
      },
      postpone: () => void postponed.add(self),
    };
    return self;
  }

  async function write(entries: readonly SpoolEntry[]): Promise<string | null> {
    if (folder === null) return null;
    const name = `${Date.now()}-${process.pid}-${randomUUID()}`;
    const finished = `${name}${WRITTEN}`;
    const unfinished = join(folder, `${name}${UNFINISHED}`);
    try {
      await mkdir(folder, { recursive: true, mode: 0o700 });
      const file = await open(unfinished, 'wx', 0o600);
      try {
        await file.writeFile(encodeEntries(entries));
        await file.datasync();
      } finally {
        await file.close();
      }
      own.add(finished);
      await rename(unfinished, join(folder, finished));
      await syncFolder(folder);
      return finished;
    } catch (error) {
      complain('tokens could not be written to the spool and are kept in memory until the database has them', error);
      // Where not even this works, a later start finds the file and settles it once more, which changes nothing.
      for (const file of [unfinished, join(folder, finished)]) await rm(file, { force: true }).catch(() => undefined);
      own.delete(finished);
      return null;
    }
  }

  async function flush(): Promise<void> {
    writing = true;
    while (gathering.length > 0) {
      const batch = gathering.splice(0, MAX_BATCH);
      const file = await write(batch.map(({ entry }) => entry));
      const shared: Batch = { file, open: batch.length };
      for (const { entry, resolve } of batch) resolve(spooled(shared, entry));
    }
    writing = false;
  }

  async function read(path: string): Promise<SpoolEntry[]> {
    const entries = parseEntries(await readFile(path, 'utf8'));
    if (entries !== null) return entries;
    log.error('a spool file is damaged and was put aside', { job: 'spool' });
    await rename(path, `${path}${DAMAGED}`);
    return [];
  }

  async function left(all: boolean): Promise<Spooled[]> {
    if (folder === null) return [];
    const found: Spooled[] = [];
    const files = await readdir(folder).catch((error: unknown) => {
      if (!isAbsent(error)) complain('the spool could not be read', error);
      return [];
    });
    for (const file of files) {
      const path = join(folder, file);
      try {
        const ageMs = Date.now() - (await stat(path)).mtimeMs;
        if (own.has(file) || (!all && ageMs < FOREIGN_AGE_MS)) continue;
        if (file.endsWith(UNFINISHED)) {
          if (ageMs >= FOREIGN_AGE_MS) await rm(path, { force: true });
        } else if (file.endsWith(WRITTEN)) {
          const entries = await read(path);
          own.add(file);
          const batch: Batch = { file, open: entries.length };
          if (entries.length === 0) own.delete(file);
          found.push(...entries.map((entry) => spooled(batch, entry)));
        }
      } catch (error) {
        // Another process has settled it meanwhile.
        if (!isAbsent(error)) complain('a spool file could not be read', error);
      }
    }
    return found;
  }

  return {
    keep: (entry) =>
      new Promise((resolve) => {
        gathering.push({ entry, resolve });
        if (!writing) void flush();
      }),
    unsettled: async ({ all = false } = {}) => {
      const waiting = [...postponed];
      postponed.clear();
      return [...waiting, ...(await left(all))];
    },
  };
}

const isAbsent = (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** So that the new name outlives a crash of the machine, too. */
async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
