import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Keeps a file equal to the state. */
export interface Store {
  /** Notes that the state differs from the file, and has it saved soon. */
  changed(): void;
  /** Resolves when every change noted so far is in the file. Callers that wait at the same time share one write. */
  flush(): Promise<void>;
}

/** The text saved at `path`, or null when there is none. */
export async function readSaved(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

/**
 * Saves `snapshot()` at `path` whenever it changed, readable by its owner alone. A reader sees the old file or the new
 * one, never a part: the text goes to a temporary file that is renamed. Without a path nothing is ever written. A
 * failed write goes to `onError` and to those who wait in `flush`; the next change tries again.
 */
export function createStore(
  path: string | undefined,
  { snapshot, onError }: { snapshot: () => string; onError: (error: unknown) => void },
): Store {
  let dirty = false;
  let last: Promise<void> = Promise.resolve();
  let waiting: Promise<void> | null = null;

  async function write(target: string): Promise<void> {
    await mkdir(dirname(target), { recursive: true, mode: 0o700 });
    const temporary = `${target}.${process.pid}.tmp`;
    await writeFile(temporary, snapshot(), { mode: 0o600 });
    await rename(temporary, target);
  }

  function flush(): Promise<void> {
    if (path === undefined || (!dirty && waiting === null)) return last;
    if (waiting !== null) return waiting;
    const begin = async (): Promise<void> => {
      waiting = null;
      dirty = false;
      try {
        await write(path);
      } catch (error) {
        dirty = true;
        throw error;
      }
    };
    waiting = last.then(begin, begin);
    last = waiting;
    return waiting;
  }

  return {
    flush,
    changed: () => {
      if (!dirty) setImmediate(() => void flush().catch(onError));
      dirty = true;
    },
  };
}
