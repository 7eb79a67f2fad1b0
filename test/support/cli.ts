import { fileURLToPath } from 'node:url';
import { startChild } from './child.js';
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
  const child = startChild('The command', process.execPath, [...preload, 'dist/cli/main.js', ...args], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], ...onItsWay(env) },
  });
  const done = child.exited.then(({ code }) => {
    const { stdout, stderr } = child.written;
    return { code, stdout, stderr, json: () => JSON.parse(stdout) as unknown };
  });
  return { done, kill: child.signal };
}

export const runCli: (...args: Parameters<typeof startCli>) => Promise<CliResult> = (...args) => startCli(...args).done;

/** For commands that ask a server. */
export const serverEnv = (url: string) => ({ LATCHKEY_URL: url, LATCHKEY_API_KEY: TEST_ADMIN_KEY });
