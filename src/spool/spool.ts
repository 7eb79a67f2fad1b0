import { randomUUID } from 'node:crypto';
import { mkdir, open, readdir, readFile, rename, rm, stat, unlink, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../log.js';
import { decodeFile, encodeEntries, encodeFile, parseEntries, type SpoolEntry } from './spool-file.js';

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

/** Seals the content of the file of this name. */
export type FileSeal = (file: string, content: string) => Uint8Array;

/** Keeps the files from being read or made by anybody else. */
export interface SpoolCipher {
  /** What seals from now on without asking anybody. */
  sealer(): Promise<FileSeal>;
  /** @returns null for what was not sealed for a file of this name. Rejects where that cannot be told now. */
  open(file: string, sealed: Uint8Array): Promise<string | null>;
}

/** Resolves when the entry is on the disk, or cannot be put there. Never rejects. */
export type Keep = (entry: SpoolEntry) => Promise<Spooled>;

/**
 * A place on this machine's own disk for what was received and is not in the database yet.
 *
 * Entries that arrive together share one file and its seal: written, synced, renamed, and the folder synced, so a file
 * with the right name is whole whatever happens. A disk that fails is told in the log and holds nothing up: entries are then kept
 * in memory alone. Several processes may share a folder.
 */
export interface Spool {
  /**
   * What keeps an entry, whatever becomes of the database: get it before the entry's content is asked for.
   *
   * @throws what the cipher throws that has no key at hand.
   */
  prepare(): Promise<Keep>;
  /**
   * Entries that nobody is at: postponed ones, those of processes that have ended, and with `all` those of others that
   * may still be running.
   */
  unsettled(options?: { all?: boolean }): Promise<Spooled[]>;
  /** Entries that could not be settled and wait to be given out again. */
  postponed(): number;
}

interface Batch {
  file: string | null;
  open: number;
}

/** @param disk its folder is made when it is first needed; null: entries are kept in memory only. */
export function createSpool({ disk, log }: { disk: { folder: string; cipher: SpoolCipher } | null; log: Log }): Spool {
  const folder = disk?.folder ?? null;
  const gathering: { entry: SpoolEntry; seal: FileSeal | null; resolve: (spooled: Spooled) => void }[] = [];
  let writing = false;
  const own = new Set<string>();
  const postponed = new Set<Spooled>();

  const complain = (message: string, error: unknown) =>
    log.error(message, { job: 'spool', code: (error as NodeJS.ErrnoException).code ?? 'unknown' });

  async function discard(batch: Batch): Promise<void> {
    const { file } = batch;
    if (folder === null || file === null) return;
    try {
      await unlink(join(folder, file));
    } catch (error) {
      if (!isAbsent(error)) complain('a spool file could not be removed', error);
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

  async function write(seal: FileSeal | null, entries: readonly SpoolEntry[]): Promise<string | null> {
    if (folder === null || seal === null) return null;
    const name = `${Date.now()}-${process.pid}-${randomUUID()}`;
    const finished = `${name}${WRITTEN}`;
    const unfinished = join(folder, `${name}${UNFINISHED}`);
    try {
      const file = await create(unfinished, folder);
      const directory = open(folder, 'r');
      // Awaited only once the file is synced; until then a failure must not count as one that nobody handles.
      directory.catch(() => undefined);
      try {
        await file.writeFile(encodeFile(seal(finished, encodeEntries(entries))));
        await file.datasync();
        own.add(finished);
        await rename(unfinished, join(folder, finished));
        // So that the new name outlives a crash of the machine, too.
        await (await directory).sync();
      } finally {
        // Nobody waits for this: everything is on the disk, or has failed already.
        for (const handle of [file, directory]) void Promise.resolve(handle).then(close, () => undefined);
      }
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
      // The last one's: it is the one most lately got.
      const seal = batch.at(-1)?.seal ?? null;
      const file = await write(
        seal,
        batch.map(({ entry }) => entry),
      );
      const shared: Batch = { file, open: batch.length };
      for (const { entry, resolve } of batch) resolve(spooled(shared, entry));
    }
    writing = false;
  }

  async function read(cipher: SpoolCipher, file: string, path: string): Promise<SpoolEntry[]> {
    const sealed = decodeFile(await readFile(path));
    const content = sealed === null ? null : await cipher.open(file, sealed);
    if (content !== null) return parseEntries(content);
    log.error('a spool file is damaged and was put aside', { job: 'spool' });
    await rename(path, `${path}${DAMAGED}`);
    return [];
  }

  async function left(all: boolean): Promise<Spooled[]> {
    if (disk === null) return [];
    const { folder, cipher } = disk;
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
          const entries = await read(cipher, file, path);
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
    prepare: async () => {
      const seal = disk === null ? null : await disk.cipher.sealer();
      return (entry) =>
        new Promise((resolve) => {
          gathering.push({ entry, seal, resolve });
          if (!writing) void flush();
        });
    },
    postponed: () => postponed.size,
    unsettled: async ({ all = false } = {}) => {
      const waiting = [...postponed];
      postponed.clear();
      return [...waiting, ...(await left(all))];
    },
  };
}

const isAbsent = (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** The folder is only made where it is missing: looking each time would cost every entry a wait. */
async function create(path: string, folder: string): Promise<FileHandle> {
  try {
    return await open(path, 'wx', 0o600);
  } catch (error) {
    if (!isAbsent(error)) throw error;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    return open(path, 'wx', 0o600);
  }
}

const close = (handle: FileHandle): Promise<void> => handle.close().catch(() => undefined);
