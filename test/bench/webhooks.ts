// npm run bench:webhooks: how fast deliveries are acknowledged at 200 events a second, and how many a second one server
// process takes in, each stored with its effect before its answer.
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { openPostgres } from '../../src/database/postgres.js';
import { registerProviderApp } from '../../src/domain/provider-app.js';
import { createLog } from '../../src/log.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault } from '../../src/vault/vault.js';
import { freePort } from '../support/free-port.js';
import { startCluster } from '../support/postgres-cluster.js';
import { cpuSeconds, median, startServer } from './measure.js';
import { describeMachine } from './refresh-machine.js';
import { seedGrants } from './seed.js';
import { deliverEvents, type Receiver, type Round } from './webhook-load.js';

const given = (name: string, standard: number) => Number(process.env[name] ?? standard);
const GRANTS = given('BENCH_GRANTS', 20_000);
const ROUNDS = given('BENCH_ROUNDS', 5);
const SECONDS = given('BENCH_SECONDS', 10);
const WARM_UP_SECONDS = given('BENCH_WARM_UP_SECONDS', 5);
const PER_SECOND = given('BENCH_PER_SECOND', 200);
const CONNECTIONS = given('BENCH_CONNECTIONS', 32);
const OUT = process.env['BENCH_OUT'] ?? 'docs';

// What was started ends with this process, so a signal must end it the ordinary way.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1));

const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const givenUrl = process.env['TEST_DATABASE_URL'];
const cluster = givenUrl ? { url: givenUrl, stop: async () => undefined } : await startCluster(folder, { fsync: true });
const admin = new pg.Client({ connectionString: cluster.url });
await admin.connect();
const name = `latchkey_bench_${process.pid}`;
await admin.query(`CREATE DATABASE ${name}`);
const database = new URL(cluster.url);
database.pathname = `/${name}`;

const rootKey = randomBytes(32).toString('base64');
const secret = randomBytes(16).toString('hex');
const clientId = randomUUID();
const db = await openPostgres({ connectionString: database.href, log: createLog('silent'), queryTimeoutMs: 60_000 });
const vault = createVault({ rootKeys: createLocalRootKeys(parseRootKeys(rootKey, { production: true })) });
await vault.verify(db);
await vault.createTenantKey(db, null);
const appId = await registerProviderApp(
  { db, vault },
  {
    name: 'bench',
    kind: 'USER_MANAGED',
    environment: 'COMMERCIAL',
    clientId,
    clientSecret: randomUUID(),
    webhookSecret: secret,
    scopes: [],
    acceptUnknownScopes: false,
  },
);
await seedGrants({ db, vault }, appId, GRANTS);
const select = async <Row>(text: string) => db.query<Row>({ text, values: [] } as never);
const users = await select<{ id: string }>('SELECT provider_user_id AS id FROM provider_grant ORDER BY id');
const [app] = await select<{ key: string }>('SELECT key FROM provider_app');
await select('ANALYZE');

const port = await freePort();
const { child, pid } = await startServer(
  [new URL('../../dist/main.js', import.meta.url).pathname],
  {
    NODE_ENV: 'production',
    PORT: String(port),
    DATABASE_URL: database.href,
    LATCHKEY_ROLE: 'api',
    LATCHKEY_ROOT_KEY: rootKey,
    LATCHKEY_ADMIN_KEY: randomBytes(24).toString('base64url'),
    LATCHKEY_DATA_DIR: join(folder, 'data'),
  },
  (line) => (line.includes('"listening"') ? 'ready' : undefined),
);
const receiver: Receiver = {
  origin: `http://127.0.0.1:${port}`,
  path: `/webhooks/zoom/${app?.key ?? ''}`,
  secret,
  clientId,
  accountId: 'account',
  userIds: users.map(({ id }) => id),
};

const machine = await describeMachine(admin);
let serial = 0;
let acknowledged = 0;
async function measure(seconds: number, perSecond?: number): Promise<Round & { cpuMicros: number }> {
  const before = cpuSeconds(pid);
  const load = { seconds, connections: CONNECTIONS, firstSerial: serial, ...(perSecond ? { perSecond } : {}) };
  const round = await deliverEvents(receiver, load);
  serial += round.acknowledged + round.failed;
  acknowledged += round.acknowledged;
  return { ...round, cpuMicros: ((cpuSeconds(pid) - before) / round.acknowledged) * 1e6 };
}

const variants: [string, number | undefined][] = [
  [`${PER_SECOND} events/s`, PER_SECOND],
  [`${CONNECTIONS} senders, as fast as they are answered`, undefined],
];
const rounds: Record<string, Awaited<ReturnType<typeof measure>>[]> = {};
for (const [, perSecond] of variants) await measure(WARM_UP_SECONDS, perSecond);
for (let round = 0; round < ROUNDS; round += 1) {
  for (const [label, perSecond] of variants) (rounds[label] ??= []).push(await measure(SECONDS, perSecond));
}
const [stored] = await select<{ events: number; receipts: number }>(
  'SELECT (SELECT count(*) FROM webhook_event) AS events, (SELECT count(*) FROM deauthorization_receipt) AS receipts',
);

console.log(
  `\n${machine.cpus} × ${machine.model}, Node ${machine.node}, PostgreSQL ${machine.postgres} (fsync ${machine.fsync}, synchronous_commit ${machine.synchronousCommit})`,
);
console.log(
  `Medians of ${ROUNDS} × ${SECONDS} s over ${CONNECTIONS} connections, ${GRANTS} grants; sender and PostgreSQL share the machine\n`,
);
console.log(`${'load'.padEnd(44)} ${'events/s'.padStart(9)}   p50 ms   p99 ms   max ms   cpu µs failed`);
for (const [label, measured] of Object.entries(rounds)) {
  const cell = (pick: (round: (typeof measured)[number]) => number, digits: number) =>
    median(measured.map(pick)).toFixed(digits).padStart(8);
  const failed = measured.reduce((sum, round) => sum + round.failed, 0);
  console.log(
    `${label.padEnd(44)} ${cell((round) => round.perSecond, 0)} ${cell((round) => round.p50, 1)} ${cell((round) => round.p99, 1)} ${cell((round) => round.max, 1)} ${cell((round) => round.cpuMicros, 0)} ${String(failed).padStart(6)}`,
  );
}
console.log(
  `\nacknowledged ${acknowledged}, stored ${stored?.events}; connections ended by deauthorization: ${stored?.receipts}`,
);

await mkdir(join(OUT, 'bench'), { recursive: true });
const settings = { grants: GRANTS, rounds: ROUNDS, seconds: SECONDS, perSecond: PER_SECOND, connections: CONNECTIONS };
const raw = { at: new Date(), machine, settings, rounds, acknowledged, stored };
await writeFile(join(OUT, 'bench/webhooks.json'), `${JSON.stringify(raw, null, 2)}\n`);

const ended = new Promise((resolve) => child.once('close', resolve));
child.removeAllListeners('exit');
child.kill('SIGTERM');
await ended;
await db.close();
await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
await admin.end();
await cluster.stop();
await rm(folder, { recursive: true, force: true });
process.exit(acknowledged === stored?.events ? 0 : 1);
