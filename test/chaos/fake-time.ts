import { existsSync } from 'node:fs';
import { chmod, mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { StartOptions } from './stage.js';

/** Where Debian has it, by architecture. */
const LIBRARY = ['x86_64', 'aarch64']
  .map((architecture) => `/usr/lib/${architecture}-linux-gnu/faketime/libfaketime.so.1`)
  .find((path) => existsSync(path));

export const hasFakeTime = LIBRARY !== undefined;

/** A clock that can be put wrong, for one process. */
export interface WrongClock {
  /** For a program that knows nothing of it; null where libfaketime is not installed. */
  env: Record<string, string> | null;
  /** For a server: by libfaketime, else by a `Date` of our own. */
  options: StartOptions;
  /** Jumps; noticed within a second. */
  set(offsetSeconds: number): Promise<void>;
}

export async function createWrongClock(offsetSeconds = 0): Promise<WrongClock> {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-chaos-clock-'));
  // PostgreSQL runs as somebody else.
  await chmod(folder, 0o755);
  const file = join(folder, 'offset');
  const set = (seconds: number) => writeFile(file, `${seconds < 0 ? '' : '+'}${seconds}\n`, { mode: 0o644 });
  await set(offsetSeconds);
  const env =
    LIBRARY === undefined
      ? null
      : {
          LD_PRELOAD: LIBRARY,
          FAKETIME_TIMESTAMP_FILE: file,
          FAKETIME_CACHE_DURATION: '1',
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
          DONT_FAKE_MONOTONIC: '1',
        };
  return {
    env,
    options:
      env === null
        ? { settings: { LATCHKEY_CHAOS_CLOCK: file }, preloads: ['shift-clock.mjs'] }
        : { settings: { ...env } },
    set,
  };
}
