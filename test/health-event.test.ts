import { expect, test } from 'vitest';
import sql from 'sql-template-tag';
import { expireEvents, skipLostPositions } from '../src/domain/health-event.js';
import { startTestServer } from './support/server.js';
import { flip, makeGrants } from './support/transitions.js';

const server = await startTestServer();

const PAGE = `pageInfo { hasNextPage hasPreviousPage startCursor endCursor } edges { cursor node { id cursor previous current reason occurredAt tenant { externalId } } }`;

/** One page of a tenant's events. */
const page = async (tenantId: string, args: Record<string, unknown>) =>
  (
    await server.data(
      `query ($t: String!, $first: Int, $after: String, $last: Int, $before: String) {
      tenant(externalId: $t) { healthEvents(first: $first, after: $after, last: $last, before: $before) { ${PAGE} } }
    }`,
      { t: tenantId, ...args },
    )
  ).tenant.healthEvents;

/** All cursors, page by page. */
async function walk(tenantId: string, size: number, start: string | null = null): Promise<string[]> {
  const seen: string[] = [];
  for (let after = start, more = true; more;) {
    const { edges, pageInfo } = await page(tenantId, { first: size, after });
    seen.push(...edges.map(({ cursor }: { cursor: string }) => cursor));
    after = pageInfo.endCursor ?? after;
    more = pageInfo.hasNextPage;
  }
  return seen;
}

test('a list of events is oldest first, twenty a page, and each page ends right before the next begins', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 53);
  const all = await walk(grant!.externalId, 100);
  expect(all).toHaveLength(53);
  for (const size of [1, 7, 20, 53]) expect(await walk(grant!.externalId, size)).toEqual(all);
  const first = await page(grant!.externalId, {});
  expect(first.edges).toHaveLength(20);
  expect(first.pageInfo).toEqual({
    hasNextPage: true,
    hasPreviousPage: false,
    startCursor: all[0],
    endCursor: all[19],
  });
  expect(first.edges.map(({ node }: any) => node.reason).slice(0, 4)).toEqual([
    'RATE_LIMITED',
    'RECOVERED',
    'RATE_LIMITED',
    'RECOVERED',
  ]);
  const times = first.edges.map(({ node }: any) => node.occurredAt);
  expect(times).toEqual(times.toSorted());
  for (const { cursor, node } of first.edges) expect(node.cursor).toBe(cursor);
});

test('a cursor is exclusive in both directions, and pages backwards hold the same in the same order', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 12);
  const all = await walk(grant!.externalId, 100);
  const after = await page(grant!.externalId, { after: all[4] });
  expect(after.edges.map(({ cursor }: any) => cursor)).toEqual(all.slice(5));
  const before = await page(grant!.externalId, { last: 3, before: all[4] });
  expect(before.edges.map(({ cursor }: any) => cursor)).toEqual(all.slice(1, 4));
  expect(before.pageInfo).toMatchObject({ hasPreviousPage: true, hasNextPage: true });
  expect((await page(grant!.externalId, { last: 2 })).edges.map(({ cursor }: any) => cursor)).toEqual(all.slice(-2));
  expect((await page(grant!.externalId, { after: all.at(-1) })).edges).toEqual([]);
});

test('events of one connection, one tenant and all are the same events, each list with its own share', async () => {
  const [one, two] = await makeGrants(server.db, 2);
  const [other] = await makeGrants(server.db, 1);
  await flip(server.db, one!, 2);
  await flip(server.db, other!, 2);
  await flip(server.db, two!, 2);
  const id = Buffer.from(`UserConnection:${one!.id}`).toString('base64url');
  const { node, ofTenant, ofGrant, both, none } = await server.data(
    `query ($id: ID!, $t: String!) {
      node(id: $id) { ... on UserConnection { healthEvents { edges { node { id } } } } }
      ofTenant: healthEvents(filter: { tenantId: $t }) { edges { node { id } } }
      ofGrant: healthEvents(filter: { grantId: $id }) { edges { node { id } } }
      both: healthEvents(filter: { grantId: $id, tenantId: $t }) { edges { node { id } } }
      none: healthEvents(filter: { grantId: "x" }) { edges { node { id } } }
    }`,
    { id, t: one!.externalId },
  );
  expect(ofTenant.edges).toHaveLength(4);
  expect(node.healthEvents.edges).toEqual(ofGrant.edges);
  expect(both.edges).toEqual(ofGrant.edges);
  expect(ofTenant.edges.slice(0, 2)).toEqual(ofGrant.edges);
  expect(none.edges).toEqual([]);
});

test("a tenant's events are numbered without gaps, also when a transaction that wrote one is rolled back", async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 3);
  await expect(
    server.db.transaction(async (tx) => {
      await tx.query(sql`UPDATE tenant SET event_sequence = event_sequence + 1 WHERE id = ${grant!.tenantId}::uuid`);
      throw new Error('rolled back');
    }),
  ).rejects.toThrow('rolled back');
  await flip(server.db, grant!, 2);
  const rows = await server.db.query<{ sequence: number }>(
    sql`SELECT sequence FROM health_event WHERE tenant_id = ${grant!.tenantId}::uuid ORDER BY sequence`,
  );
  expect(rows.map(({ sequence }) => sequence)).toEqual([1, 2, 3, 4, 5]);
});

test('a change that changes nothing is no event', async () => {
  const { recordTransitions } = await import('../src/domain/health-event.js');
  const { healthOf } = await import('../src/domain/health.js');
  const [grant] = await makeGrants(server.db, 1);
  const same = {
    grantId: grant!.id,
    tenantId: grant!.tenantId,
    previous: healthOf('CONNECTED'),
    next: healthOf('CONNECTED'),
  };
  await server.db.transaction((tx) => recordTransitions(tx, [same, same]));
  expect((await page(grant!.externalId, {})).edges).toEqual([]);
});

/** What the list answers a cursor with, in one direction and the other. */
async function codesOf(cursor: string): Promise<unknown[]> {
  const answers = await Promise.all([
    server.graphql('query ($c: String) { healthEvents(after: $c) { edges { cursor } } }', { c: cursor }),
    server.graphql('query ($c: String) { healthEvents(last: 1, before: $c) { edges { cursor } } }', { c: cursor }),
  ]);
  return answers.flatMap(({ errors }) => errors ?? []).map(({ extensions }) => extensions.code);
}

const encoded = (position: number) => Buffer.from(`e${position}`).toString('base64url');

const lastPosition = async () =>
  (await server.db.query<{ at: number }>(sql`SELECT last_position AS at FROM health_event_log`))[0]!.at;

test('a position is not given again when the events that had the highest ones are gone', async () => {
  const [gone] = await makeGrants(server.db, 1);
  const [other] = await makeGrants(server.db, 1);
  await flip(server.db, gone!, 3);
  const held = (await walk(gone!.externalId, 100)).at(-1)!;
  await server.db.query(sql`DELETE FROM health_event WHERE tenant_id = ${gone!.tenantId}::uuid`);
  await flip(server.db, other!, 2);
  // Whoever stands behind an event of the tenant that is gone misses nothing of the one that is there.
  const { edges } = await page(other!.externalId, { after: held });
  expect(edges).toHaveLength(2);
});

test('events are removed from the beginning of their order once all before them are too old, and their cursors need a resync', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 6);
  const all = await walk(grant!.externalId, 100);
  const age = (cursor: string, days: number) =>
    server.db.query(sql`
      UPDATE health_event SET occurred_at = now() - make_interval(days => ${days})
      WHERE position <= ${Number(Buffer.from(cursor, 'base64url').toString().slice(1))}`);
  await age(all[2]!, 8);
  await expireEvents(server.db, 9);
  expect(await walk(grant!.externalId, 100)).toEqual(all);
  await expireEvents(server.db, 7);
  expect(await walk(grant!.externalId, 100)).toEqual(all.slice(3));
  expect(await codesOf(all[1]!)).toEqual(['RESYNC_REQUIRED', 'RESYNC_REQUIRED']);
  // Nothing is missing behind the last one that was removed.
  expect(await codesOf(all[2]!)).toEqual([]);
  expect((await page(grant!.externalId, { after: all[2] })).edges).toHaveLength(3);
  expect(await codesOf('nonsense')).toEqual(['BAD_USER_INPUT', 'BAD_USER_INPUT']);
});

test('a cursor of events that a restored backup does not have needs a resync, an older one goes on', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 2);
  const [first, second] = await walk(grant!.externalId, 100);
  const ahead = (await lastPosition()) + 1;
  expect(await codesOf(encoded(ahead))).toEqual(['RESYNC_REQUIRED', 'RESYNC_REQUIRED']);
  await server.db.transaction(skipLostPositions);
  await flip(server.db, grant!, 1);
  expect(await codesOf(encoded(ahead))).toEqual(['RESYNC_REQUIRED', 'RESYNC_REQUIRED']);
  expect((await page(grant!.externalId, { after: first })).edges.map(({ cursor }: any) => cursor).at(0)).toBe(second);
  expect((await page(grant!.externalId, { after: second })).edges).toHaveLength(1);
  expect(await lastPosition()).toBeGreaterThan(Date.now() - 60_000);
});
