import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import sql from 'sql-template-tag';
import { afterAll, afterEach, expect, inject, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { DEFAULT_KNOBS } from '../../src/sandbox/knobs.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { findCanaries } from '../support/canary.js';
import {
  calls,
  type Connection,
  connectUser,
  endWait,
  events,
  expire,
  meStatus,
  read,
  spoilRefresh,
  stored,
} from '../support/connections.js';
import { clientOf, spawnServer, type ServerProcess } from '../support/process.js';
import { TEST_ADMIN_KEY, type TestServer } from '../support/server.js';
import { until } from '../support/until.js';

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
const { control } = sandbox;
afterAll(() => sandbox.close());
const databaseUrl = await createEmptyDatabase();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-processes-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

const settings = {
  DATABASE_URL: databaseUrl,
  LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: folder,
  LATCHKEY_ROLE: 'api',
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_PROVIDER_DEADLINE_SECONDS: '3',
  LATCHKEY_LEASE_SECONDS: '4',
  LATCHKEY_DOUBT_SECONDS: '1',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
};

// All at once, on a database that has no table yet: each starts, and one of them migrates.
const processes = [spawnServer(settings), spawnServer(settings), spawnServer(settings)] as const;
await Promise.all(processes.map(({ listening }) => listening));
const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
afterAll(() => db.close());
const clients = (await Promise.all(processes.map((process) => clientOf(process, { sandbox, db })))) as [
  TestServer,
  TestServer,
  TestServer,
];
const [first, second, third] = clients;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

test('processes that start at once on an empty database all come up, and share it', async () => {
  const [row] = await db.query<{ unfinished: number }>(sql`
    SELECT count(*) AS unfinished FROM _prisma_migrations WHERE finished_at IS NULL OR rolled_back_at IS NOT NULL`);
  expect(row).toEqual({ unfinished: 0 });
  const connection = await connectUser(first);
  for (const client of clients)
    expect(await read(client, connection)).toMatchObject({ __typename: 'Credential', version: 1 });
});

test('a hundred readers at each of three processes cause one refresh and get the same token', async () => {
  control.setKnobs({ tokenDelayMs: 300 });
  const connection = await connectUser(first);
  await expire(first, connection);
  const answers = await Promise.all(
    clients.flatMap((client) => Array.from({ length: 100 }, () => read(client, connection))),
  );
  expect(new Set(answers.map(({ __typename, version }) => `${__typename} ${version}`))).toEqual(
    new Set(['Credential 2']),
  );
  expect(new Set(answers.map(({ accessToken }) => accessToken)).size).toBe(1);
  expect(calls(first, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
});

test('an owner that is frozen for longer than lease and doubt gives nobody the answer it slept through', async () => {
  control.setKnobs({ refreshMode: 'tolerance' });
  const connection = await connectUser(first);
  await expire(first, connection);
  spoilRefresh(first, connection, { kind: 'hang', when: 'after', ms: 300 });
  const sleeping = read(third, connection);
  await until(() => calls(first, connection).some(({ outcome }) => outcome === 'rotated'));
  processes[2].kill('SIGSTOP');
  await endLease(connection);
  const taken = await read(second, connection);
  expect(taken).toMatchObject({ __typename: 'Credential', version: 2 });
  processes[2].kill('SIGCONT');
  const late = await sleeping;
  expect(late).toMatchObject({ __typename: 'Credential', version: 2, accessToken: taken.accessToken });
  expect(await stored(first, connection)).toMatchObject({ version: 2, state: 'IDLE', failures: 0 });
  expect(calls(first, connection)).toHaveLength(2);
  expect(await meStatus(taken)).toBe(200);
});

test('an owner that is killed in the middle of a refresh leaves what can be recovered to the others', async () => {
  const [unsent, rotated] = [await connectUser(first), await connectUser(first)];
  await expire(first, unsent, rotated);
  spoilRefresh(first, unsent, { kind: 'hang', when: 'before', ms: 2_000 });
  spoilRefresh(first, rotated, { kind: 'hang', when: 'after', ms: 2_000 });
  const cut = Promise.allSettled([read(third, unsent), read(third, rotated)]);
  await until(() => calls(first, unsent).length === 1 && calls(first, rotated)[0]?.outcome === 'rotated');
  processes[2].kill('SIGKILL');
  expect((await cut).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  await until(() => calls(first, unsent)[0]?.outcome === 'not-performed');

  // Nobody asks Zoom before lease and doubt have passed; a reader waits for that and has its token then.
  expect(await stored(first, unsent)).toMatchObject({ state: 'REFRESHING', version: 1 });
  const recovered = await read(second, unsent);
  expect(recovered).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
  expect(await meStatus(recovered)).toBe(200);
  const sent = calls(first, unsent);
  expect(sent.map(({ outcome }) => outcome)).toEqual(['not-performed', 'rotated']);
  expect(sent[1]?.tokenFingerprint).toBe(sent[0]?.tokenFingerprint);
  // Lease and doubt are five seconds together.
  expect(Date.parse(sent[1]?.at ?? '') - Date.parse(sent[0]?.at ?? '')).toBeGreaterThan(4_900);
  expect(await events(first, unsent)).toEqual(['CONNECTED']);

  for (const client of [first, second, first]) {
    expect(await read(client, rotated)).toMatchObject({
      __typename: 'ReauthorizationRequiredError',
      reason: 'ROTATION_LOST',
    });
  }
  expect(calls(first, rotated).map(({ outcome }) => outcome)).toEqual(['rotated', 'reused-token']);
  expect(await events(first, rotated)).toEqual(['CONNECTED', 'ROTATION_LOST']);
});

test('a process with another root key does not start, and says why in one sentence', async () => {
  await expectRefusal(spawnServer({ ...settings, LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64') }), /root key/i);
});

test('a process that is told to stop finishes its refreshes and ends with 0', async () => {
  const connection = await connectUser(first);
  await expire(first, connection);
  control.setKnobs({ tokenDelayMs: 700 });
  const reading = read(second, connection);
  await until(() => calls(first, connection).length === 1);
  processes[1].kill('SIGTERM');
  processes[1].kill('SIGTERM');
  expect(await reading).toMatchObject({ __typename: 'Credential', version: 2 });
  expect(await processes[1].exited).toEqual({ code: 0, signal: null });
  expect(await read(first, connection)).toMatchObject({ version: 2 });
  expect(calls(first, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
});

test('after all that no secret is in what the processes printed or stored', async () => {
  const output = processes.map((process) => process.output()).join('\n');
  expect(output).toContain('a refresh failed');
  expect(await findCanaries({ output }, db)).toEqual([]);
});

/** The lease runs out, and the wait that follows it. */
async function endLease(connection: Connection): Promise<void> {
  await until(async () => (await stored(first, connection))?.state === 'REFRESHING');
  await endWait(first, connection);
}

async function expectRefusal(server: ServerProcess, sentence: RegExp): Promise<void> {
  expect(await server.exited).toEqual({ code: 1, signal: null });
  expect(server.output()).toMatch(sentence);
  expect(server.output().trim().split('\n')).toHaveLength(1);
}

/** A database without a single table. */
async function createEmptyDatabase(): Promise<string> {
  const name = `latchkey_test_${randomBytes(6).toString('hex')}`;
  const run = async (statement: string) => {
    const client = new pg.Client({ connectionString: inject('postgresUrl') });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await run(`CREATE DATABASE ${name}`);
  afterAll(() => run(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  return url.href;
}
