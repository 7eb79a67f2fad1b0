// npm run bench: the rate of `credential` over HTTP with fresh tokens, beside two yardsticks in the same run.
// `npm run bench -- --before <commit>`: an earlier version beside it as well, in turns. Each round has processes of its
// own: two of one program differ by more than what is looked for here.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { startCluster } from '../support/postgres-cluster.js';
import { checkOut, startLatchkey, type LatchkeyUnderTest } from './latchkey.js';
import { median, residentMegabytes, sample, startServer, type Sample, type Target } from './measure.js';
import { seedBare, type SeededUser } from './seed.js';

const CONNECTIONS = 32;
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 4);
const WARM_UP_SECONDS = Number(process.env['BENCH_WARM_UP_SECONDS'] ?? 6);
const FEW = 1_000;
const MANY = 100_000;
const { before } = parseArgs({ options: { before: { type: 'string' } } }).values;

const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const given = process.env['TEST_DATABASE_URL'];
const cluster = given ? { url: given, stop: async () => undefined } : await startCluster(folder);
const earlier = before === undefined ? null : await checkOut(before, join(folder, 'before'));

const versions: { label: string; latchkey: LatchkeyUnderTest; users: SeededUser[] }[] = [];
async function add(label: string, root: string): Promise<LatchkeyUnderTest> {
  const latchkey = await startLatchkey(root, cluster.url);
  versions.push({ label, latchkey, users: await latchkey.seed(FEW) });
  return latchkey;
}
const latchkey = await add('credential', fileURLToPath(new URL('../..', import.meta.url)));
if (before !== undefined) await add(`credential at ${before}`, join(folder, 'before'));

const bareKey = await seedBare(latchkey.db, FEW);
await latchkey.db.query({ text: 'ANALYZE', values: [] } as never);
const bareUrl = (line: string) => /^listening (\d+)$/.exec(line)?.[1];
const bare = (mode: string) =>
  startServer(
    ['--import', 'tsx', fileURLToPath(new URL('bare-server.ts', import.meta.url)), mode, latchkey.databaseUrl, bareKey],
    {},
    bareUrl,
  );
const [hello, read] = [await bare('hello'), await bare('read')];
const get = (label: string, server: { pid: number; value: string }, paths: string[]): Target => ({
  name: label,
  pid: server.pid,
  url: `http://127.0.0.1:${server.value}`,
  headers: {},
  requests: paths.map((path) => ({ method: 'GET', path })),
});

const rows: Record<string, Sample[]> = {};
async function measure(target: Target): Promise<void> {
  await sample(target, CONNECTIONS, WARM_UP_SECONDS);
  (rows[target.name] ??= []).push(await sample(target, CONNECTIONS, SECONDS));
}
async function rounds(targets: readonly { target: Target; latchkey?: LatchkeyUnderTest }[]): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { target, latchkey: renewed } of targets) {
      await renewed?.restart();
      await measure(target);
    }
  }
}

const helloTarget = get('node:http hello', hello, ['/']);
const readTarget = get(
  'node:http + SELECT + AES-256-GCM',
  read,
  Array.from({ length: FEW }, (_, id) => `/${id}`),
);
await rounds([
  { target: helloTarget },
  { target: readTarget },
  ...versions.map(({ latchkey: renewed, label, users }) => ({
    target: renewed.target(`${label}, 1 000 grants`, users),
    latchkey: renewed,
  })),
]);
const memory = { latchkeyFew: residentMegabytes(latchkey.pid), bare: residentMegabytes(read.pid) };

// As many distinct users as before, spread over all of them: the data differs in size, the load does not.
const spread = (users: readonly SeededUser[]) =>
  Array.from({ length: FEW }, (_, index) => users[Math.floor((index * users.length) / FEW)]).filter(
    (user) => user !== undefined,
  );
const many: Parameters<typeof rounds>[0][number][] = [];
for (const { latchkey: renewed, label } of versions) {
  const users = spread(await renewed.seed(MANY - FEW));
  many.push({ target: renewed.target(`${label}, 100 000 grants`, users), latchkey: renewed });
}
await rounds(many);
const memoryMany = residentMegabytes(latchkey.pid);

const value = (label: string, pick: (row: Sample) => number) => median((rows[label] ?? []).map(pick));
const yardstick = value(readTarget.name, (row) => row.rps);
console.log(
  `\n${cpus().length} × ${cpus()[0]?.model ?? 'cpu'}, Node ${process.version}, load ${loadavg()[0]?.toFixed(2)}; medians of ${ROUNDS} × ${SECONDS} s at ${CONNECTIONS} connections, each after ${WARM_UP_SECONDS} s of warm-up in a process of its own\n`,
);
console.log(
  `${'variant'.padEnd(36)} ${'req/s'.padStart(8)} ${'of bare'.padStart(8)} ${'p50 ms'.padStart(7)} ${'p99 ms'.padStart(7)} ${'cpu µs'.padStart(7)} failed`,
);
for (const label of Object.keys(rows)) {
  const rps = value(label, (row) => row.rps);
  const failed = (rows[label] ?? []).reduce((sum, row) => sum + row.failed, 0);
  console.log(
    `${label.padEnd(36)} ${rps.toFixed(0).padStart(8)} ${(rps / yardstick).toFixed(2).padStart(8)} ${value(
      label,
      (row) => row.p50,
    )
      .toFixed(1)
      .padStart(7)} ${value(label, (row) => row.p99)
      .toFixed(1)
      .padStart(7)} ${value(label, (row) => row.cpuMicros)
      .toFixed(0)
      .padStart(7)} ${failed}`,
  );
}
if (before !== undefined) {
  for (const size of ['1 000', '100 000']) {
    const [now, then] = [rows[`credential, ${size} grants`], rows[`credential at ${before}, ${size} grants`]];
    const ratio = (pick: (row: Sample) => number) =>
      median((now ?? []).map((row, round) => pick(row) / pick(then?.[round] ?? row))).toFixed(2);
    console.log(
      `\n${size} grants beside ${before}, by rounds: rate ${ratio((row) => row.rps)}, processor time ${ratio((row) => row.cpuMicros)}`,
    );
  }
}
console.log(
  `\nresident memory: bare ${memory.bare.toFixed(0)} MB, Latchkey ${memory.latchkeyFew.toFixed(0)} MB (1 000 grants), ${memoryMany.toFixed(0)} MB (100 000 grants)`,
);

await mkdir('.reports', { recursive: true });
await writeFile(
  '.reports/bench-credential.json',
  JSON.stringify({ at: new Date(), node: process.version, before, rounds: rows, memory, memoryMany }, null, 2),
);
for (const { child } of [hello, read]) {
  child.removeAllListeners('exit');
  child.kill('SIGTERM');
}
for (const version of versions) await version.latchkey.close();
await earlier?.remove();
await cluster.stop();
await rm(folder, { recursive: true, force: true });
process.exit(0);
