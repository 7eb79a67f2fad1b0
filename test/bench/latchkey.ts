import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import type { Database } from '../../src/database/database.js';
import type * as Postgres from '../../src/database/postgres.js';
import type * as Log from '../../src/log.js';
import type * as RootKey from '../../src/vault/root-key.js';
import type * as Vault from '../../src/vault/vault.js';
import { freePort } from '../support/free-port.js';
import { startServer, type Target } from './measure.js';
import type * as Seed from './seed.js';
import type { SeededUser } from './seed.js';

const run = promisify(execFile);
const QUERY =
  'query Credential($input: CredentialInput!) { credential(input: $input) { __typename ... on Credential { accessToken expiresAt } ... on Error { message } } }';

/** A Latchkey of some version that answers `credential`, with a database of its own. */
export interface LatchkeyUnderTest {
  /** Of the process that serves at the moment. */
  readonly pid: number;
  readonly db: Database;
  readonly databaseUrl: string;
  /** Connects more users. */
  seed(count: number): Promise<SeededUser[]>;
  /** Ends the process and starts another one: what the compiler makes of a program differs from one to the next. */
  restart(): Promise<void>;
  /** Reads the credentials of these users in turn. */
  target(name: string, users: readonly SeededUser[]): Target;
  close(): Promise<void>;
}

/** Runs one statement on the server itself, as for databases. */
export async function administer(clusterUrl: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: clusterUrl });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

/**
 * Starts the built Latchkey of a checkout. What fills its database is the checkout's own code, too, so that versions with
 * other tables can be compared.
 *
 * @param root folder of the checkout.
 */
export async function startLatchkey(root: string, clusterUrl: string): Promise<LatchkeyUnderTest> {
  const from = <T>(file: string) => import(join(root, file)) as Promise<T>;
  const { openPostgres } = await from<typeof Postgres>('src/database/postgres.ts');
  const { createLog } = await from<typeof Log>('src/log.ts');
  const keys = await from<typeof RootKey>('src/vault/root-key.ts');
  const { createVault } = await from<typeof Vault>('src/vault/vault.ts');
  const { seedApp, seedGrants } = await from<typeof Seed>('test/bench/seed.ts');

  const name = `latchkey_bench_${randomBytes(6).toString('hex')}`;
  await administer(clusterUrl, `CREATE DATABASE ${name}`);
  const database = new URL(clusterUrl);
  database.pathname = `/${name}`;
  const databaseUrl = database.href;
  const rootKey = randomBytes(32).toString('base64');
  const adminKey = randomBytes(24).toString('base64url');
  const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
  const vault = createVault({ rootKeys: keys.createLocalRootKeys(keys.parseRootKeys(rootKey, { production: true })) });
  await vault.verify(db);
  await vault.createTenantKey(db, null);
  const appId = await seedApp({ db, vault });
  const port = await freePort();
  const start = () =>
    startServer(
      [...(process.env['BENCH_NODE_FLAGS']?.split(' ') ?? []), join(root, 'dist/main.js')],
      {
        NODE_ENV: 'production',
        DATABASE_URL: databaseUrl,
        LATCHKEY_ROOT_KEY: rootKey,
        LATCHKEY_ADMIN_KEY: adminKey,
        PORT: String(port),
        LATCHKEY_LOG_LEVEL: 'info',
      },
      (line) => (line.includes('"listening"') ? 'ready' : undefined),
    );
  let server = await start();
  async function stop(): Promise<void> {
    const ended = new Promise((resolve) => server.child.once('close', resolve));
    server.child.removeAllListeners('exit');
    server.child.kill('SIGTERM');
    await ended;
  }
  return {
    get pid() {
      return server.pid;
    },
    db,
    databaseUrl,
    seed: async (count) => {
      const users = await seedGrants({ db, vault }, appId, count);
      await db.query({ text: 'ANALYZE', values: [] } as never);
      return users;
    },
    restart: async () => {
      await stop();
      server = await start();
    },
    target: (label, users) => ({
      name: label,
      get pid() {
        return server.pid;
      },
      url: `http://127.0.0.1:${port}`,
      headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
      requests: users.map(({ tenantId, userId }) => ({
        method: 'POST',
        path: '/graphql',
        body: JSON.stringify({ query: QUERY, variables: { input: { tenantId, userId, credentialFor: 'USER' } } }),
      })),
    }),
    close: async () => {
      await stop();
      await db.close();
      await administer(clusterUrl, `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

/** Checks out and builds an earlier version, with its own dependencies. */
export async function checkOut(ref: string, folder: string): Promise<{ remove(): Promise<unknown> }> {
  await run('git', ['worktree', 'add', '--detach', folder, ref]);
  await run(process.execPath, ['scripts/setup.mjs', '--build'], { cwd: folder });
  return { remove: () => run('git', ['worktree', 'remove', '--force', folder]) };
}
