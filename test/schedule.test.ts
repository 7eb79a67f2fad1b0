import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  age,
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
import { createTenant, registerApp, type RegisteredApp } from './support/story.js';
import { until } from './support/until.js';

const { server, createDeps, createRefresher } = await startWorkshop({ refreshesPerTenant: 2 });
const { control } = server.sandbox;

beforeEach(async () => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
  // Nothing of an earlier test is due.
  await server.db.query(sql`UPDATE credential SET next_refresh_at = NULL`);
});

async function connectMany(count: number, given: { app: RegisteredApp; tenantId: string }): Promise<Connection[]> {
  const connections: Connection[] = [];
  for (let index = 0; index < count; index += 1) {
    connections.push(await connectUser(server, { ...given, userId: `user_${index}` }));
  }
  return connections;
}

const newApp = () => registerApp(server, 'USER_MANAGED');

/** Moments at which the sandbox was asked, in milliseconds. */
const askedAt = (app: RegisteredApp) => calls(server, { app }).map(({ at }) => Date.parse(at));

/** Takes up what is due until nothing is left, or the tests' time is over. */
async function work(refresher: ReturnType<typeof createRefresher>, done: () => boolean | Promise<boolean>) {
  await until(async () => {
    await refresher.refreshDue(10);
    return done();
  });
  await refresher.drain();
}

const areRenewed = async (connections: readonly Connection[]) =>
  (await Promise.all(connections.map((connection) => stored(server, connection)))).every((row) => row?.version === 2);

test('a tenant with many due credentials does not keep the others of its app waiting', async () => {
  control.setKnobs({ tokenDelayMs: 100 });
  const app = await newApp();
  const crowd = await connectMany(5, { app, tenantId: await createTenant(server) });
  const alone = await connectUser(server, { app });
  await makeDue(server, ...crowd);
  await makeDue(server, alone);
  const refresher = createRefresher();
  await refresher.refreshDue(10);
  // Two of the crowd, which is its share, and the one who came last.
  await until(() => calls(server, { app }).length === 3);
  await until(async () => (await stored(server, alone))?.version === 2);
  const renewed = await Promise.all(crowd.map((connection) => stored(server, connection)));
  expect(renewed.filter((row) => row?.version === 2).length).toBeLessThanOrEqual(4);
  await work(refresher, () => areRenewed(crowd));
});

test('a tenant behind thousands of another tenant is not kept waiting', async () => {
  const app = await newApp();
  const tenantId = await createTenant(server);
  const [crowd, alone] = [await connectUser(server, { app, tenantId }), await connectUser(server, { app })];
  // None of the copies could be opened: what is sealed for one grant opens for no other.
  await server.db.query(sql`
    WITH copies AS (
      INSERT INTO provider_grant SELECT (g.copy).* FROM (
        SELECT jsonb_populate_record(o, jsonb_build_object('id', gen_random_uuid(), 'subject', 'copy_' || n,
          'external_user_id', 'copy_' || n, 'provider_user_id', 'copy_' || n)) AS copy
        FROM provider_grant o, generate_series(1, 2_500) n WHERE o.id = ${crowd.rowId}::uuid) g
      RETURNING id)
    INSERT INTO credential SELECT (c.copy).* FROM (
      SELECT jsonb_populate_record(o, jsonb_build_object('grant_id', copies.id,
        'next_refresh_at', now() - interval '1 hour')) AS copy
      FROM credential o, copies WHERE o.grant_id = ${crowd.rowId}::uuid) c`);
  await makeDue(server, alone);
  const refresher = createRefresher();
  await refresher.refreshDue(10);
  await refresher.drain();
  expect(await stored(server, alone)).toMatchObject({ version: 2 });
  await server.db.query(sql`DELETE FROM provider_grant WHERE subject LIKE 'copy\_%'`);
});

test('an app with a backlog does not keep another app waiting', async () => {
  control.setKnobs({ tokenDelayMs: 50 });
  const [busy, idle] = [await newApp(), await newApp()];
  const backlog: Connection[] = [];
  for (let tenant = 0; tenant < 3; tenant += 1) {
    backlog.push(...(await connectMany(2, { app: busy, tenantId: await createTenant(server) })));
  }
  const alone = await connectUser(server, { app: idle });
  await makeDue(server, ...backlog);
  await makeDue(server, alone);
  const refresher = createRefresher();
  await refresher.refreshDue(4);
  await until(() => calls(server, { app: idle }).length === 1);
  expect(calls(server, { app: busy }).length).toBeLessThan(backlog.length);
  await work(refresher, () => areRenewed([...backlog, alone]));
});

test('several schedulers together keep to the pace of an app', async () => {
  const app = await newApp();
  const connections = await connectMany(9, { app, tenantId: await createTenant(server) });
  await makeDue(server, ...connections);
  const refreshers = Array.from({ length: 3 }, () => {
    const deps = createDeps();
    return createRefresher({ ...deps, settings: { ...deps.settings, refreshesPerSecond: 4, refreshesPerTenant: 9 } });
  });
  await Promise.all(refreshers.map((refresher) => work(refresher, () => areRenewed(connections))));
  const moments = askedAt(app);
  expect(moments).toHaveLength(9);
  // Four a second; what was let go late may meet what follows it.
  const first = moments[0] ?? 0;
  for (const [index, moment] of moments.entries()) {
    expect(index + 1).toBeLessThanOrEqual(2.5 + ((moment - first) / 1_000) * 4);
  }
});

test('an app that Zoom asks to slow down is left alone by the schedule as long as it said; readers are served', async () => {
  const app = await newApp();
  const [limited, waiting, reader] = [
    await connectUser(server, { app }),
    await connectUser(server, { app }),
    await connectUser(server, { app }),
  ] as const;
  spoilRefresh(server, limited, { kind: 'status', status: 429, headers: { 'retry-after': '60' } });
  await makeDue(server, limited);
  const refresher = createRefresher();
  await work(refresher, async () => (await stored(server, limited))?.failures === 1);
  await makeDue(server, waiting);
  const other = createRefresher();
  await other.refreshDue(10);
  await other.drain();
  expect(await stored(server, waiting)).toMatchObject({ version: 1, state: 'IDLE' });
  await expire(server, reader);
  expect(await read(server, reader)).toMatchObject({ __typename: 'Credential', version: 2 });
  expect(calls(server, { app })).toHaveLength(2);
});

test('an outage costs ten requests, however much is due, and is over with the first that succeeds', async () => {
  const app = await newApp();
  const connections: Connection[] = [];
  for (let tenant = 0; tenant < 12; tenant += 1) connections.push(await connectUser(server, { app }));
  spoilRefresh(server, connections[0] as Connection, { kind: 'status', status: 503 }, 1_000);
  await makeDue(server, ...connections);
  const refresher = createRefresher();
  await refresher.refreshDue(10);
  await until(async () => {
    await refresher.refreshDue(10);
    const rows = await Promise.all(connections.map((connection) => stored(server, connection)));
    return rows.every((row) => (row?.failures ?? 0) > 0 || row?.failureReason !== null);
  });
  // Those under way when the tenth failed, and one for each pause that ended.
  expect(calls(server, { app }).length).toBeLessThanOrEqual(25);
  control.clearFaults();
  await work(refresher, () => areRenewed(connections));
  for (const connection of connections) expect((await health(server, connection))?.startsWith('HEALTHY')).toBe(true);
});

test('a refresh that was sent late in its lease is not sent at all', async () => {
  const connection = await connectUser(server);
  const deps = createDeps();
  const settings = { ...deps.settings, leaseSeconds: 3, providerDeadlineSeconds: 3 };
  const outcome = await createRefresher({ ...deps, settings }).refresh(
    { grantId: connection.rowId, tenantId: connection.rowId, version: 1 },
    { force: true },
  );
  expect(outcome).toEqual({ kind: 'elsewhere' });
  expect(calls(server, connection)).toEqual([]);
  expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IDLE', failures: 0 });
});

test('the limit of an unused refresh token goes on counting where Zoom leaves the token as it is', async () => {
  const connection = await connectUser(server);
  await server.db.query(sql`
    UPDATE credential SET refresh_expires_at = now() + interval '3 days' WHERE grant_id = ${connection.rowId}::uuid`);
  const limit = async () => {
    const [row] = await server.db.query<{ at: Date }>(sql`
      SELECT refresh_expires_at AS at FROM credential WHERE grant_id = ${connection.rowId}::uuid`);
    return Number(row?.at) - Date.now();
  };
  const body = { access_token: 'ZCANARY_kept', token_type: 'bearer', expires_in: 3_600 };
  spoilRefresh(server, connection, {
    kind: 'body',
    status: 200,
    contentType: 'application/json',
    body: JSON.stringify(body),
  });
  await expire(server, connection);
  expect(await read(server, connection)).toMatchObject({ version: 2 });
  expect(await limit()).toBeLessThan(3 * 86_400_000);
  await expire(server, connection);
  expect(await read(server, connection)).toMatchObject({ version: 3 });
  expect(await limit()).toBeGreaterThan(89 * 86_400_000);
});

test('a refusal after that limit is told as expired, not as rejected', async () => {
  const connection = await connectUser(server);
  await server.db.query(sql`
    UPDATE credential SET refresh_expires_at = now() - interval '1 day' WHERE grant_id = ${connection.rowId}::uuid`);
  control.removeUser(connection.zoomUserId);
  await age(server, -1, connection);
  expect(await read(server, connection)).toMatchObject({ reason: 'GRANT_EXPIRED' });
  expect(await events(server, connection)).toEqual(['CONNECTED', 'GRANT_EXPIRED']);
});
