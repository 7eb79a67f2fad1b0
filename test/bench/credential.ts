// npm run bench: the rate of `credential` over HTTP with fresh tokens, beside two yardsticks in the same run.
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { cpus, loadavg, tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault } from '../../src/vault/vault.js';
import { startCluster } from '../support/postgres-cluster.js';
import { freePort } from '../support/free-port.js';
import { median, residentMegabytes, sample, startServer, type Sample, type Target } from './measure.js';
import { seedApp, seedBare, seedGrants, type SeededUser } from './seed.js';

const CONNECTIONS = 32;
const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 5);
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 4);
const WARM_UP_SECONDS = Number(process.env['BENCH_WARM_UP_SECONDS'] ?? 10);
const FEW = 1_000;
const MANY = 100_000;
const ADMIN_KEY = randomBytes(24).toString('base64url');
const QUERY =
  'query Credential($input: CredentialInput!) { credential(input: $input) { __typename ... on Credential { accessToken expiresAt } ... on Error { message } } }';

const folder = await mkdtemp(join(tmpdir(), 'latchkey-bench-'));
const given = process.env['TEST_DATABASE_URL'];
const cluster = given ? { url: given, stop: async () => undefined } : await startCluster(folder);
const name = `latchkey_bench_${process.pid}`;

async function admin(statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: cluster.url });
  await client.connect();
  try {
    await client.query(statement);
  } finally {
    await client.end();
  }
}

await admin(`CREATE DATABASE ${name}`);
const database = new URL(cluster.url);
database.pathname = `/${name}`;
const databaseUrl = database.href;
const rootKey = randomBytes(32).toString('base64');
const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
const vault = createVault({ rootKeys: createLocalRootKeys(parseRootKeys(rootKey, { production: true })) });
await vault.verify(db);
await vault.createTenantKey(db, null);
const appId = await seedApp({ db, vault });
const users = await seedGrants({ db, vault }, appId, FEW);
const bareKey = await seedBare(db, FEW);
await db.query({ text: 'ANALYZE', values: [] } as never);

const bareUrl = (line: string) => /^listening (\d+)$/.exec(line)?.[1];
const port = await freePort();
const bare = (mode: string) =>
  startServer(
    ['--import', 'tsx', new URL('bare-server.ts', import.meta.url).pathname, mode, databaseUrl, bareKey],
    {},
    bareUrl,
  );
const [hello, read, latchkey] = [
  await bare('hello'),
  await bare('read'),
  await startServer(
    [...(process.env['BENCH_NODE_FLAGS']?.split(' ') ?? []), new URL('../../dist/main.js', import.meta.url).pathname],
    {
      NODE_ENV: 'production',
      DATABASE_URL: databaseUrl,
      LATCHKEY_ROOT_KEY: rootKey,
      LATCHKEY_ADMIN_KEY: ADMIN_KEY,
      PORT: String(port),
      LATCHKEY_LOG_LEVEL: 'info',
    },
    (line) => (line.includes('"listening"') ? 'ready' : undefined),
  ),
];

const credentialTarget = (label: string, some: readonly SeededUser[]): Target => ({
  name: label,
  pid: latchkey.pid,
  url: `http://127.0.0.1:${port}`,
  headers: { authorization: `Bearer ${ADMIN_KEY}`, 'content-type': 'application/json' },
  requests: some.map(({ tenantId, userId }) => ({
    method: 'POST',
    path: '/graphql',
    body: JSON.stringify({ query: QUERY, variables: { input: { tenantId, userId, credentialFor: 'USER' } } }),
  })),
});
const get = (label: string, server: { pid: number; value: string }, paths: string[]): Target => ({
  name: label,
  pid: server.pid,
  url: `http://127.0.0.1:${server.value}`,
  headers: {},
  requests: paths.map((path) => ({ method: 'GET', path })),
});

const rows: Record<string, Sample[]> = {};
async function rounds(targets: readonly Target[]): Promise<void> {
  for (const target of targets) await sample(target, CONNECTIONS, WARM_UP_SECONDS);
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const target of targets) (rows[target.name] ??= []).push(await sample(target, CONNECTIONS, SECONDS));
  }
}

const helloTarget = get('node:http hello', hello, ['/']);
const readTarget = get(
  'node:http + SELECT + AES-256-GCM',
  read,
  Array.from({ length: FEW }, (_, id) => `/${id}`),
);
await rounds([helloTarget, readTarget, credentialTarget('credential, 1 000 grants', users)]);
const memory = { latchkeyFew: residentMegabytes(latchkey.pid), bare: residentMegabytes(read.pid) };

const more = await seedGrants({ db, vault }, appId, MANY - FEW);
await db.query({ text: 'ANALYZE', values: [] } as never);
// As many distinct users as before, spread over all of them: the data differs in size, the load does not.
const spread = Array.from({ length: FEW }, (_, index) => more[Math.floor((index * more.length) / FEW)]).filter(
  (user) => user !== undefined,
);
await rounds([credentialTarget('credential, 100 000 grants', spread)]);
const memoryMany = residentMegabytes(latchkey.pid);

const value = (label: string, pick: (row: Sample) => number) => median((rows[label] ?? []).map(pick));
const yardstick = value(readTarget.name, (row) => row.rps);
console.log(
  `\n${cpus().length} × ${cpus()[0]?.model ?? 'cpu'}, Node ${process.version}, load ${loadavg()[0]?.toFixed(2)}; medians of ${ROUNDS} × ${SECONDS} s at ${CONNECTIONS} connections after ${WARM_UP_SECONDS} s of warm-up\n`,
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
console.log(
  `\nresident memory: bare ${memory.bare.toFixed(0)} MB, Latchkey ${memory.latchkeyFew.toFixed(0)} MB (1 000 grants), ${memoryMany.toFixed(0)} MB (100 000 grants)`,
);

await mkdir('.reports', { recursive: true });
await writeFile(
  '.reports/bench-credential.json',
  JSON.stringify({ at: new Date(), node: process.version, rounds: rows, memory, memoryMany }, null, 2),
);
const ended = Promise.all([latchkey].map(({ child }) => new Promise((resolve) => child.once('close', resolve))));
for (const { child } of [hello, read, latchkey]) {
  child.removeAllListeners('exit');
  child.kill('SIGTERM');
}
await ended;
await db.close();
await admin(`DROP DATABASE ${name} WITH (FORCE)`);
await cluster.stop();
await rm(folder, { recursive: true, force: true });
process.exit(0);
