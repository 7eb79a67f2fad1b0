import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { LISTENING, startChild, type Child } from '../support/child.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** The steps of a refresh at which a process can be ended or frozen; `kill-at.mjs` knows where they are met. */
export type Point = 'leased' | 'sent' | 'headers' | 'answered' | 'spooled' | 'committing' | 'committed';

export interface SpawnOptions {
  settings: Record<string, string>;
  /** The process sends itself `signal` (SIGKILL) when it meets the point. */
  at?: { point: Point; signal?: 'SIGKILL' | 'SIGSTOP' };
  /** SIGUSR2 blocks the event loop for so long. */
  blockMs?: number;
  /** Files beside this one that are loaded before the server. */
  preloads?: readonly string[];
  /** Of Node. */
  flags?: readonly string[];
  /** Another build than this one. */
  folder?: string;
}

/** The built server in a process of its own. */
export interface ServerProcess extends Pick<Child, 'pid' | 'output' | 'exited' | 'isRunning' | 'signal'> {
  /** Where it listens; rejects if it ends before it does. */
  readonly listening: Promise<string>;
  /** How it ended by itself, if it did: neither killed nor with 0. */
  crash(): string | null;
}

const preload = (file: string): string[] => ['--import', new URL(file, import.meta.url).href];

/** Starts `dist/main.js` with these settings and nothing of this process's environment. */
export function spawnServer({
  settings,
  at,
  blockMs,
  preloads = [],
  flags = [],
  folder = ROOT,
}: SpawnOptions): ServerProcess {
  const child = startChild(
    'The server',
    process.execPath,
    [
      ...flags,
      ...preloads.flatMap(preload),
      ...(at === undefined ? [] : preload('kill-at.mjs')),
      ...(blockMs === undefined ? [] : preload('block-loop.mjs')),
      'dist/main.js',
    ],
    {
      cwd: folder,
      env: {
        PATH: process.env['PATH'],
        HOME: process.env['HOME'],
        ...settings,
        ...(at === undefined ? {} : { LATCHKEY_CHAOS_AT: at.point, LATCHKEY_CHAOS_SIGNAL: at.signal ?? 'SIGKILL' }),
        ...(blockMs === undefined ? {} : { LATCHKEY_CHAOS_BLOCK_MS: String(blockMs) }),
      },
    },
  );
  let crash: string | null = null;
  void child.exited.then(({ code }) => {
    if (code !== null && code !== 0)
      crash = `process ${child.pid} ended by itself with ${code}: ${causeIn(child.output())}`;
  });
  const listening = child.tells(LISTENING);
  // Whoever waits for it hears of it; who expects the end does not wait.
  listening.catch(() => undefined);
  return { ...child, listening, crash: () => crash };
}

/** The first line about an error that is no line of the log. */
const causeIn = (output: string): string =>
  output.split('\n').find((line) => !line.startsWith('{') && /error/i.test(line)) ?? 'it did not say why';

const run = promisify(execFile);

/** Whether the process stands still after a SIGSTOP. */
export async function isStopped({ pid }: Pick<ServerProcess, 'pid'>): Promise<boolean> {
  const { stdout } = await run('ps', ['-o', 'state=', '-p', String(pid)]);
  return stdout.trim().startsWith('T');
}
