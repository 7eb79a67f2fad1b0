import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { TEST_ADMIN_KEY } from './server.js';
import { onItsWay } from './way-to-database.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

export interface CliResult {
  code: number | null;
  stdout: string;
  stderr: string;
  /** Standard output as JSON. */
  json(): any;
}

export interface CliRun {
  done: Promise<CliResult>;
  kill(signal: NodeJS.Signals): void;
}

/**
 * Starts the built command line with these settings and nothing of this process's environment.
 *
 * @param given `preload`: JavaScript that runs before it.
 */
export function startCli(args: string[], env: Record<string, string> = {}, given: { preload?: string } = {}): CliRun {
  const preload =
    given.preload === undefined ? [] : ['--import', `data:text/javascript,${encodeURIComponent(given.preload)}`];
  const child = spawn(process.execPath, [...preload, 'dist/cli/main.js', ...args], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...onItsWay(env) },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString('utf8')));
  child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString('utf8')));
  const done = new Promise<CliResult>((resolve) =>
    child.once('close', (code) => resolve({ code, stdout, stderr, json: () => JSON.parse(stdout) as unknown })),
  );
  return { done, kill: (signal) => void child.kill(signal) };
}

export const runCli: (...args: Parameters<typeof startCli>) => Promise<CliResult> = (...args) => startCli(...args).done;

/** For commands that ask a server. */
export const serverEnv = (url: string) => ({ LATCHKEY_URL: url, LATCHKEY_API_KEY: TEST_ADMIN_KEY });
