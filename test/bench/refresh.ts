// npm run bench:refresh: how many refreshes a second one server process carries out, beside a bare loop in the same
// run, and whether grants that are all due at once are renewed before their tokens expire.
// `npm run bench:refresh -- --before <commit>`: the rate alone, with an earlier version beside it.
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import pg from 'pg';
import { startCluster } from '../support/postgres-cluster.js';
import { checkOut } from './latchkey.js';
import { median } from './measure.js';
import { describeMachine } from './refresh-machine.js';
import { printRounds, printStorm, drawStorm } from './refresh-report.js';
import { measureRound, readCounts, type Round } from './refresh-round.js';
import * as own from './refresh-setup.js';
import { runStorm } from './refresh-storm.js';

const given = (name: string, standard: number) => Number(process.env[name] ?? standard);
const GRANTS = given('BENCH_GRANTS', 100_000);
const ROUNDS = given('BENCH_ROUNDS', 5);
const SECONDS = given('BENCH_SECONDS', 8);
const WARM_UP_SECONDS = given('BENCH_WARM_UP_SECONDS', 3);
const CONCURRENCY = given('BENCH_CONCURRENCY', 192);
/** More a second than anything here refreshes, so that no round runs dry. */
const MOST_PER_SECOND = given('BENCH_MOST_PER_SECOND', 4_000);
const LIFE_LEFT_SECONDS = 600;
const flags = process.env['BENCH_NODE_FLAGS']?.split(' ') ?? [];
const OUT = process.env['BENCH_OUT'] ?? 'docs';
const { before } = parseArgs({ options: { before: { type: 'string' } } }).values;

// What was started ends with this process, so a signal must end it the ordinary way.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => {
    console.error(`the bench was told to stop by ${signal}`);
    process.exit(1);
  });
}
process.once('exit', (code) => {
  if (code !== 0) console.error(`the bench ended early (${code})`);
});

const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const givenUrl = process.env['TEST_DATABASE_URL'];
const cluster = givenUrl ? { url: givenUrl, stop: async () => undefined } : await startCluster(folder, { fsync: true });
const admin = new pg.Client({ connectionString: cluster.url });
await admin.connect();
// What fills a database and starts an earlier version is its own code: the tables may be others.
const earlier = before === undefined ? null : await checkOut(before, join(folder, 'before'));
const former =
  before === undefined ? null : ((await import(join(folder, 'before/test/bench/refresh-setup.ts'))) as typeof own);

const names = ['spool', 'second', 'bare'].map((name) => `latchkey_bench_${process.pid}_${name}`) as [
  string,
  string,
  string,
];
const urlOf = (name: string) => {
  const url = new URL(cluster.url);
  url.pathname = `/${name}`;
  return url.href;
};
const [spoolDatabase, secondDatabase, bareDatabase] = names;

await admin.query(`CREATE DATABASE ${spoolDatabase}`);
const rootKey = randomBytes(32).toString('base64');
await own.seedProduct(urlOf(spoolDatabase), rootKey, GRANTS);
if (former === null) {
  await admin.query(`CREATE DATABASE ${secondDatabase} TEMPLATE ${spoolDatabase} STRATEGY FILE_COPY`);
} else {
  await admin.query(`CREATE DATABASE ${secondDatabase}`);
  await former.seedProduct(urlOf(secondDatabase), rootKey, GRANTS);
}
await admin.query(`CREATE DATABASE ${bareDatabase}`);

const endpoint = await own.startEndpoint(GRANTS);
const common = { rootKey, folder, endpoint, concurrency: CONCURRENCY, flags };
const running = [
  await own.startProduct({
    ...common,
    name: 'Latchkey',
    path: 'spool',
    databaseUrl: urlOf(spoolDatabase),
    spool: true,
  }),
  await own.startBare({
    name: 'bare loop',
    path: 'bare',
    databaseUrl: urlOf(bareDatabase),
    count: GRANTS,
    endpoint,
    concurrency: CONCURRENCY,
  }),
  await (former ?? own).startProduct({
    ...common,
    flags: [],
    name: former === null ? 'Latchkey, spool off' : `Latchkey at ${before}`,
    path: 'second',
    databaseUrl: urlOf(secondDatabase),
    spool: former !== null,
  }),
];
const variants = running.map(({ variant }) => variant);
for (const { db } of variants) await db.query('VACUUM ANALYZE');

const machine = await describeMachine(admin);
const seconds = WARM_UP_SECONDS + SECONDS;
const plan = { due: Math.min(GRANTS, seconds * MOST_PER_SECOND), warmUpSeconds: WARM_UP_SECONDS, seconds: SECONDS };
const rounds: Record<string, Round[]> = {};
// The first turn only lets the compiler and the caches settle.
for (let round = -1; round < ROUNDS; round += 1) {
  for (const variant of variants) {
    const measured = await measureRound(variant, plan);
    console.error(
      `${round < 0 ? 'warm-up' : `round ${round + 1}`}: ${variant.name} ${measured.perSecond.toFixed(0)}/s, others ${measured.othersShare.toFixed(2)} cpu, load ${measured.load.toFixed(1)}`,
    );
    if (round >= 0) (rounds[variant.name] ??= []).push(measured);
  }
}
const settings = { grants: GRANTS, concurrency: CONCURRENCY, rounds: ROUNDS, ...plan };
printRounds(machine, settings, rounds);
if (before !== undefined) {
  const [now = [], then = []] = [rounds['Latchkey'], rounds[`Latchkey at ${before}`]];
  const pairs = now.map((round, index) => round.perSecond / (then[index]?.perSecond ?? Number.NaN));
  console.log(
    `\nLatchkey beside ${before}, by rounds: ${median(pairs).toFixed(2)} (${pairs.map((pair) => pair.toFixed(2)).join(', ')})`,
  );
}

const [product] = variants;
const storm = product === undefined || former !== null ? null : await runStorm(product, LIFE_LEFT_SECONDS);
const counts = Object.fromEntries(
  await Promise.all(variants.map(async ({ name, url }) => [name, await readCounts(url)] as const)),
);
if (storm !== null) printStorm(storm, counts);

await mkdir(join(OUT, 'bench'), { recursive: true });
await writeFile(
  join(OUT, `bench/refresh${before === undefined ? '' : '-before'}.json`),
  `${JSON.stringify({ machine, settings, rounds, storm, counts }, null, 2)}\n`,
);
if (storm !== null) await writeFile(join(OUT, 'refresh-lag.svg'), drawStorm(storm, machine));

for (const { end } of running) await end();
endpoint.end();
for (const name of names) await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
await admin.end();
await earlier?.remove();
await cluster.stop();
await rm(folder, { recursive: true, force: true });
process.exit(0);
