import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { createPostgresDatabase } from '../support/database.js';
import {
  type Caller,
  callerOf,
  createFrontendSession,
  createServerKey,
  revokeFrontendSession,
  revokeServerKey,
} from '../support/principals.js';
import { clientOf, spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY, type TestServer } from '../support/server.js';
import { createTenant, PRODUCT } from '../support/story.js';
import { openSse } from '../support/streams.js';

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const databaseUrl = await createPostgresDatabase();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-access-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const rootKey = randomBytes(32).toString('base64');

const processes = [0, 1, 2].map((index) =>
  spawnServer({
    DATABASE_URL: databaseUrl,
    LATCHKEY_ROOT_KEY: rootKey,
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_DATA_DIR: join(folder, String(index)),
    LATCHKEY_ROLE: 'api',
    LATCHKEY_SANDBOX: '0',
    ZOOM_OAUTH_URL: sandbox.origin,
    ZOOM_API_URL: `${sandbox.origin}/v2`,
  }),
);
const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
afterAll(() => db.close());
const clients = await Promise.all(processes.map((process) => clientOf(process, { sandbox, db })));
const [first] = clients as [TestServer, TestServer, TestServer];

/** Seconds within which every process must have noticed. */
const NOTICED_MS = 5_000;
const LONGER_MS = 1_500;

/** Uses a caller at every process all the time. @returns the moments at which it was let in. */
function useEverywhere({ id, token, headers }: Caller): { letIn: number[]; stop(): Promise<void> } {
  const letIn: number[] = [];
  let running = true;
  const loops = clients.map(async (client) => {
    const caller = callerOf(client, id, token, headers['origin'] ?? null);
    while (running) {
      const began = Date.now();
      if ((await caller.graphql('{ viewer { kind } }')).status === 200) letIn.push(began);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  });
  return {
    letIn,
    stop: async () => {
      running = false;
      await Promise.all(loops);
    },
  };
}

const later = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

test.each([
  ['a server key', 'SERVER_KEY_REVOKED'],
  ['a frontend session', 'SESSION_REVOKED'],
])(
  '%s that one process revokes is let in by none after five seconds, and its streams have ended',
  async (what, code) => {
    const tenantId = await createTenant(first);
    const isKey = what === 'a server key';
    const caller = isKey
      ? await createServerKey(first, { permissions: ['CONNECTIONS_READ'] })
      : await createFrontendSession(first, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT);
    const use = useEverywhere(caller);
    const streams = await Promise.all(
      clients.map(({ url }) =>
        openSse(url, 'subscription { healthChanged { id } }', { adminKey: caller.token, headers: caller.headers }),
      ),
    );
    const ends = streams.map((stream) => stream.next().then((last) => ({ last, at: Date.now() })));
    await later(500);
    const revokedAt = Date.now();
    await (isKey ? revokeServerKey(first, caller.id) : revokeFrontendSession(first, caller.id));
    for (const { last, at } of await Promise.all(ends)) {
      expect(last).toMatchObject({ errors: [{ extensions: { code } }] });
      expect(at - revokedAt).toBeLessThan(NOTICED_MS);
    }
    await later(Math.max(0, revokedAt + NOTICED_MS + LONGER_MS - Date.now()));
    await use.stop();
    expect(use.letIn.length).toBeGreaterThan(10);
    expect(use.letIn.filter((at) => at - revokedAt > NOTICED_MS)).toEqual([]);
    await Promise.all(streams.map((stream) => stream.close()));
  },
);
