import sql, { type Sql as SqlStatement } from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Deps } from './deps.js';
import { type EndpointReach, requireEndpoint } from './webhook-endpoint.js';

/** Deliveries of one request. */
const MAX_REPLAYED = 10_000;
const MAX_DELIVERY_IDS = 100;
const ROWS_AT_ONCE = 1_000;

/** Which events to tell again; all conditions must hold. */
export interface EventRange {
  /** The product's identifier of a tenant. */
  tenantId: string | null;
  /** Both included. */
  fromSequence: number | null;
  toSequence: number | null;
  since: Date | null;
  until: Date | null;
}

export interface ReplayInput {
  endpointId: string;
  /** Null: by `range`. */
  deliveryIds: readonly string[] | null;
  range: EventRange;
}

function requireWhat({ deliveryIds, range }: ReplayInput): void {
  const refuse = (message: string, field: string) => new InvalidInputError(message, ['input', field]);
  const { tenantId, fromSequence, toSequence, since, until } = range;
  const hasRange = [tenantId, fromSequence, toSequence, since, until].some((value) => value !== null);
  if (deliveryIds !== null && hasRange) throw refuse('Name deliveries or a range of events, not both.', 'deliveryIds');
  if (deliveryIds !== null && (deliveryIds.length === 0 || deliveryIds.length > MAX_DELIVERY_IDS)) {
    throw refuse(`Name 1 to ${MAX_DELIVERY_IDS} deliveries.`, 'deliveryIds');
  }
  if (deliveryIds === null && since === null && fromSequence === null) {
    throw refuse('Say from when on, by `since` or `fromSequence`, or name deliveries.', 'since');
  }
  if ((fromSequence !== null || toSequence !== null) && tenantId === null) {
    throw refuse('Sequences count within one tenant; name it.', 'tenantId');
  }
}

/**
 * Makes deliveries due again, also ones that were taken, with the same `webhook-id` as before; the retries begin anew.
 * Events that were never queued for the endpoint are queued now. One that is being sent stays as it is.
 *
 * @returns how many.
 * @throws {NotFoundError} no such endpoint or delivery, or none of the caller's.
 * @throws {InvalidInputError} too many events, nothing named, or the endpoint is disabled.
 */
export async function replayWebhookDeliveries(
  deps: Pick<Deps, 'db'>,
  reach: EndpointReach,
  input: ReplayInput,
): Promise<number> {
  requireWhat(input);
  return deps.db.transaction(async (tx) => {
    const { tenantId, isEnabled } = await requireEndpoint(tx, input.endpointId, reach);
    if (!isEnabled) throw new InvalidInputError('The endpoint is disabled; enable it first.', ['input', 'endpointId']);
    const events = input.deliveryIds === null ? await select(tx, tenantId, input.range) : await named(tx, input);
    return queue(tx, input.endpointId, events);
  });
}

async function named(tx: Sql, { endpointId, deliveryIds }: ReplayInput): Promise<string[]> {
  const ids = [...new Set(deliveryIds)];
  const rows = await tx.query<{ eventId: string }>(sql`
    SELECT d.event_id AS "eventId" FROM webhook_delivery d JOIN health_event h ON h.id = d.event_id
    WHERE d.endpoint_id = ${endpointId}::uuid AND d.id = ANY(${ids}::uuid[]) ORDER BY h.occurred_at, h.sequence`);
  if (rows.length < ids.length) throw new NotFoundError('Some of these are no deliveries of the endpoint.');
  return rows.map(({ eventId }) => eventId);
}

/** The events of a range that the endpoint is told of, in their order. */
async function select(tx: Sql, endpointTenantId: string | null, range: EventRange): Promise<string[]> {
  // No stored id holds a zero character, and the database refuses to be asked for one.
  if (range.tenantId?.includes('\0')) return [];
  const bound = (condition: SqlStatement, value: unknown) => (value === null ? sql`TRUE` : condition);
  const rows = await tx.query<{ id: string }>(sql`
    SELECT h.id FROM health_event h JOIN tenant t ON t.id = h.tenant_id
    WHERE ${bound(sql`h.tenant_id = ${endpointTenantId}::uuid`, endpointTenantId)}
      AND ${bound(sql`t.external_id = ${range.tenantId}`, range.tenantId)}
      AND ${bound(sql`h.sequence >= ${range.fromSequence}`, range.fromSequence)}
      AND ${bound(sql`h.sequence <= ${range.toSequence}`, range.toSequence)}
      AND ${bound(sql`h.occurred_at >= ${range.since}`, range.since)}
      AND ${bound(sql`h.occurred_at <= ${range.until}`, range.until)}
    ORDER BY h.occurred_at, h.tenant_id, h.sequence LIMIT ${MAX_REPLAYED + 1}`);
  if (rows.length > MAX_REPLAYED) {
    throw new InvalidInputError(`These are more than ${MAX_REPLAYED} events; ask for less at a time.`, ['input']);
  }
  return rows.map(({ id }) => id);
}

/** A millisecond apart, which is what the order of deliveries is kept by. */
async function queue(tx: Sql, endpointId: string, eventIds: readonly string[]): Promise<number> {
  const queued = await tx.query(sql`
    INSERT INTO webhook_delivery (endpoint_id, event_id, next_attempt_at)
    SELECT ${endpointId}::uuid, h.id, now() + make_interval(secs => event.place / 1000.0)
    FROM unnest(${eventIds}::uuid[]) WITH ORDINALITY AS event(id, place) JOIN health_event h ON h.id = event.id
    FOR KEY SHARE OF h
    ON CONFLICT (endpoint_id, event_id) DO UPDATE SET status = 'PENDING', queued_at = now(), lease_until = NULL,
      round_starts_at = webhook_delivery.attempt_count, next_attempt_at = excluded.next_attempt_at
    WHERE webhook_delivery.lease_until IS NULL OR webhook_delivery.lease_until <= now()
    RETURNING id`);
  return queued.length;
}

/** Removes deliveries that were queued so long ago, with their attempts. */
export async function purgeDeliveries(deps: Pick<Deps, 'db'>, retentionDays: number): Promise<void> {
  for (;;) {
    const removed = await deps.db.query(sql`
      DELETE FROM webhook_delivery WHERE id IN (
        SELECT id FROM webhook_delivery WHERE queued_at < now() - make_interval(days => ${retentionDays})
        LIMIT ${ROWS_AT_ONCE} FOR UPDATE SKIP LOCKED)
      RETURNING id`);
    if (removed.length < ROWS_AT_ONCE) return;
  }
}
