import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { readConfig } from '../../src/config.js';
import type { Database } from '../../src/database/database.js';
import { openPostgres } from '../../src/database/postgres.js';
import { startLatchkey } from '../../src/latchkey.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { findCanaries } from './canary.js';
import { createPostgresDatabase, databaseKind, openTestDatabase } from './database.js';
import { TEST_ADMIN_KEY, type Answer, type TestServer } from './server.js';
import { onItsWay } from './way-to-database.js';

/** One of several servers: `url` is where browsers are sent, `address` where this very one listens. */
export interface Instance extends TestServer {
  address: string;
}

/**
 * Starts servers that share a database, a root key, a sandbox and a public URL, as they do behind a load balancer. On
 * PostgreSQL each opens the database with connections of its own.
 */
export async function startInstances(count: number, settings: Record<string, string> = {}): Promise<Instance[]> {
  const dataDir = await mkdtemp(join(tmpdir(), 'latchkey-instances-'));
  const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
  const databaseUrl = databaseKind === 'postgres' ? await createPostgresDatabase() : null;
  const db = databaseUrl === null ? await openTestDatabase() : await openShared(databaseUrl);
  const rootKey = randomBytes(32).toString('base64');
  const logs: string[] = [];
  const instances: Instance[] = [];
  let publicUrl = settings['LATCHKEY_PUBLIC_URL'];

  for (let index = 0; index < count; index += 1) {
    const config = readConfig(
      onItsWay({
        PORT: '0',
        LATCHKEY_DATA_DIR: join(dataDir, String(index)),
        LATCHKEY_ROOT_KEY: rootKey,
        LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
        LATCHKEY_SANDBOX: '0',
        LATCHKEY_LOG_LEVEL: 'debug',
        LATCHKEY_EVENT_POLL_MS: '100',
        LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
        ZOOM_OAUTH_URL: sandbox.origin,
        ZOOM_API_URL: `${sandbox.origin}/v2`,
        ...(databaseUrl === null ? {} : { DATABASE_URL: databaseUrl }),
        ...settings,
        ...(publicUrl === undefined ? {} : { LATCHKEY_PUBLIC_URL: publicUrl }),
      }),
    );
    const log = createLog(config.logLevel, { write: (line) => void logs.push(line) });
    const latchkey = await (databaseUrl === null
      ? startLatchkey(config, log, async () => ({ ...db, close: async () => undefined }))
      : startLatchkey(config, log));
    publicUrl = latchkey.publicUrl;
    const graphql = createClient(latchkey.url);
    instances.push({
      url: latchkey.publicUrl,
      address: latchkey.url,
      adminKey: TEST_ADMIN_KEY,
      sandbox,
      db,
      graphql,
      data: async (query, variables) => {
        const { data, errors } = await graphql(query, variables);
        expect(errors).toBeUndefined();
        return data;
      },
      logs,
      close: () => latchkey.close(),
    });
  }

  afterAll(async () => {
    await Promise.all(instances.map((instance) => instance.close()));
    await sandbox.close();
    expect(await findCanaries({ log: logs.join('\n') }, db)).toEqual([]);
    await rm(dataDir, { recursive: true, force: true });
  });
  return instances;
}

async function openShared(connectionString: string): Promise<Database> {
  const database = await openPostgres({ connectionString, log: createLog('silent') });
  afterAll(() => database.close());
  return database;
}

const createClient =
  (address: string): TestServer['graphql'] =>
  async (query, variables, headers = {}) => {
    const response = await fetch(`${address}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}`, ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const body = (await response.json()) as Pick<Answer, 'data' | 'errors'>;
    return { status: response.status, headers: response.headers, data: body.data, errors: body.errors };
  };
