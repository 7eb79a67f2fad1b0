import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import { createConnectionShares, DatabaseBusyError } from '../../src/database/connection-shares.js';
import type { Sql } from '../../src/database/database.js';
import { connectUser } from '../support/connections.js';
import { freePort } from '../support/free-port.js';
import { startInstances } from '../support/instances.js';
import { callerOf, createServerKey } from '../support/principals.js';
import { createTenant } from '../support/story.js';
import { until } from '../support/until.js';

/** A quarter of it is two. */
const POOL = 8;
const SHARE = 2;
const LIMIT_MS = 3_000;

const metricsPort = await freePort();
const [server] = await startInstances(1, {
  LATCHKEY_DATABASE_POOL: String(POOL),
  LATCHKEY_DATABASE_TIMEOUT_MS: String(LIMIT_MS),
  LATCHKEY_METRICS_PORT: String(metricsPort),
});
if (server === undefined) throw new Error('There is no server.');
const loud = await createTenant(server);
const quiet = await connectUser(server);
const permissions = ['TENANTS_WRITE', 'CONNECTIONS_READ', 'CREDENTIALS_READ'] as const;
const keyOf = async (tenantId: string) => {
  const { id, token } = await createServerKey(server, { tenantId, permissions: [...permissions] });
  return callerOf(server, id, token);
};
const [loudKey, quietKey] = [await keyOf(loud), await keyOf(quiet.tenantId)];

const RENAME = `mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { __typename } }`;
const LIST = `query ($id: String!) { tenant(externalId: $id) { userConnections(first: 5) { edges { node { id } } } } }`;
const CREDENTIAL = `query ($input: CredentialInput!) { credential(input: $input) { __typename } }`;

const rename = (caller: Pick<typeof loudKey, 'graphql'>, name: string) =>
  caller.graphql(RENAME, { input: { tenantId: loud, name } });
const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));

/** Locks the loud tenant's row, which everybody waits for who would change it. */
const whileLocked = <T>(work: () => Promise<T>): Promise<T> =>
  server.db.transaction(async (tx) => {
    await tx.query(sql`SELECT id FROM tenant WHERE external_id = ${loud} FOR UPDATE`);
    return work();
  });

/** Connections that wait for a lock. */
async function blocked(db: Sql = server!.db): Promise<number> {
  const [row] = await db.query<{ count: number }>(sql`
    SELECT count(*)::int AS count FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock'`);
  return row?.count ?? 0;
}

async function figure(name: string): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  const line = text.split('\n').find((each) => each.startsWith(`latchkey_database_${name} `));
  return Number(line?.split(' ')[1]);
}

const isIdle = () => until(async () => (await figure('shares_held')) === 0 && (await figure('shares_waiting')) === 0);

test('a tenant that floods holds a quarter of the pool, by keys of its own and of all tenants, and others are answered', async () => {
  const readQuiet = async (reader: Pick<typeof loudKey, 'graphql'>) => {
    const read = await Promise.all(times(10, () => reader.graphql(CREDENTIAL, { input: quiet.input })));
    expect(read.map(({ data }) => data?.credential.__typename)).toEqual(times(10, () => 'Credential'));
  };
  await Promise.all([readQuiet(quietKey), readQuiet(server)]);
  const answers = await whileLocked(async () => {
    const flood = [
      ...times(20, (index) => rename(loudKey, `own ${index}`)),
      ...times(20, (index) => rename(server, `all ${index}`)),
      ...times(20, () => loudKey.graphql(LIST, { id: loud })),
    ];
    await until(async () => (await blocked()) === SHARE);
    for (const reader of [quietKey, server]) {
      await readQuiet(reader);
      expect(await blocked()).toBeLessThanOrEqual(SHARE);
    }
    return flood;
  });
  for (const { data, errors } of await Promise.all(answers)) {
    // On a slow machine the flood itself runs into the limit.
    const told = errors?.[0]?.extensions.code ?? data?.updateTenant?.__typename ?? Object.keys(data).join();
    expect(['UpdateTenantSuccess', 'tenant', 'RATE_LIMITED', 'UNAVAILABLE']).toContain(told);
  }
  await isIdle();
});

test('what waits too long for its tenant’s connections is told so, with the time after which to ask again', async () => {
  // Every other one leaves the form of its answer to be negotiated, which another way to the engine does.
  const negotiating = { ...loudKey.headers, accept: 'application/json, text/plain;q=0.1' };
  const late = (index: number) =>
    index % 2 === 0
      ? rename(loudKey, `late ${index}`)
      : server.graphql(RENAME, { input: { tenantId: loud, name: `late ${index}` } }, negotiating);
  const REFUSED = 'share_waits_total{outcome="refused"}';
  const before = await figure(REFUSED);
  const answers = await whileLocked(() => Promise.all(times(8, late)));
  const codes = answers.map(({ errors }) => errors?.[0]?.extensions.code);
  // The statements that held the connections ran into their own limit, as without others.
  expect(codes.filter((code) => code === 'UNAVAILABLE')).toHaveLength(SHARE);
  const refused = answers.filter(({ errors }) => errors?.[0]?.extensions.code === 'RATE_LIMITED');
  expect(refused.length).toBeGreaterThan(SHARE);
  expect(await figure(REFUSED)).toBe(before + refused.length);
  for (const { status, headers, errors } of refused) {
    expect([status, headers.get('retry-after')]).toEqual([429, '1']);
    expect(errors).toMatchObject([{ extensions: { retryAfterSeconds: 1 } }]);
  }
  await isIdle();
  expect((await rename(loudKey, 'again')).data?.updateTenant.__typename).toBe('UpdateTenantSuccess');
});

test('clients that go away while they wait leave no connection held', async () => {
  const leaving = new AbortController();
  await whileLocked(async () => {
    const flood = times(30, (index) =>
      fetch(`${server.address}/graphql`, {
        method: 'POST',
        signal: leaving.signal,
        headers: { 'content-type': 'application/json', authorization: `Bearer ${server.adminKey}` },
        body: JSON.stringify({ query: RENAME, variables: { input: { tenantId: loud, name: `gone ${index}` } } }),
      }).catch(() => undefined),
    );
    await until(async () => (await blocked()) === SHARE);
    leaving.abort();
    await Promise.all(flood);
  });
  await isIdle();
  expect((await rename(loudKey, 'back')).data?.updateTenant.__typename).toBe('UpdateTenantSuccess');
});

describe('the connections of one holder', () => {
  const shares = () => createConnectionShares({ limitOf: () => 2, patienceMs: 50 });

  test('are given to those that wait in their order, and to nobody who comes when one is free again', async () => {
    const { take, give, figures } = shares();
    const order: string[] = [];
    const join = (name: string) => take('a')?.then(() => void order.push(name));
    expect([join('1'), join('2')]).toEqual([undefined, undefined]);
    const waiting = [join('3'), join('4')];
    give('a');
    const last = join('5');
    give('a');
    give('a');
    await Promise.all([...waiting, last]);
    expect(order).toEqual(['3', '4', '5']);
    times(2, () => give('a'));
    expect(figures()).toEqual({ held: 0, waiting: 0, waited: 3, refused: 0 });
  });

  test('cost nothing of what another holds', () => {
    const { take } = shares();
    expect(times(2, () => take('a'))).toEqual([undefined, undefined]);
    expect(take('b')).toBeUndefined();
  });

  test('are not waited for longer than allowed, nor by more than allowed', async () => {
    const { take, give, figures, isWaitedFor } = shares();
    expect(times(2, () => take('a'))).toEqual([undefined, undefined]);
    const refused = async () => Promise.resolve(take('a')).catch((error: unknown) => error);
    const waiting = times(201, refused);
    expect(await waiting[200]).toBeInstanceOf(DatabaseBusyError);
    expect(figures()).toEqual({ held: 2, waiting: 200, waited: 0, refused: 1 });
    for (const outcome of await Promise.all(waiting)) expect(outcome).toBeInstanceOf(DatabaseBusyError);
    expect(figures()).toEqual({ held: 2, waiting: 0, waited: 0, refused: 201 });
    expect(isWaitedFor('a')).toBe(false);
    times(2, () => give('a'));
    expect(take('a')).toBeUndefined();
  });
});
