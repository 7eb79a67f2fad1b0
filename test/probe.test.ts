import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { probeDue } from '../src/domain/probe.js';
import { watchLag } from '../src/domain/refresh-lag.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  calls,
  type Connection,
  connectUser,
  events,
  expire,
  health,
  makeDue,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { startWorkshop } from './support/refresher.js';
import { connect, createTenant, registerApp, sandboxUser } from './support/story.js';
import { until } from './support/until.js';

const { server, createDeps, createRefresher } = await startWorkshop({ probeIntervalSeconds: 600 });
const { control } = server.sandbox;
const deps = createDeps();
const worker = { ...deps, refresher: createRefresher(deps) };

beforeEach(async () => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
  await server.db.query(sql`UPDATE credential SET next_probe_at = NULL, next_refresh_at = NULL`);
});

const probeSoon = (...connections: Connection[]) =>
  server.db.query(sql`
    UPDATE credential SET next_probe_at = now()
    WHERE grant_id = ANY(${connections.map(({ rowId }) => rowId)}::uuid[])`);

/** Seconds until the next probe; null where none is planned. */
async function nextProbe({ rowId }: Connection): Promise<number | null> {
  const [row] = await server.db.query<{ seconds: number | null }>(sql`
    SELECT extract(epoch FROM next_probe_at - now())::float8 AS seconds FROM credential WHERE grant_id = ${rowId}::uuid`);
  return row?.seconds ?? null;
}

test('an app that was removed at Zoom is found by the next probe, without a webhook and before the token expires', async () => {
  const [removed, kept] = [await connectUser(server), await connectUser(server)];
  control.updateApp(removed.app.clientId, { webhookUrl: null });
  control.removeGrant({ clientId: removed.app.clientId, userId: removed.zoomUserId });
  await probeSoon(removed, kept);
  await probeDue(worker);
  expect(await health(server, removed)).toBe('REAUTHORIZATION_REQUIRED GRANT_REJECTED');
  expect(await events(server, removed)).toEqual(['CONNECTED', 'GRANT_REJECTED']);
  expect(await health(server, kept)).toBe('HEALTHY CONNECTED');
  expect(calls(server, kept)).toEqual([]);
});

test('the turn moves on by the interval, give or take a quarter, whatever the probe finds', async () => {
  const connection = await connectUser(server);
  control.addFault({ route: 'users', clientId: connection.app.clientId, fault: { kind: 'status', status: 503 } });
  for (let probe = 0; probe < 2; probe += 1) {
    await probeSoon(connection);
    await probeDue(worker);
    const seconds = await nextProbe(connection);
    expect(seconds).toBeGreaterThan(440);
    expect(seconds).toBeLessThan(760);
    expect(await health(server, connection)).toBe('HEALTHY CONNECTED');
  }
});

test('several processes share the probes: each connection is asked about once', async () => {
  const connections = [await connectUser(server), await connectUser(server), await connectUser(server)];
  const before = connections.map((connection) => calls(server, connection, 'users').length);
  await probeSoon(...connections);
  await Promise.all([probeDue(worker), probeDue(worker), probeDue(worker)]);
  expect(connections.map((connection) => calls(server, connection, 'users').length)).toEqual(
    before.map((count) => count + 1),
  );
});

test('a token that has expired is not probed: its refresh will tell', async () => {
  const connection = await connectUser(server);
  const before = calls(server, connection, 'users').length;
  await expire(server, connection);
  await probeSoon(connection);
  await probeDue(worker);
  expect(calls(server, connection, 'users')).toHaveLength(before);
});

test('a connection gets its first probe on being connected, and none where the refresh comes first', async () => {
  const refreshed = await connectUser(server);
  await makeDue(server, refreshed);
  await worker.refresher.refreshDue(5);
  await until(async () => (await stored(server, refreshed))?.version === 2);
  expect(await nextProbe(refreshed)).toBeGreaterThan(400);
  control.setKnobs({ accessTokenSeconds: 60 });
  await makeDue(server, refreshed);
  await worker.refresher.refreshDue(5);
  await until(async () => (await stored(server, refreshed))?.version === 3);
  expect(await nextProbe(refreshed)).toBeNull();
});

/** A tenant with an installation, and a user of the same account. */
async function install() {
  const tenantId = await createTenant(server);
  const app = await registerApp(server, 'ADMIN_MANAGED');
  const admin = sandboxUser(server, 'Admin').id;
  const authorize = () => connect(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: app.id }, admin);
  expect((await authorize()).status).toBe('COMPLETED');
  return { app, admin, authorize, user: await connectUser(server, { tenantId }) };
}

test('an installation that is removed at Zoom has the users of its account probed at once', async () => {
  const { app, admin, user } = await install();
  expect(await nextProbe(user)).toBeGreaterThan(100);
  control.removeGrant({ clientId: app.clientId, userId: admin });
  await until(async () => ((await nextProbe(user)) ?? 1) <= 0);
});

test('a connection that an administrator had disallowed is healed when the app is installed again', async () => {
  const { authorize, user } = await install();
  await expire(server, user);
  const refusal = { code: 4738, reason: 'token is disabled by admin', error: 'invalid_grant' };
  spoilRefresh(server, user, { kind: 'status', status: 400, body: refusal });
  expect(await read(server, user)).toMatchObject({ reason: 'DISABLED_BY_ADMIN' });
  await authorize();
  await worker.refresher.refreshDue(5);
  await until(async () => (await health(server, user)) === 'HEALTHY RECOVERED');
  expect(await events(server, user)).toEqual(['CONNECTED', 'DISABLED_BY_ADMIN', 'RECOVERED']);
  expect(await read(server, user)).toMatchObject({ __typename: 'Credential', warning: null });
});

test('one that is still refused after that stays as it was, after one try and without another event', async () => {
  const { authorize, user } = await install();
  control.removeGrant({ clientId: user.app.clientId, userId: user.zoomUserId });
  await until(async () => (await health(server, user)) === 'REVOKED DEAUTHORIZED_AT_PROVIDER');
  const { user: other } = { user: await connectUser(server, { tenantId: user.tenantId, userId: 'user_2' }) };
  await expire(server, other);
  spoilRefresh(server, other, { kind: 'status', status: 400, body: { error: 'invalid_grant' } }, 2);
  expect(await read(server, other)).toMatchObject({ reason: 'GRANT_REJECTED' });
  await authorize();
  await worker.refresher.refreshDue(5);
  await until(() => calls(server, other).length === 2);
  await until(async () => (await stored(server, other))?.nextRefreshAt === null);
  await worker.refresher.refreshDue(5);
  expect(calls(server, other)).toHaveLength(2);
  expect(await events(server, other)).toEqual(['CONNECTED', 'GRANT_REJECTED']);
});

test('the operator is told once a minute has been lost, and by which app', async () => {
  const connection = await connectUser(server);
  const told = () => server.logs.filter((line) => line.includes('refreshes of a provider app are behind')).length;
  const overdue = (seconds: number) =>
    server.db.query(sql`
      UPDATE credential SET next_refresh_at = now() - make_interval(secs => ${seconds})
      WHERE grant_id = ${connection.rowId}::uuid`);
  await overdue(50);
  await watchLag(deps);
  expect(told()).toBe(0);
  await overdue(70);
  await watchLag(deps);
  expect(told()).toBe(1);
});
