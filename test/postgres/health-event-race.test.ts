import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { createHealthEventLog, positionEvents, recordTransitions } from '../../src/domain/health-event.js';
import { healthOf } from '../../src/domain/health.js';
import { createHealthEventStream } from '../../src/feed/event-stream.js';
import { createFeed } from '../../src/feed/feed.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createPostgresDatabase } from '../support/database.js';
import { flip, makeGrants, type MadeGrant } from '../support/transitions.js';

const url = await createPostgresDatabase();
const open = () => openPostgres({ connectionString: url, log: createLog('silent') });
const [writer, reader] = [await open(), await open()];

/** What is stored, by tenant and in the tenant's own order. */
async function stored(tenantIds: readonly string[]): Promise<Map<string, string[]>> {
  const rows = await writer.query<{ id: string; tenantId: string; sequence: number }>(sql`
    SELECT id, tenant_id AS "tenantId", sequence FROM health_event ORDER BY tenant_id, sequence`);
  const events = new Map<string, string[]>(tenantIds.map((id) => [id, []]));
  for (const { id, tenantId, sequence } of rows) {
    const list = events.get(tenantId);
    if (list === undefined) continue;
    list.push(id);
    expect(sequence).toBe(list.length);
  }
  return events;
}

test('while twenty writers race, readers that poll behind their cursor see every event once and in order per tenant', async () => {
  const grants: MadeGrant[] = [];
  for (let tenant = 0; tenant < 5; tenant += 1) grants.push(...(await makeGrants(writer, 4)));
  const tenantIds = [...new Set(grants.map(({ tenantId }) => tenantId))];
  const total = grants.length * 30;
  const log = createHealthEventLog(reader);
  const otherLog = createHealthEventLog(writer);

  const poll = async (source: typeof log, batch: number) => {
    const seen: { id: string; tenantId: string }[] = [];
    for (let position = 0; seen.length < total;) {
      for (const event of await source.after(position, batch)) {
        expect(event.position).toBe(position + 1);
        position = event.position;
        seen.push(event);
      }
    }
    return seen;
  };
  const stop = new AbortController();
  const follow = async () => {
    const feed = createFeed({ clock: systemClock, pollMs: 5 });
    const seen: { id: string; tenantId: string }[] = [];
    for await (const event of createHealthEventStream(log, feed).subscribe({
      after: 0,
      matches: () => true,
      signal: stop.signal,
    })) {
      if (seen.push(event) === total) break;
    }
    return seen;
  };
  const readers = [poll(log, 200), poll(otherLog, 7), follow()];
  await Promise.all(grants.map((grant) => flip(writer, grant, 30)));
  const views = await Promise.all(readers);
  stop.abort();

  const events = await stored(tenantIds);
  expect([...events.values()].flat()).toHaveLength(total);
  for (const seen of views) {
    expect(new Set(seen.map(({ id }) => id)).size).toBe(total);
    for (const [tenantId, ids] of events)
      expect(seen.filter((event) => event.tenantId === tenantId).map(({ id }) => id)).toEqual(ids);
  }
});

test('an event that commits late is not passed by: readers wait for none and miss none', async () => {
  const [slow, quick] = [(await makeGrants(writer, 1))[0]!, (await makeGrants(writer, 1))[0]!];
  const log = createHealthEventLog(reader);
  const start = await log.latest();
  const change = (grant: MadeGrant) => ({
    grantId: grant.id,
    tenantId: grant.tenantId,
    previous: healthOf('CONNECTED'),
    next: healthOf('RATE_LIMITED'),
  });
  await writer.transaction(async (tx) => {
    await recordTransitions(tx, [change(slow)]);
    // Another tenant's event commits meanwhile and is read.
    await flip(writer, quick, 1);
    expect((await log.after(start, 10)).map(({ tenantId }) => tenantId)).toEqual([quick.tenantId]);
  });
  expect((await log.after(start, 10)).map(({ tenantId }) => tenantId)).toEqual([quick.tenantId, slow.tenantId]);
});

test('transactions that touch the same tenants in another order do not stop each other', async () => {
  const [a] = await makeGrants(writer, 10);
  const [b] = await makeGrants(writer, 10);
  const both = (first: MadeGrant, second: MadeGrant) =>
    writer.transaction(async (tx) => {
      // As the domain does: the grants are locked first, in the order of their ids.
      for (const id of [first.id, second.id].toSorted())
        await tx.query(sql`SELECT 1 FROM provider_grant WHERE id = ${id}::uuid FOR UPDATE`);
      await recordTransitions(
        tx,
        [first, second].map((grant) => ({
          grantId: grant.id,
          tenantId: grant.tenantId,
          previous: healthOf('CONNECTED'),
          next: healthOf('RATE_LIMITED'),
        })),
      );
    });
  await Promise.all(Array.from({ length: 20 }, (_, index) => (index % 2 === 0 ? both(a!, b!) : both(b!, a!))));
  const events = await stored([a!.tenantId, b!.tenantId]);
  expect([...events.values()].map((ids) => ids.length)).toEqual([20, 20]);
});

test('many processes that give positions at once give each event one', async () => {
  const grants = await makeGrants(writer, 20);
  await Promise.all(grants.map((grant) => flip(writer, grant, 5)));
  await Promise.all(Array.from({ length: 20 }, (_, index) => positionEvents(index % 2 === 0 ? writer : reader)));
  const [row] = await writer.query<{ events: number; positions: number; highest: number }>(sql`
    SELECT count(*) AS events, count(DISTINCT position) AS positions, max(position) AS highest FROM health_event`);
  expect([row?.positions, row?.highest]).toEqual([row?.events, row?.events]);
  await Promise.all([writer.close(), reader.close()]);
});
