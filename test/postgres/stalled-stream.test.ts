import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sql from 'sql-template-tag';
import { afterAll, expect, test } from 'vitest';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createPostgresDatabase } from '../support/database.js';
import { freePort } from '../support/free-port.js';
import { spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY } from '../support/server.js';
import { type Stall, type StalledClient, stallSse, stallWebSocket } from '../support/stalled-client.js';
import { openSse, openWebSocket, type ResultStream } from '../support/streams.js';
import { flip, makeGrants } from '../support/transitions.js';
import { until } from '../support/until.js';
import { wayTo } from '../support/way-to-database.js';

/** What a client that does not read may cost the server. */
const MAX_BYTES_EACH = 5_000_000;
/** Events while the clients are there, after as many that were stored before. */
const EVENTS = 60;
/** By then what is kept for clients that come back together is gone. */
const IDLE_MS = 2_000;
/** Of a name that each event is told with several times: a client leaves more unread than the system keeps for it. */
const NAME_BYTES = 20_000;
const NAMES = 10;

const databaseUrl = await createPostgresDatabase();
const db = await openPostgres({ ...wayTo(databaseUrl), log: createLog('silent') });
afterAll(() => db.close());
const dataDir = await mkdtemp(join(tmpdir(), 'latchkey-stalled-'));
afterAll(() => rm(dataDir, { recursive: true, force: true }));
const metricsPort = await freePort();
const server = spawnServer({
  DATABASE_URL: databaseUrl,
  LATCHKEY_DATA_DIR: dataDir,
  LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_EVENT_POLL_MS: '50',
  LATCHKEY_SLOW_CONSUMER_SECONDS: '5',
  LATCHKEY_METRICS_PORT: String(metricsPort),
  NODE_OPTIONS: `--import ${new URL('../bench/collect-garbage.mjs', import.meta.url).href}`,
  ZOOM_OAUTH_URL: 'http://127.0.0.1:1',
  ZOOM_API_URL: 'http://127.0.0.1:1',
});
const url = await server.listening;

/** Bytes of memory that the server's process takes, without garbage. */
async function residentBytes(): Promise<number> {
  server.kill('SIGUSR2');
  const figures = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return Number(/^process_resident_memory_bytes (\S+)$/m.exec(figures)?.[1]);
}

/** The most memory that the server's process takes while something is done, by looking again and again. */
async function mostWhile(act: () => Promise<unknown>): Promise<number> {
  let most = 0;
  let isOver = false;
  const acting = act().finally(() => (isOver = true));
  acting.catch(() => undefined);
  while (!isOver) {
    most = Math.max(most, await residentBytes());
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  await acting;
  return most;
}

const names = Array.from({ length: NAMES }, (_, index) => `n${index}: name`).join(' ');

/** Large results. No two with different names are made together, so none shares memory with another. */
const largeQuery = (name: string) =>
  `subscription ${name}($after: String) { healthChanged(after: $after) { cursor tenant { ${names} } } }`;
const SMALL = 'subscription ($after: String) { healthChanged(after: $after) { cursor } }';

async function take(stream: ResultStream, count: number): Promise<string[]> {
  const cursors: string[] = [];
  while (cursors.length < count) {
    const result = await stream.next();
    // Also one that reads is ended where it is told faster than it does.
    if (!result?.data) return cursors;
    cursors.push(result.data.healthChanged.cursor);
  }
  return cursors;
}

const KINDS: [name: string, stall: Stall, open: typeof openSse, isBehind: boolean][] = [
  ['SseStored', stallSse, openSse, true],
  ['SseLive', stallSse, openSse, false],
  ['SocketStored', stallWebSocket, openWebSocket, true],
  ['SocketLive', stallWebSocket, openWebSocket, false],
];
const PER_KIND = 3;

const CLIENTS = KINDS.flatMap(([name, stall, open, isBehind]) =>
  Array.from({ length: PER_KIND }, (_, index) => ({ query: largeQuery(`${name}${index}`), stall, open, isBehind })),
);

test('clients that stop reading cost the server little memory each, others are told everything, and they go on where they were', async () => {
  const [grant] = await makeGrants(db, 1);
  await db.query(sql`UPDATE tenant SET name = ${'x'.repeat(NAME_BYTES)} WHERE id = ${grant!.tenantId}::uuid`);
  const quick = await openSse(url, SMALL, { variables: { after: Buffer.from('e0').toString('base64url') } });

  /**
   * Has events told: half of the clients begin behind what is stored, the others at its end, and more comes.
   *
   * @returns the cursor before all of them, and theirs as a client was told that did read.
   */
  async function tell(begin: (client: (typeof CLIENTS)[number], after: string) => Promise<void>) {
    await flip(db, grant!, 1);
    const [start] = await take(quick, 1);
    await flip(db, grant!, EVENTS);
    const stored = await take(quick, EVENTS);
    for (const client of CLIENTS) await begin(client, client.isBehind ? start! : stored.at(-1)!);
    const all = [...stored];
    for (let event = 0; event < EVENTS; event += 1) {
      await flip(db, grant!, 1);
      all.push(...(await take(quick, 1)));
    }
    expect(new Set(all).size).toBe(2 * EVENTS);
    return { start: start!, all };
  }

  // The same with clients that read, so that the process has taken what telling them takes by itself.
  const reading: Promise<unknown>[] = [];
  await tell(async ({ query, open, isBehind }, after) => {
    const stream = await open(url, query, { variables: { after } });
    reading.push(take(stream, isBehind ? 2 * EVENTS : EVENTS).then(() => stream.close()));
  });
  await Promise.all(reading);
  await new Promise((resolve) => setTimeout(resolve, IDLE_MS));
  const before = await residentBytes();

  const stalled: { client: StalledClient; after: string }[] = [];
  let told = { start: '', all: [] as string[] };
  const most = await mostWhile(async () => {
    told = await tell(async ({ query, stall }, after) => {
      stalled.push({ client: await stall(url, query, after), after });
    });
    await until(() => server.output().split('SLOW_CONSUMER').length > CLIENTS.length);
  });
  expect((most - before) / CLIENTS.length).toBeLessThan(MAX_BYTES_EACH);

  for (const { client, after } of stalled) {
    const cursors = await client.readOn();
    const mine = after === told.start ? told.all : told.all.slice(EVENTS);
    expect(cursors.length).toBeLessThan(mine.length);
    const again = await openSse(url, SMALL, { variables: { after: cursors.at(-1) ?? after } });
    expect([...cursors, ...(await take(again, mine.length - cursors.length))]).toEqual(mine);
    await again.close();
  }
  await quick.close();
}, 120_000);
