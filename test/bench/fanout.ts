// npm run bench:fanout: what many idle subscribers of one process cost, and what it takes to tell all of them one event,
// beside a broadcast by hand in the same run.
import { execFileSync, fork } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { freePort } from '../support/free-port.js';
import { startCluster } from '../support/postgres-cluster.js';
import { makeGrants } from '../support/transitions.js';
import type { Plan, Report } from './fanout-clients.js';
import { cpuSeconds, median, residentMegabytes, startServer } from './measure.js';
import { describeMachine } from './refresh-machine.js';

const given = (name: string, standard: number) => Number(process.env[name] ?? standard);
const SUBSCRIBERS = given('BENCH_SUBSCRIBERS', 10_000);
const EVENTS = given('BENCH_EVENTS', 7);
/** The first events find code that has not run yet. */
const WARM_UP_EVENTS = 2;
const KEYS = given('BENCH_KEYS', 100);
const IDLE_SECONDS = given('BENCH_IDLE_SECONDS', 4);
const OUT = process.env['BENCH_OUT'] ?? 'docs';
const FILES_BESIDE = 500;
/** Nothing of this takes longer; what hangs ends. */
const LIMIT_MS = given('BENCH_LIMIT_SECONDS', 115) * 1_000;

const QUERY = 'subscription { healthChanged { id cursor occurredAt previous current reason tenant { externalId } } }';
const JSON_OF_AN_EVENT = JSON.stringify({
  data: {
    healthChanged: {
      id: 'SGVhbHRoRXZlbnQ6MDAwMDAwMDAtMDAwMC0wMDAwLTAwMDAtMDAwMDAwMDAwMDAw',
      cursor: 'ZTEwMA',
      occurredAt: '2026-01-01T00:00:00.000Z',
      previous: 'HEALTHY',
      current: 'REVOKED',
      reason: 'DISCONNECTED',
      tenant: { externalId: 'org_00000000' },
    },
  },
});

interface Measured {
  kilobytesPerSubscriber: number;
  residentMegabytes: number;
  /** From the request that causes the event until the last subscriber has it. */
  millisecondsToAll: number;
  processorMicrosPerDelivery: number;
  idleProcessorPercent: number;
  connectsPerSecond: number;
}

const files = Number(
  execFileSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).trim().replace('unlimited', 'Infinity'),
);
if (files < SUBSCRIBERS + FILES_BESIDE) {
  console.error(
    `A process may open ${files} files here, which is too few for ${SUBSCRIBERS} subscribers: raise ulimit -n.`,
  );
  process.exit(1);
}
setTimeout(() => {
  console.error('The bench took too long.');
  process.exit(1);
}, LIMIT_MS).unref();
// Every server and every crowd of subscribers is ended with this process.
process.setMaxListeners(0);
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

async function collectGarbage(pid: number): Promise<void> {
  for (let i = 0; i < 2; i += 1) {
    process.kill(pid, 'SIGUSR2');
    await sleep(400);
  }
}

/** Connects subscribers to a server and tells them events. */
async function measure(
  plan: Omit<Plan, 'count' | 'query'>,
  pid: number,
  tellAll: () => Promise<void>,
): Promise<Measured> {
  const clients = fork(new URL('fanout-clients.ts', import.meta.url), { execArgv: ['--import', 'tsx'] });
  process.once('exit', () => clients.kill('SIGKILL'));
  const reports: Report[] = [];
  clients.on('message', (report: Report) => void reports.push(report));
  const next = async (): Promise<Report> => {
    while (reports.length === 0) await sleep(2);
    const report = reports.shift()!;
    if (report.kind === 'failed') throw new Error(report.reason);
    return report;
  };
  await collectGarbage(pid);
  const before = residentMegabytes(pid);
  const began = performance.now();
  clients.send({ ...plan, count: SUBSCRIBERS, query: QUERY } satisfies Plan);
  await next();
  const connectSeconds = (performance.now() - began) / 1_000;
  await sleep(1_000);
  await collectGarbage(pid);
  const resident = residentMegabytes(pid);
  const idleBefore = cpuSeconds(pid);
  await sleep(IDLE_SECONDS * 1_000);
  const idle = cpuSeconds(pid) - idleBefore;
  const times: number[] = [];
  const processor: number[] = [];
  for (let event = 0; event < WARM_UP_EVENTS + EVENTS; event += 1) {
    const cpuBefore = cpuSeconds(pid);
    const start = performance.timeOrigin + performance.now();
    const telling = tellAll();
    const report = await next();
    if (report.kind === 'told') times.push(report.at - start);
    await telling;
    await sleep(100);
    processor.push(cpuSeconds(pid) - cpuBefore);
  }
  clients.kill('SIGKILL');
  await sleep(200);
  return {
    kilobytesPerSubscriber: ((resident - before) * 1_024) / SUBSCRIBERS,
    residentMegabytes: resident,
    millisecondsToAll: median(times.slice(WARM_UP_EVENTS)),
    processorMicrosPerDelivery: (median(processor.slice(WARM_UP_EVENTS)) / SUBSCRIBERS) * 1e6,
    idleProcessorPercent: (idle / IDLE_SECONDS) * 100,
    connectsPerSecond: SUBSCRIBERS / connectSeconds,
  };
}

const PRELOAD = ['--expose-gc', '--import', new URL('collect-garbage.mjs', import.meta.url).href];

async function measureBare(transport: Plan['transport']): Promise<Measured> {
  const file = new URL('fanout-bare.ts', import.meta.url).pathname;
  const { child, pid, value } = await startServer(
    [...PRELOAD, '--import', 'tsx', file, JSON_OF_AN_EVENT],
    {},
    (line) => /listening (\d+)/.exec(line)?.[1],
  );
  const port = Number(value);
  const tellAll = async () => void (await fetch(`http://127.0.0.1:${port}/tell`));
  const measured = await measure({ transport, port, tokens: [''] }, pid, tellAll);
  child.removeAllListeners('exit');
  child.kill('SIGKILL');
  return measured;
}

async function measureLatchkey(transport: Plan['transport'], databaseUrl: string, folder: string): Promise<Measured> {
  const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
  const grants = await makeGrants(db, WARM_UP_EVENTS + EVENTS);
  await db.close();
  const port = await freePort();
  const adminKey = randomBytes(24).toString('base64url');
  const { child, pid } = await startServer(
    [...PRELOAD, new URL('../../dist/main.js', import.meta.url).pathname],
    {
      NODE_ENV: 'production',
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      LATCHKEY_ROLE: 'api',
      LATCHKEY_ROOT_KEY: ROOT_KEY,
      LATCHKEY_ADMIN_KEY: adminKey,
      LATCHKEY_MAX_STREAMS: '1000000',
      LATCHKEY_MAX_STREAMS_PER_TENANT: '1000000',
      LATCHKEY_DATA_DIR: join(folder, transport),
    },
    (line) => (line.includes('"listening"') ? 'ready' : undefined),
  );
  const ask = async (query: string, variables: Record<string, unknown>) => {
    const response = await fetch(`http://127.0.0.1:${port}/graphql`, {
      method: 'POST',
      headers: { authorization: `Bearer ${adminKey}`, 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    const { data, errors } = (await response.json()) as { data: any; errors?: unknown };
    if (errors !== undefined) throw new Error(JSON.stringify(errors));
    return data;
  };
  const tokens: string[] = [];
  for (let index = 0; index < KEYS; index += 1) {
    const { createServerKey } = await ask(
      `mutation ($name: String!) { createServerKey(input: { name: $name, permissions: [CONNECTIONS_READ] }) {
        ... on CreateServerKeySuccess { serverKey { key } } } }`,
      { name: `key ${index}` },
    );
    tokens.push(createServerKey.serverKey.key);
  }
  const tellAll = async () => {
    const id = Buffer.from(`UserConnection:${grants.pop()?.id}`).toString('base64url');
    await ask('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', { id });
  };
  const measured = await measure({ transport, port, tokens }, pid, tellAll);
  child.removeAllListeners('exit');
  child.kill('SIGKILL');
  return measured;
}

const ROOT_KEY = randomBytes(32).toString('base64');
const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const givenUrl = process.env['TEST_DATABASE_URL'];
const cluster = givenUrl ? { url: givenUrl, stop: async () => undefined } : await startCluster(folder);
const admin = new pg.Client({ connectionString: cluster.url });
await admin.connect();
const name = `latchkey_bench_${process.pid}`;
await admin.query(`CREATE DATABASE ${name}`);
const database = new URL(cluster.url);
database.pathname = `/${name}`;

const results: Record<string, Record<string, Measured>> = {};
try {
  for (const transport of ['sse', 'ws'] as const) {
    const bare = await measureBare(transport);
    const latchkey = await measureLatchkey(transport, database.href, folder);
    results[transport] = { bare, latchkey };
    for (const [who, figures] of Object.entries({ bare, latchkey })) {
      const line = Object.entries(figures).map(([figure, value]) => `${figure} ${value.toFixed(1)}`);
      console.log(`${transport} ${who}: ${line.join(', ')}`);
    }
    console.log(
      `${transport}: ${(latchkey.millisecondsToAll / bare.millisecondsToAll).toFixed(2)} times the time of a bare broadcast`,
    );
  }
  await mkdir(join(OUT, 'bench'), { recursive: true });
  const report = {
    subscribers: SUBSCRIBERS,
    keys: KEYS,
    events: EVENTS,
    machine: await describeMachine(admin),
    results,
  };
  await writeFile(join(OUT, 'bench', 'fanout.json'), `${JSON.stringify(report, null, 2)}\n`);
} finally {
  await admin.query(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`);
  await admin.end();
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
}
process.exit(0);
