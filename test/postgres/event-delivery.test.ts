import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import sql from 'sql-template-tag';
import { systemClock } from '../../src/clock.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createHealthEventLog, recordTransitions } from '../../src/domain/health-event.js';
import { healthOf } from '../../src/domain/health.js';
import { createFeed, HEALTH_TOPIC } from '../../src/feed/feed.js';
import { createRedisFeed } from '../../src/feed/redis-wake-ups.js';
import { createLog } from '../../src/log.js';
import { Secret } from '../../src/secret.js';
import { startTcpProxy } from '../chaos/tcp-proxy.js';
import { createPostgresDatabase } from '../support/database.js';
import { consume, type Consumption, CONSUMERS } from '../support/event-consumer.js';
import { spawnServer } from '../support/process.js';
import { createRandom } from '../support/random.js';
import { startRedis } from '../support/redis.js';
import { TEST_ADMIN_KEY } from '../support/server.js';
import { makeGrants, type MadeGrant } from '../support/transitions.js';
import { until } from '../support/until.js';

const CUTS = 20;
const TENANTS = 5;
const CHANGES_OF_A_TENANT = 200;

const databaseUrl = await createPostgresDatabase();
const redis = await startRedis();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-events-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const rootKey = randomBytes(32).toString('base64');
const random = createRandom();

const spawnOne = (index: number) =>
  spawnServer({
    DATABASE_URL: databaseUrl,
    REDIS_URL: redis.url,
    LATCHKEY_ROOT_KEY: rootKey,
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_DATA_DIR: join(folder, String(index)),
    LATCHKEY_ROLE: 'api',
    LATCHKEY_SANDBOX: '0',
    ZOOM_OAUTH_URL: 'http://127.0.0.1:1',
    ZOOM_API_URL: 'http://127.0.0.1:1',
  });
const servers = [0, 1, 2].map(spawnOne);
const urls = await Promise.all(servers.map(({ listening }) => listening));
const ports = urls.map((url) => Number(new URL(url).port));

const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
afterAll(() => db.close());
// Whoever writes an event tells the others, as the server does.
const feed = createRedisFeed(createFeed({ clock: systemClock, pollMs: 60_000 }), {
  url: new Secret(redis.url),
  log: createLog('silent'),
});
afterAll(() => feed.close());

/** Changes a grant, one change a transaction or several. */
async function change(grant: MadeGrant, count: number, { atOnce = 1, pauseMs = 0 } = {}): Promise<void> {
  const transition = {
    grantId: grant.id,
    tenantId: grant.tenantId,
    previous: healthOf('CONNECTED'),
    next: healthOf('RATE_LIMITED'),
    always: true,
  };
  for (let done = 0; done < count; done += atOnce) {
    await db.transaction((tx) =>
      recordTransitions(
        tx,
        Array.from({ length: atOnce }, () => transition),
      ),
    );
    feed.publish(HEALTH_TOPIC);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
}

const encodeCursor = (position: number) => Buffer.from(`e${position}`).toString('base64url');
const now = async () => encodeCursor(await createHealthEventLog(db).latest());
const globalId = (id: string) => Buffer.from(`HealthEvent:${id}`).toString('base64url');

/** The global ids of what is stored of a tenant, in its order. */
async function stored({ tenantId }: MadeGrant): Promise<string[]> {
  const rows = await db.query<{ id: string }>(
    sql`SELECT id FROM health_event WHERE tenant_id = ${tenantId}::uuid ORDER BY sequence`,
  );
  return rows.map(({ id }) => globalId(id));
}

const toldOf = ({ events }: Consumption, { externalId }: MadeGrant): string[] =>
  events.filter(({ tenant }) => tenant.externalId === externalId).map(({ id }) => id);

test('a thousand changes come to each client once and in order, through twenty cuts each and whichever of three processes answers', async () => {
  const grants = await Promise.all(Array.from({ length: TENANTS }, async () => (await makeGrants(db, 1))[0]!));
  const total = TENANTS * CHANGES_OF_A_TENANT;
  const after = await now();
  const consumers = await Promise.all(
    CONSUMERS.map(async ([name, watch]) => {
      const proxy = await startTcpProxy(() => random.of(ports));
      return { name, proxy, consumption: consume(watch, `http://127.0.0.1:${proxy.port}`, after), cuts: 0 };
    }),
  );
  let isWriting = true;
  const cutting = consumers.map(async (consumer) => {
    // The last cut comes while there is still something to be told.
    while (consumer.cuts < CUTS) {
      await new Promise((resolve) => setTimeout(resolve, random.of([20, 60, 100, 140, 180])));
      await until(() => consumer.proxy.open() > 0 || !isWriting);
      consumer.proxy.become({ kind: 'reset' });
      consumer.proxy.become({ kind: 'pass' });
      consumer.cuts += 1;
    }
  });
  const writing = Promise.all(grants.map((grant) => change(grant, CHANGES_OF_A_TENANT, { atOnce: 4, pauseMs: 50 })));
  await Promise.all([...cutting, writing.then(() => (isWriting = false))]);
  for (const { consumption } of consumers) await until(() => consumption.at.size >= total);
  for (const { name, proxy, consumption } of consumers) {
    await consumption.stop();
    await proxy.close();
    expect(consumption.attempts, `${name}, LATCHKEY_TEST_SEED=${random.seed}`).toBeGreaterThan(CUTS / 2);
    expect(consumption.events, `${name}, LATCHKEY_TEST_SEED=${random.seed}`).toHaveLength(total);
    for (const grant of grants)
      expect(toldOf(consumption, grant), `${name}, LATCHKEY_TEST_SEED=${random.seed}`).toEqual(await stored(grant));
  }
}, 120_000);

test('99 of 100 changes come to every client within a second of their commit', async () => {
  const [grant] = await makeGrants(db, 1);
  const after = await now();
  const consumptions = CONSUMERS.map(([, watch], index) => consume(watch, urls[index % urls.length]!, after));
  const latencies: number[] = [];
  for (let count = 1; count <= 100; count += 1) {
    await change(grant!, 1);
    const committed = performance.now();
    await until(() => consumptions.every(({ at }) => at.size === count));
    // The first one waits for the clients to connect.
    if (count > 1) latencies.push(...consumptions.map(({ at }) => Math.max(0, [...at.values()].at(-1)! - committed)));
  }
  const sorted = latencies.toSorted((a, b) => a - b);
  const quantile = (share: number) => Math.round(sorted[Math.floor(sorted.length * share)]!);
  console.log(`commit to client: p50 ${quantile(0.5)} ms, p99 ${quantile(0.99)} ms, of ${sorted.length}`);
  expect(quantile(0.99)).toBeLessThan(1_000);
}, 120_000);

test('what a server had committed and not told when it was killed, every client is told by the next', async () => {
  const [grant] = await makeGrants(db, 1);
  const doomed = spawnOne(3);
  let port = Number(new URL(await doomed.listening).port);
  const after = await now();
  const proxy = await startTcpProxy(() => port);
  const consumptions = CONSUMERS.map(([, watch]) => consume(watch, `http://127.0.0.1:${proxy.port}`, after));
  await change(grant!, 2);
  await until(() => consumptions.every(({ at }) => at.size === 2));
  doomed.kill('SIGSTOP');
  await change(grant!, 3);
  doomed.kill('SIGKILL');
  await doomed.exited;
  port = random.of(ports);
  await until(() => consumptions.every(({ at }) => at.size === 5));
  await Promise.all(consumptions.map((consumption) => consumption.stop()));
  await proxy.close();
  const events = await stored(grant!);
  for (const consumption of consumptions) expect(consumption.events.map(({ id }) => id)).toEqual(events);
}, 120_000);
