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
import { callerOf, createServerKey } from '../support/principals.js';
import { clientOf, spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY } from '../support/server.js';

const PROCESSES = 3;
/** Ten seconds at ten a second. */
const CEILING = 100;

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const databaseUrl = await createPostgresDatabase();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-rate-limit-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const rootKey = randomBytes(32).toString('base64');

test('three processes share the ceiling of a key: together they let in a tenth more for each but one, at most', async () => {
  const processes = Array.from({ length: PROCESSES }, (_, index) =>
    spawnServer({
      DATABASE_URL: databaseUrl,
      LATCHKEY_ROOT_KEY: rootKey,
      LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
      LATCHKEY_DATA_DIR: join(folder, String(index)),
      LATCHKEY_ROLE: 'api',
      LATCHKEY_SANDBOX: '0',
      LATCHKEY_RATE_LIMIT_SERVER_KEY: String(CEILING / 10),
      ZOOM_OAUTH_URL: sandbox.origin,
      ZOOM_API_URL: `${sandbox.origin}/v2`,
    }),
  );
  const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
  afterAll(() => db.close());
  const clients = await Promise.all(processes.map((process) => clientOf(process, { sandbox, db })));
  const key = await createServerKey(clients[0]!, { permissions: ['CONNECTIONS_READ'] });
  const callers = clients.map((client) => callerOf(client, key.id, key.token));

  const periodOf = () => Math.floor(Date.now() / 10_000);
  async function burst(): Promise<{ served: number; isOnePeriod: boolean }> {
    const left = 10_000 - (Date.now() % 10_000);
    // Begun late in a period, it would end in the next.
    if (left < 6_000) await systemClock.sleep(left + 50);
    const period = periodOf();
    const answers = await Promise.all(
      callers.flatMap((caller) => Array.from({ length: CEILING }, () => caller.graphql('{ viewer { kind } }'))),
    );
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([200, 429]));
    return { served: answers.filter(({ status }) => status === 200).length, isOnePeriod: periodOf() === period };
  }

  let result = await burst();
  if (!result.isOnePeriod) result = await burst();
  const periods = result.isOnePeriod ? 1 : 2;
  expect(result.served).toBeGreaterThanOrEqual(CEILING);
  expect(result.served).toBeLessThanOrEqual(periods * CEILING * (1 + (PROCESSES - 1) * 0.1));
}, 60_000);
