import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { afterAll } from 'vitest';
import { startChild, type Child } from './child.js';
import { freePort } from './free-port.js';

/** The program of `redis-check-rdb` is the server's own, which goes by the name that it is started with. */
const PLACES = ['redis-server', 'valkey-server', 'redis-check-rdb'].flatMap((name) =>
  ['/usr/bin', '/usr/local/bin', '/opt/homebrew/bin'].map((folder) => join(folder, name)),
);

function findRedis(): string {
  const found = PLACES.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new Error('The tests of signals between processes need Redis: install it (apt-get install redis-tools).');
}

/** A Redis on a port of its own, which keeps nothing. */
export interface TestRedis {
  url: string;
  /** Runs a command, on a connection of its own. */
  command(name: string, ...args: string[]): Promise<unknown>;
  stop(): Promise<void>;
  /** Again, at the same place. */
  start(): Promise<void>;
}

export async function startRedis(): Promise<TestRedis> {
  const port = await freePort();
  const url = `redis://127.0.0.1:${port}`;
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-redis-'));
  let child: Child | null = null;

  async function command(name: string, ...args: string[]): Promise<unknown> {
    const client = new Redis(url, { lazyConnect: true, retryStrategy: () => null, connectTimeout: 1_000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await client.call(name, ...args);
    } finally {
      client.disconnect();
    }
  }

  async function start(): Promise<void> {
    const options = {
      port: String(port),
      bind: '127.0.0.1',
      save: '',
      appendonly: 'no',
      'enable-debug-command': 'yes',
    };
    const args = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value]);
    child = startChild('Redis', findRedis(), args, { cwd: folder, argv0: 'redis-server' });
    await child.until(() =>
      command('PING').then(
        () => true,
        () => false,
      ),
    );
  }

  async function stop(): Promise<void> {
    await child?.end('SIGKILL');
    child = null;
  }

  await start();
  afterAll(async () => {
    await stop();
    await rm(folder, { recursive: true, force: true });
  });
  return { url, command, stop, start };
}
