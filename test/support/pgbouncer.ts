import { existsSync } from 'node:fs';
import { chown, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { isListening, startChild } from './child.js';
import { freePort } from './free-port.js';

const PLACES = ['/usr/sbin/pgbouncer', '/usr/bin/pgbouncer', '/usr/local/bin/pgbouncer', '/opt/homebrew/bin/pgbouncer'];

/** PgBouncer refuses to run as root, as PostgreSQL does. */
const NOBODY = 65_534;

function findPgbouncer(): string {
  const found = PLACES.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new Error('The pooler test needs PgBouncer: install it (apt-get install pgbouncer).');
}

/** Whatever the documented file says, but for names, places and sizes that only a deployment has. */
async function documentedFile(options: { folder: string; port: number; server: URL; poolSize: number }) {
  const { folder, port, server, poolSize } = options;
  const text = await readFile(new URL('../../docs/operations/pgbouncer.ini', import.meta.url), 'utf8');
  const password = server.password === '' ? '' : ` password=${decodeURIComponent(server.password)}`;
  const changes: [string | RegExp, string][] = [
    // Any database of the server.
    [/^latchkey = .*$/m, `* = host=${server.hostname} port=${server.port || '5432'}${password}`],
    ['listen_addr = 0.0.0.0', 'listen_addr = 127.0.0.1'],
    ['listen_port = 6432', `listen_port = ${port}\nunix_socket_dir =`],
    ['auth_type = scram-sha-256', 'auth_type = trust'],
    ['auth_file = /etc/pgbouncer/userlist.txt', `auth_file = ${folder}/users.txt`],
    ['default_pool_size = 20', `default_pool_size = ${poolSize}`],
  ];
  return changes.reduce((file, [from, to]) => {
    const changed = file.replace(from, to);
    if (changed === file) throw new Error(`docs/operations/pgbouncer.ini has no ${from} any more.`);
    return changed;
  }, text);
}

export interface Pgbouncer {
  /** The same database and role, through the pooler. */
  through(url: string): string;
  stop(): Promise<void>;
}

/**
 * Runs PgBouncer with the documented file, in transaction mode, before the server of `url`.
 *
 * @param users who may come; nobody is asked for a password.
 * @param poolSize connections to the server for each role and database.
 */
export async function startPgbouncer(options: {
  url: string;
  users: readonly string[];
  poolSize: number;
}): Promise<Pgbouncer> {
  const { users, poolSize } = options;
  const port = await freePort();
  // Not below a folder of this user's, which the other one could not enter.
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-pgbouncer-'));
  const file = await documentedFile({ folder, port, server: new URL(options.url), poolSize });
  await writeFile(join(folder, 'pgbouncer.ini'), file);
  await writeFile(join(folder, 'users.txt'), users.map((name) => `"${name}" ""\n`).join(''));
  const user: { uid?: number; gid?: number } = {};
  if (process.getuid?.() === 0) {
    await chown(folder, NOBODY, NOBODY);
    user.uid = NOBODY;
    user.gid = NOBODY;
  }
  const child = startChild('pgbouncer', findPgbouncer(), [join(folder, 'pgbouncer.ini')], user);
  await child.until(() => isListening(port));
  return {
    through: (url) => {
      const pooled = new URL(url);
      pooled.hostname = '127.0.0.1';
      pooled.port = String(port);
      return pooled.href;
    },
    stop: async () => {
      await child.end('SIGQUIT');
      await rm(folder, { recursive: true, force: true });
    },
  };
}
