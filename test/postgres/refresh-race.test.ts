import sql from 'sql-template-tag';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../../src/sandbox/knobs.js';
import {
  calls,
  type Connection,
  connectUser,
  disconnect,
  events,
  expire,
  health,
  makeDue,
  read,
  spoilRefresh,
  stored,
} from '../support/connections.js';
import { startInstances } from '../support/instances.js';
import { createTenant, registerApp } from '../support/story.js';
import { until } from '../support/until.js';

const instances = await startInstances(3, {
  LATCHKEY_PROVIDER_DEADLINE_SECONDS: '3',
  LATCHKEY_LEASE_SECONDS: '4',
  LATCHKEY_DOUBT_SECONDS: '1',
});
const [one, two, three] = instances as [(typeof instances)[0], (typeof instances)[0], (typeof instances)[0]];
const { control } = one.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

/** `count` readers at each server, all at once. */
const readEverywhere = (connection: Connection, count: number) =>
  Promise.all(instances.flatMap((instance) => Array.from({ length: count }, () => read(instance, connection))));

async function connectMany(count: number): Promise<Connection[]> {
  const app = await registerApp(one, 'USER_MANAGED');
  const tenantId = await createTenant(one);
  const connections: Connection[] = [];
  for (let index = 0; index < count; index += 1) {
    connections.push(await connectUser(one, { app, tenantId, userId: `user_${index}` }));
  }
  return connections;
}

test('a hundred readers at each of three servers cause one refresh and get the same token', async () => {
  control.setKnobs({ tokenDelayMs: 300 });
  const connection = await connectUser(one);
  await expire(one, connection);
  const answers = await readEverywhere(connection, 100);
  expect(new Set(answers.map(({ __typename, version }) => `${__typename} ${version}`))).toEqual(
    new Set(['Credential 2']),
  );
  expect(new Set(answers.map(({ accessToken }) => accessToken)).size).toBe(1);
  expect(calls(one, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
  expect(await stored(one, connection)).toMatchObject({ version: 2, fence: 2 });
  expect(await events(one, connection)).toEqual(['CONNECTED']);
});

test('a provider slower than the lease is asked once; nobody uses the refresh token again until the doubt is over', async () => {
  const connection = await connectUser(one);
  await expire(one, connection);
  spoilRefresh(one, connection, { kind: 'hang', when: 'after', ms: 4_500 });
  const answers = await readEverywhere(connection, 10);
  expect(new Set(answers.map(({ __typename }) => __typename))).toEqual(new Set(['ProviderUnavailableError']));
  expect(calls(one, connection)).toHaveLength(1);
  await until(async () => (await health(one, connection)) !== 'HEALTHY CONNECTED');
  expect((await readEverywhere(connection, 3)).map(({ reason }) => reason)).toEqual(Array(9).fill('ROTATION_LOST'));
  expect(calls(one, connection).map(({ outcome }) => outcome)).toEqual(['rotated', 'reused-token']);
  expect(await events(one, connection)).toEqual(['CONNECTED', 'ROTATION_LOST']);
});

test('three schedulers refresh each due credential exactly once', async () => {
  const connections = await connectMany(12);
  await makeDue(one, ...connections);
  await until(async () =>
    (await Promise.all(connections.map((connection) => stored(one, connection)))).every((row) => row?.version === 2),
  );
  const { app } = connections[0] as Connection;
  const sent = calls(one, { app });
  expect(sent.map(({ outcome }) => outcome)).toEqual(Array(12).fill('rotated'));
  expect(new Set(sent.map(({ tokenFingerprint }) => tokenFingerprint)).size).toBe(12);
});

test('connections that are ended by one server while others refresh them stay ended, and none is left at Zoom', async () => {
  control.setKnobs({ tokenDelayMs: 100 });
  const connections = await connectMany(12);
  const { app } = connections[0] as Connection;
  await expire(one, ...connections);
  const readings = connections.map((connection, index) => read(index % 2 === 0 ? two : three, connection));
  await until(() => calls(one, { app }).length === connections.length);
  const ends = await Promise.all(connections.map((connection) => disconnect(one, connection)));
  expect(ends).toEqual(Array(12).fill({ status: 'REVOKED', reason: 'DISCONNECTED' }));
  await Promise.all(readings);
  for (const connection of connections) {
    expect(await stored(one, connection)).toBeUndefined();
    expect(await events(one, connection)).toEqual(['CONNECTED', 'DISCONNECTED']);
  }
  await until(() => control.grants().every(({ clientId }) => clientId !== app.clientId));
});

test.each([
  ['stored', undefined],
  ['refused', { kind: 'status' as const, status: 400, body: { error: 'invalid_grant' } }],
  ['put off', { kind: 'status' as const, status: 503 }],
])('ending a connection while its refresh is being %s is no deadlock', async (_how, fault) => {
  const connection = await connectUser(one);
  await expire(one, connection);
  spoilRefresh(one, connection, fault ?? { kind: 'hang', when: 'after', ms: 1_500 });
  const logged = one.logs.length;
  let reading: Promise<{ __typename: string }> | undefined;
  // The steps of whoever ends a connection: its grant first, then the credential.
  await one.db.transaction(async (tx) => {
    await tx.query(sql`SELECT id FROM provider_grant WHERE id = ${connection.rowId}::uuid FOR UPDATE`);
    reading = read(two, connection);
    // What is stored for a healthy connection concerns its credential alone, and meets the one who ends it there.
    if (fault === undefined) {
      await until(() => calls(one, connection).length === 1);
      await tx.query(sql`DELETE FROM credential WHERE grant_id = ${connection.rowId}::uuid`);
    }
    await until(async () => {
      const [row] = await one.db.query<{ waiting: number }>(sql`
        SELECT count(*) AS waiting FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'`);
      return row?.waiting === 1;
    });
    await tx.query(sql`DELETE FROM credential WHERE grant_id = ${connection.rowId}::uuid`);
  });
  expect((await reading)?.__typename).toBe('ProviderUnavailableError');
  // A deadlock ends one of the two, which is logged as an error and tried again.
  expect(one.logs.slice(logged).filter((line) => line.includes('"level":50'))).toEqual([]);
  expect(calls(one, connection)).toHaveLength(1);
  expect(await stored(one, connection)).toBeUndefined();
  expect(await health(one, connection)).toBe('HEALTHY CONNECTED');
});

test('an app whose secret Zoom refuses is asked about at most once for each credential, by all servers together', async () => {
  const connections = await connectMany(4);
  const { app } = connections[0] as Connection;
  control.rotateSecret(app.clientId);
  await expire(one, ...connections);
  for (let round = 0; round < 3; round += 1) {
    const answers = await Promise.all(
      connections.flatMap((connection) => instances.map((instance) => read(instance, connection))),
    );
    expect(new Set(answers.map(({ __typename }) => __typename))).toEqual(new Set(['ProviderUnavailableError']));
  }
  expect(calls(one, { app }).length).toBeLessThanOrEqual(4);
  for (const connection of connections) expect(await health(one, connection)).toBe('HEALTHY CONNECTED');
});
