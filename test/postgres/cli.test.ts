import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, expect, test } from 'vitest';
import { runCli, startCli } from '../support/cli.js';
import { createPostgresDatabase, restoreBackup } from '../support/database.js';
import { freePort } from '../support/free-port.js';
import { TEST_ADMIN_KEY } from '../support/server.js';
import { until } from '../support/until.js';
import { HAS_OWN_ROLE, IS_POOLED } from '../support/way-to-database.js';

const folder = await mkdtemp(join(tmpdir(), 'latchkey-cli-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

const [formerKey, newKey] = [randomBytes(32).toString('base64'), randomBytes(32).toString('base64')];
const databaseUrl = await createPostgresDatabase();
const port = String(await freePort());
const env = {
  PORT: port,
  DATABASE_URL: databaseUrl,
  LATCHKEY_ROOT_KEY: formerKey,
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: join(folder, 'data'),
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_LOG_LEVEL: 'info',
};

// The server of the whole file, by the command line as well.
const served = startCli(['serve'], env);
afterAll(() => served.kill('SIGKILL'));
await until(async () =>
  fetch(`http://localhost:${port}/readyz`).then(
    ({ ok }) => ok,
    () => false,
  ),
);

interface Check {
  check: string;
  status: string;
  detail: string;
  remedy: string | null;
}

/** What `latchkey doctor` finds with these settings, by check; the last word on it where there are two. */
async function doctor(settings: Record<string, string> = {}, preload?: string) {
  const result = await runCli(['doctor', '--json'], { ...env, ...settings }, preload === undefined ? {} : { preload });
  const { healthy, checks } = result.json() as { healthy: boolean; checks: Check[] };
  const find = (status: string) => checks.find((one) => one.status === status);
  return { code: result.code, healthy, checks, failed: find('failed') };
}

test('with a server that runs every check passes, or is a warning about development, and the exit code is 0', async () => {
  const { code, healthy, checks } = await doctor();
  expect({ code, healthy }).toEqual({ code: 0, healthy: true });
  const statuses = checks.map(({ check, status }) => `${check} ${status}`);
  expect(statuses).toEqual([
    'settings warned',
    'root key passed',
    'database passed',
    'database role warned',
    ...(HAS_OWN_ROLE ? ['database role passed'] : []),
    'migrations passed',
    'root key passed',
    'deployment passed',
    'clock passed',
    'public URL passed',
    'webhooks warned',
  ]);
  for (const { status, remedy } of checks) expect(remedy === null).toBe(status === 'passed');
});

const elsewhere = (change: (url: URL) => void) => {
  const url = new URL(databaseUrl);
  change(url);
  return url.href;
};

/** A pooler answers for the database, and takes no options either. */
const POOLER_REMEDY = 'Let the pooler know';

test.each<[string, Record<string, string>, string, string]>([
  ['a setting is wrong', { PORT: 'high' }, 'settings', 'README.md'],
  ['a root key is none', { LATCHKEY_ROOT_KEY: 'short' }, 'root key', 'rotate root --generate'],
  ['the root key is another', { LATCHKEY_ROOT_KEY: newKey }, 'root key', 'Give the root key of fingerprint'],
  ['no database answers', { DATABASE_URL: elsewhere((url) => (url.port = '1')) }, 'database', 'Start PostgreSQL'],
  [
    'the database is missing',
    { DATABASE_URL: elsewhere((url) => (url.pathname = '/nowhere')) },
    'database',
    IS_POOLED ? POOLER_REMEDY : 'createdb',
  ],
  [
    'the database may only be read',
    { DATABASE_URL: elsewhere((url) => url.searchParams.set('options', '-c default_transaction_read_only=on')) },
    'database',
    IS_POOLED ? POOLER_REMEDY : 'primary',
  ],
  [
    'the public URL leads nowhere',
    { LATCHKEY_PUBLIC_URL: 'http://localhost:1' },
    'public URL',
    'DNS, TLS and the proxy',
  ],
])('where %s, that check fails and names its remedy', async (_case, settings, check, remedy) => {
  const { code, failed } = await doctor(settings);
  expect(code).toBe(1);
  expect(failed).toMatchObject({ check, remedy: expect.stringContaining(remedy) });
});

test('where the clock is wrong, that check fails and names its remedy', async () => {
  const { failed } = await doctor({}, 'const now = Date.now; Date.now = () => now() + 120_000;');
  expect(failed).toMatchObject({
    check: 'clock',
    detail: "120.0 s from the database's",
    remedy: expect.stringContaining('chrony'),
  });
});

/** Passes everything on to the server but what `intercept` answers. */
async function startProxy(intercept: Record<string, number>): Promise<string> {
  const proxy = createServer((req, res) => {
    const status = intercept[req.url?.startsWith('/webhooks/') === true ? '/webhooks/' : (req.url ?? '')];
    if (status !== undefined) return void res.writeHead(status, { 'content-type': 'text/html' }).end('<h1>proxy</h1>');
    return void fetch(`http://localhost:${port}${req.url}`).then(async (answer) =>
      res.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text()),
    );
  });
  await new Promise<void>((resolve) => proxy.listen(0, 'localhost', resolve));
  afterAll(() => proxy.close());
  return `http://localhost:${(proxy.address() as AddressInfo).port}`;
}

test('a proxy that keeps webhooks for itself, and a server that is not ready, are found', async () => {
  const [webhooks, ready] = await Promise.all([startProxy({ '/webhooks/': 403 }), startProxy({ '/readyz': 503 })]);
  const findings = await Promise.all([
    doctor({ LATCHKEY_PUBLIC_URL: webhooks }),
    doctor({ LATCHKEY_PUBLIC_URL: ready }),
  ]);
  expect(findings.map(({ failed }) => failed)).toMatchObject([
    { check: 'webhooks', detail: '403 instead of an answer of Latchkey', remedy: expect.stringContaining('proxy') },
    { check: 'public URL', detail: expect.stringContaining('not ready'), remedy: expect.stringContaining('/metrics') },
  ]);
});

async function change(url: string, statement: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  await client.query(statement);
  await client.end();
}

/** What the command line has left in the trail, which then still verifies. */
async function operatorEvents(url: string, settings: Record<string, string> = {}): Promise<string[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ action: string }>(
    `SELECT action FROM audit_event WHERE principal_kind = 'OPERATOR' AND principal_id = 'command-line' ORDER BY sequence`,
  );
  await client.end();
  expect(await runCli(['verify-audit'], { ...env, DATABASE_URL: url, ...settings })).toMatchObject({ code: 0 });
  return rows.map(({ action }) => action);
}

test(
  'a restored database is found, refuses to be adopted while its origin may be alive, and is adopted after',
  { timeout: 60_000 },
  async () => {
    const restored = { DATABASE_URL: await restoreBackup(databaseUrl) };
    expect((await doctor(restored)).failed).toMatchObject({
      check: 'deployment',
      detail: 'quarantine: the database was copied or restored',
      remedy: expect.stringContaining('latchkey adopt'),
    });
    const early = await runCli(['adopt'], { ...env, ...restored });
    expect(early).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('--force') });
    await change(restored.DATABASE_URL, `UPDATE deployment SET alive_at = now() - interval '1 minute'`);
    const adopted = await runCli(['adopt', '--json'], { ...env, ...restored });
    expect(adopted.json()).toMatchObject({ adopted: true, mismatch: 'other_database', aliveAt: expect.any(String) });
    const [again, released] = await Promise.all([
      runCli(['adopt', '--json'], { ...env, ...restored }),
      runCli(['adopt', '--release'], { ...env, ...restored }),
    ]);
    expect(again.json()).toMatchObject({ adopted: false });
    expect(released).toMatchObject({ code: 0, stdout: 'the refreshes of 0 apps go on\n' });
    expect(await operatorEvents(restored.DATABASE_URL)).toEqual([
      'deployment.adopted',
      'deployment.refreshes_released',
    ]);

    await change(restored.DATABASE_URL, `DELETE FROM _prisma_migrations WHERE migration_name LIKE '%_first'`);
    expect((await doctor(restored)).failed).toMatchObject({
      check: 'migrations',
      remedy: expect.stringContaining('Start a server of this version'),
    });
  },
);

test('the system key and the root key are rotated; afterwards the new root key alone opens the database', async () => {
  const both = { ...env, LATCHKEY_ROOT_KEY: `${newKey},${formerKey}` };
  expect(await runCli(['rotate', 'system'], env)).toMatchObject({
    code: 0,
    stdout: expect.stringContaining('new version'),
  });
  const rotated = await runCli(['rotate', 'root', '--json'], both);
  expect(rotated.json()).toEqual({ rewrapped: 2, pending: 0 });
  const [withNew, withFormer] = await Promise.all([
    doctor({ LATCHKEY_ROOT_KEY: newKey }),
    runCli(['rotate', 'root'], env),
  ]);
  expect(withNew.failed).toBeUndefined();
  const events = await operatorEvents(databaseUrl, { LATCHKEY_ROOT_KEY: newKey });
  expect(events).toEqual(['system_key.rotated', 'root_key.rewrapped']);
  expect(withFormer).toMatchObject({ code: 1, stderr: expect.stringContaining('still needs root key') });
});

test('serve is the server itself: a signal to it ends it in order', async () => {
  served.kill('SIGTERM');
  expect(await served.done).toMatchObject({ code: 0, stdout: expect.stringContaining('"msg":"listening"') });
});
