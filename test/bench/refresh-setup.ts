import { fork } from 'node:child_process';
import { createCipheriv, randomBytes, randomUUID } from 'node:crypto';
import { join } from 'node:path';
import pg from 'pg';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault } from '../../src/vault/vault.js';
import { freePort } from '../support/free-port.js';
import { startServer } from './measure.js';
import { bareVariant, productVariant, type Variant } from './refresh-round.js';
import { serialToken } from './refresh-tokens.js';
import { makeToken, seedApp, seedGrants } from './seed.js';

const BATCH = 5_000;

/** Fills a database with connected grants; the refresh tokens have the serial numbers 0 to `count` - 1. */
export async function seedProduct(databaseUrl: string, rootKey: string, count: number): Promise<void> {
  const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent'), queryTimeoutMs: 60_000 });
  const vault = createVault({ rootKeys: createLocalRootKeys(parseRootKeys(rootKey, { production: true })) });
  await vault.verify(db);
  await vault.createTenantKey(db, null);
  await seedGrants({ db, vault }, await seedApp({ db, vault }), count, serialToken);
  await db.close();
}

/** The table of the yardstick: the same tokens under one plain key. */
export async function seedBareTable(db: pg.Client, count: number): Promise<string> {
  const key = randomBytes(32);
  const seal = (text: string) => {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
    return Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]);
  };
  await db.query(`CREATE TABLE bench_bare (id uuid PRIMARY KEY, version int NOT NULL, access bytea NOT NULL,
    refresh bytea NOT NULL, expires_at timestamptz NOT NULL, due_at timestamptz)`);
  for (let first = 0; first < count; first += BATCH) {
    const serials = Array.from({ length: Math.min(BATCH, count - first) }, (_, index) => first + index);
    await db.query(
      `INSERT INTO bench_bare SELECT id, 1, access, refresh, now() + interval '1 hour', NULL
        FROM unnest($1::uuid[], $2::bytea[], $3::bytea[]) AS row(id, access, refresh)`,
      [
        serials.map(() => randomUUID()),
        serials.map(() => seal(makeToken())),
        serials.map((serial) => seal(serialToken(serial))),
      ],
    );
  }
  return key.toString('hex');
}

export interface Endpoint {
  pid: number;
  url: string;
  end(): void;
}

export async function startEndpoint(firstSerial: number): Promise<Endpoint> {
  const { child, pid, value } = await startServer(
    ['--import', 'tsx', new URL('refresh-endpoint.ts', import.meta.url).pathname, String(firstSerial)],
    {},
    (line) => /^listening (\d+)$/.exec(line)?.[1],
  );
  child.removeAllListeners('exit');
  return { pid, url: `http://127.0.0.1:${value}`, end: () => void child.kill() };
}

export interface Running {
  variant: Variant;
  end(): Promise<void>;
}

async function connect(databaseUrl: string): Promise<pg.Client> {
  const db = new pg.Client({ connectionString: databaseUrl });
  await db.connect();
  return db;
}

/** Starts the server on a database of its own. Its log goes to this process's output only where it is an error's. */
export async function startProduct(options: {
  name: string;
  path: string;
  databaseUrl: string;
  rootKey: string;
  folder: string;
  endpoint: Endpoint;
  concurrency: number;
  spool: boolean;
  flags: readonly string[];
}): Promise<Running> {
  const { name, path, databaseUrl, endpoint, concurrency } = options;
  const url = `${endpoint.url}/${path}`;
  const { child, pid } = await startServer(
    [...options.flags, new URL('../../dist/main.js', import.meta.url).pathname],
    {
      NODE_ENV: 'production',
      PORT: String(await freePort()),
      DATABASE_URL: databaseUrl,
      ZOOM_OAUTH_URL: url,
      LATCHKEY_ROLE: 'worker',
      LATCHKEY_ROOT_KEY: options.rootKey,
      LATCHKEY_ADMIN_KEY: randomBytes(24).toString('base64url'),
      LATCHKEY_DATA_DIR: join(options.folder, path),
      LATCHKEY_SPOOL: options.spool ? '1' : '0',
      LATCHKEY_REFRESHES_PER_SECOND: '100000',
      LATCHKEY_REFRESH_CONCURRENCY: String(concurrency),
      LATCHKEY_REFRESHES_PER_TENANT: String(concurrency),
    },
    (line) => {
      if (/"level":(40|50|60|"(warn|error)")/.test(line)) console.log(`${name}: ${line}`);
      return line.includes('"listening"') ? 'ready' : undefined;
    },
  );
  const db = await connect(databaseUrl);
  return {
    variant: productVariant({ name, pid, db, url, endpointPid: endpoint.pid }),
    end: async () => {
      await db.end();
      child.removeAllListeners('exit');
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      await ended;
    },
  };
}

export async function startBare(options: {
  name: string;
  path: string;
  databaseUrl: string;
  count: number;
  endpoint: Endpoint;
  concurrency: number;
}): Promise<Running> {
  const { name, path, databaseUrl, endpoint, concurrency } = options;
  const db = await connect(databaseUrl);
  const key = await seedBareTable(db, options.count);
  const url = `${endpoint.url}/${path}`;
  const child = fork(
    new URL('refresh-bare.ts', import.meta.url),
    [databaseUrl, key, `${url}/oauth/token`, String(concurrency)],
    { execArgv: ['--import', 'tsx'] },
  );
  const fail = (code: number | null) => {
    console.error(`the bare loop ended with ${code}`);
    process.exit(1);
  };
  child.once('exit', fail);
  return {
    variant: bareVariant({ name, db, url, endpointPid: endpoint.pid }, child),
    end: async () => {
      await db.end();
      child.off('exit', fail);
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.disconnect();
      await ended;
    },
  };
}
