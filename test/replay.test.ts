import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { callAsApp } from '../src/domain/app-secret.js';
import { credentialPlace } from '../src/domain/grant.js';
import { databaseNow, takeLease } from '../src/domain/lease.js';
import { createSpoolCipher, type Renewal, renewedRow, spoolEntry } from '../src/domain/renewal.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  age,
  calls,
  type Connection,
  connectUser,
  disconnect,
  endWait,
  events,
  expire,
  health,
  makeDue,
  meStatus,
  read,
  stored,
} from './support/connections.js';
import { createSpool } from '../src/spool/spool.js';
import { startWorkshop } from './support/refresher.js';
import { until } from './support/until.js';

const workshop = await startWorkshop();
const { server, folder, createDeps, createRefresher } = workshop;
const { control } = server.sandbox;

beforeEach(() => control.setKnobs(DEFAULT_KNOBS));
afterEach(async () => until(async () => (await readdir(folder).catch(() => [])).length === 0));

/** What a process does until its answer is on the disk, and no further. */
async function renewAndDie(connection: Connection): Promise<void> {
  const deps = createDeps();
  const { version = 0 } = (await stored(server, connection)) ?? {};
  const lease = await takeLease(deps, { grantId: connection.rowId, version }, { force: true });
  if (lease === null || lease.sealedRefreshToken === null) throw new Error('No lease was to be had.');
  const { grantId, tenantId, fence } = lease;
  const place = credentialPlace({ id: grantId, tenantId }, 'sealed_refresh_token', version);
  const refreshToken = await deps.vault.open(deps.db, place, lease.sealedRefreshToken);
  const issuedAt = databaseNow(lease);
  const tokens = await callAsApp(deps, lease.app, (client) => deps.zoom.refresh(client, refreshToken));
  const renewal: Renewal = { grantId, tenantId, fence, version, issuedAt, tokens, isRotated: true };
  const keep = await deps.spool.prepare();
  await keep(spoolEntry(renewedRow(await deps.vault.sealer(deps.db, tenantId), deps.settings, renewal)));
}

/** The next process on the same machine starts. */
const startAgain = () => createRefresher().replay({ all: true });

/** Another process finds the lease over, and uses the refresh token once more. */
async function retryElsewhere(connection: Connection): Promise<void> {
  await endWait(server, connection);
  await read(server, connection);
}

async function connectAndDie(): Promise<Connection> {
  const connection = await connectUser(server);
  await expire(server, connection);
  await renewAndDie(connection);
  return connection;
}

test('tokens that a process had on its disk when it died are stored by the next one, without asking Zoom', async () => {
  const connection = await connectAndDie();
  expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'REFRESHING' });
  await startAgain();
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE', failures: 0 });
  const answer = await read(server, connection);
  expect(await meStatus(answer)).toBe(200);
  expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
  expect(await events(server, connection)).toEqual(['CONNECTED']);
});

test('the disk holds no secret that can be read', async () => {
  const connection = await connectAndDie();
  const files = await readdir(folder);
  const text = (await Promise.all(files.map((file) => readFile(join(folder, file), 'latin1')))).join('\n');
  expect(text.length).toBeGreaterThan(500);
  for (const hidden of ['ZCANARY', connection.rowId]) expect(text).not.toContain(hidden);
  await startAgain();
});

test('a rotation that was taken for lost meanwhile is found, and told as recovered', async () => {
  const connection = await connectAndDie();
  await retryElsewhere(connection);
  expect(await health(server, connection)).toBe('REAUTHORIZATION_REQUIRED ROTATION_LOST');
  await startAgain();
  expect(await health(server, connection)).toBe('HEALTHY RECOVERED');
  const answer = await read(server, connection);
  expect(await meStatus(answer)).toBe(200);
  expect(answer).toMatchObject({ version: 2, warning: null });
  expect(await events(server, connection)).toEqual(['CONNECTED', 'ROTATION_LOST', 'RECOVERED']);
  await expire(server, connection);
  expect(await read(server, connection)).toMatchObject({ version: 3 });
});

test('found tokens that Zoom does not take any more stay lost', async () => {
  control.setKnobs({ refreshMode: 'family-revoke' });
  const connection = await connectAndDie();
  await retryElsewhere(connection);
  await startAgain();
  expect(await health(server, connection)).toBe('REAUTHORIZATION_REQUIRED ROTATION_LOST');
  expect(await events(server, connection)).toEqual(['CONNECTED', 'ROTATION_LOST']);
});

test('a found refresh token whose access token has expired is tried, and recovers the connection', async () => {
  control.setKnobs({ accessTokenSeconds: 1 });
  const connection = await connectAndDie();
  control.setKnobs({ accessTokenSeconds: 3_600 });
  await retryElsewhere(connection);
  const asked = Date.now();
  await until(() => Date.now() - asked > 1_100);
  await startAgain();
  expect(await health(server, connection)).toBe('REAUTHORIZATION_REQUIRED ROTATION_LOST');
  const refresher = createRefresher();
  await refresher.refreshDue(10);
  await refresher.drain();
  expect(await health(server, connection)).toBe('HEALTHY RECOVERED');
  expect(await meStatus(await read(server, connection))).toBe(200);
  expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated', 'reused-token', 'rotated']);
});

test('a doubt that nobody is at is settled by the tokens on the disk, without another call', async () => {
  const connection = await connectAndDie();
  control.addFault({
    route: 'token',
    clientId: connection.app.clientId,
    grantType: 'refresh_token',
    fault: { kind: 'drop', when: 'before' },
  });
  await retryElsewhere(connection);
  expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IN_DOUBT' });
  await startAgain();
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE' });
  expect(await meStatus(await read(server, connection))).toBe(200);
  expect(calls(server, connection)).toHaveLength(2);
  expect(await events(server, connection)).toEqual(['CONNECTED']);
});

test('while another process is asking, found tokens wait for what comes of it', async () => {
  const connection = await connectAndDie();
  await age(server, -1, connection);
  await endWait(server, connection);
  const deps = createDeps();
  expect(await takeLease(deps, { grantId: connection.rowId, version: 1 }, { force: false })).not.toBeNull();
  const refresher = createRefresher();
  await refresher.replay({ all: true });
  expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IN_DOUBT' });
  await endWait(server, connection);
  await refresher.replay();
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE' });
});

test('found tokens are not given up when another process begins to ask while they are being tried', async () => {
  const connection = await connectAndDie();
  const { clientId: ours } = connection.app;
  control.addFault({ route: 'token', clientId: ours, fault: { kind: 'drop', when: 'before' } });
  await retryElsewhere(connection);
  await endWait(server, connection);
  const tried = { route: 'users', clientId: ours } as const;
  control.addFault({ ...tried, fault: { kind: 'hang', when: 'after', ms: 500 } });
  const since = control.journal().at(-1)?.seq;
  const replayed = startAgain();
  await control.waitFor(({ route, clientId }) => route === tried.route && clientId === tried.clientId, since);
  const deps = createDeps();
  const lease = await takeLease(deps, { grantId: connection.rowId, version: 1 }, { force: true });
  expect(lease).not.toBeNull();
  await replayed;
  expect(await stored(server, connection)).toMatchObject({ version: 1 });
  expect(await readdir(folder)).toHaveLength(1);
  await endWait(server, connection);
  await startAgain();
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE' });
  expect(await meStatus(await read(server, connection))).toBe(200);
});

test('tokens of a connection that was ended meanwhile are revoked at Zoom, not stored', async () => {
  const connection = await connectAndDie();
  await disconnect(server, connection);
  await startAgain();
  expect(await health(server, connection)).toBe('REVOKED DISCONNECTED');
  expect(await stored(server, connection)).toBeUndefined();
  await until(() => control.grants().every(({ clientId }) => clientId !== connection.app.clientId));
});

test('tokens from before a new consent do not replace those that came with it', async () => {
  const connection = await connectAndDie();
  await disconnect(server, connection);
  await connectUser(server, connection);
  const before = await read(server, connection);
  await startAgain();
  expect(await read(server, connection)).toMatchObject({ accessToken: before.accessToken, version: 2 });
  expect(await meStatus(before)).toBe(200);
});

test('a file that was changed, or given another name, is worth nothing, is told, and is put aside', async () => {
  const connection = await connectAndDie();
  const [file = ''] = await readdir(folder);
  const [path, renamed] = [join(folder, file), join(folder, `1${file}`)];
  const whole = await readFile(path);
  const logged = server.logs.length;
  await writeFile(path, whole.with(-1, (whole.at(-1) ?? 0) ^ 1));
  await writeFile(renamed, whole);
  await startAgain();
  expect(await stored(server, connection)).toMatchObject({ version: 1 });
  expect(server.logs.slice(logged).filter((line) => line.includes('damaged'))).toHaveLength(2);
  expect(await readdir(folder)).toHaveLength(2);
  for (const aside of [path, renamed]) await rm(`${aside}.damaged`);
});

test('where the disk fails a refresh goes on without it', async () => {
  const connection = await connectUser(server);
  await makeDue(server, connection);
  const deps = createDeps();
  const blocked = fileURLToPath(import.meta.url);
  const refresher = createRefresher({
    ...deps,
    spool: createSpool({ disk: { folder: blocked, cipher: createSpoolCipher(deps) }, log: deps.log }),
  });
  await refresher.refreshDue(10);
  await refresher.drain();
  expect(await stored(server, connection)).toMatchObject({ version: 2 });
  expect(server.logs.some((line) => line.includes('could not be written to the spool'))).toBe(true);
});
