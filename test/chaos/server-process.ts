import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

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
export interface ServerProcess {
  readonly pid: number;
  /** Everything it wrote so far. */
  output(): string;
  /** Where it listens; rejects if it ends before it does. */
  readonly listening: Promise<string>;
  readonly exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  isRunning(): boolean;
  /** How it ended by itself, if it did: neither killed nor with 0. */
  crash(): string | null;
  signal(signal: NodeJS.Signals): void;
}

const running = new Set<ServerProcess>();

process.once('exit', () => {
  for (const server of running) server.signal('SIGKILL');
});

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
  const child = spawn(
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
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  );
  let output = '';
  let isRunning = true;
  let crash: string | null = null;
  const exited: ServerProcess['exited'] = new Promise((resolve) => {
    child.once('exit', () => {
      isRunning = false;
    });
    child.once('close', (code, signal) => {
      if (code !== null && code !== 0) crash = `process ${child.pid} ended by itself with ${code}: ${causeIn(output)}`;
      resolve({ code, signal });
    });
  });
  const listening = new Promise<string>((resolve, reject) => {
    const read = (chunk: Buffer): void => {
      output += chunk.toString('utf8');
      const url = /"url":"([^"]+)".*"msg":"listening"/.exec(output)?.[1];
      if (url !== undefined) resolve(url);
    };
    child.stdout.on('data', read);
    child.stderr.on('data', read);
    void exited.then(({ code, signal }) => reject(new Error(`The server ended (${code ?? signal}):\n${output}`)));
  });
  // Whoever waits for it hears of it; who expects the end does not wait.
  listening.catch(() => undefined);
  const server: ServerProcess = {
    pid: child.pid ?? 0,
    output: () => output,
    listening,
    exited,
    isRunning: () => isRunning,
    crash: () => crash,
    signal: (signal) => void child.kill(signal),
  };
  running.add(server);
  void exited.then(() => running.delete(server));
  return server;
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
