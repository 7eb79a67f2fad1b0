import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { WebhookDeliveryFailure } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import type { DeliveredEvent } from './delivery-message.js';
import type { Deps } from './deps.js';
import { disableEndpoint } from './webhook-endpoint.js';

/** Attempts that one endpoint gets at once, all processes together; one whose last attempt failed gets one. */
const ENDPOINT_CONCURRENCY = 8;
/** Longer than an attempt takes: another process takes a delivery up only when its owner has died. */
export const LEASE_SECONDS = 30;
/** Endpoints that one turn looks after. */
const ENDPOINTS_AT_ONCE = 50;
/** Due deliveries among which a turn chooses those that can be sent at once. */
const WINDOW = 64;
/** Waits after the first attempt, the second and so on: the schedule that Standard Webhooks proposes, over three days. */
export const RETRY_SECONDS = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400] as const;
const JITTER = 0.2;
/** An endpoint that asks for silence gets no other event either, for so long at most. */
const LONGEST_PAUSE_SECONDS = 3_600;
const GIVE_UP_DAYS = 5;
const RELEASE_SECONDS = 60;

/** A delivery that this process may attempt until its lease runs out. */
export interface ClaimedDelivery extends DeliveredEvent {
  deliveryId: string;
  endpointId: string;
  url: string;
  /** The endpoint's. */
  tenantRowId: string | null;
  secretVersion: number;
  sealedSecret: Sealed;
  /** Null also when it is retired. */
  sealedFormerSecret: Sealed | null;
  /** Counts all attempts; what is settled is compared with it. */
  fence: number;
  /** Counts the attempts since the event was queued or replayed, from 1. */
  attempt: number;
}

/**
 * Takes up to `room` deliveries that are due, for as long as a lease. Any number of processes may do so at once: an
 * endpoint is locked while its deliveries are chosen. Events of one grant are sent one after another and in their
 * order, as long as none has to be repeated; what waits for a repetition holds nothing up.
 *
 * @returns them endpoint by endpoint, each batch as soon as its leases are stored.
 */
export async function* claimDue(deps: Pick<Deps, 'db'>, room: number): AsyncGenerator<ClaimedDelivery[], void, void> {
  if (room === 0) return;
  const endpoints = await deps.db.query<{ id: string }>(sql`
    SELECT e.id FROM webhook_endpoint e
    WHERE e.disabled_at IS NULL AND (e.paused_until IS NULL OR e.paused_until <= now())
      AND EXISTS (SELECT 1 FROM webhook_delivery d WHERE d.endpoint_id = e.id AND d.next_attempt_at <= now())
      AND (SELECT count(*) FROM webhook_delivery r WHERE r.endpoint_id = e.id AND r.lease_until > now())
        < CASE WHEN e.failing_since IS NULL THEN ${ENDPOINT_CONCURRENCY}::int ELSE 1 END
    ORDER BY random() LIMIT ${ENDPOINTS_AT_ONCE}`);
  let left = room;
  for (const { id } of endpoints) {
    if (left === 0) return;
    const claimed = await deps.db.transaction((tx) => claimOf(tx, id, left));
    left -= claimed.length;
    yield claimed;
  }
}

async function claimOf(tx: Sql, endpointId: string, room: number): Promise<ClaimedDelivery[]> {
  // A statement of its own: the next one sees what the last holder of the lock has claimed.
  const [endpoint] = await tx.query<{ isFailing: boolean }>(sql`
    SELECT failing_since IS NOT NULL AS "isFailing" FROM webhook_endpoint
    WHERE id = ${endpointId}::uuid AND disabled_at IS NULL FOR NO KEY UPDATE SKIP LOCKED`);
  if (endpoint === undefined) return [];
  const concurrency = endpoint.isFailing ? 1 : ENDPOINT_CONCURRENCY;
  return tx.query<ClaimedDelivery>(sql`
    WITH running AS (
      SELECT h.grant_id FROM webhook_delivery d JOIN health_event h ON h.id = d.event_id
      WHERE d.endpoint_id = ${endpointId}::uuid AND d.lease_until > now()
    ), due AS (
      SELECT d.id, d.next_attempt_at, h.grant_id, h.sequence
      FROM webhook_delivery d JOIN health_event h ON h.id = d.event_id
      WHERE d.endpoint_id = ${endpointId}::uuid AND d.next_attempt_at <= now()
      ORDER BY d.next_attempt_at LIMIT ${WINDOW}
    ), first AS (
      SELECT DISTINCT ON (coalesce(grant_id, id)) id, next_attempt_at, sequence FROM due
      WHERE grant_id IS NULL OR grant_id NOT IN (SELECT grant_id FROM running WHERE grant_id IS NOT NULL)
      ORDER BY coalesce(grant_id, id), sequence
    ), chosen AS (
      SELECT id FROM first ORDER BY next_attempt_at, sequence
      LIMIT greatest(0, least(${room}::int, ${concurrency}::int - (SELECT count(*) FROM running)))
    ), claimed AS (
      UPDATE webhook_delivery d SET attempt_count = attempt_count + 1,
        lease_until = now() + make_interval(secs => ${LEASE_SECONDS}),
        next_attempt_at = now() + make_interval(secs => ${LEASE_SECONDS})
      FROM chosen WHERE d.id = chosen.id
      RETURNING d.id, d.event_id, d.attempt_count, d.round_starts_at
    )
    SELECT c.id AS "deliveryId", c.attempt_count AS fence, c.attempt_count - c.round_starts_at AS attempt,
      e.id AS "endpointId", e.url, e.tenant_id AS "tenantRowId", e.secret_version AS "secretVersion",
      e.sealed_secret AS "sealedSecret",
      CASE WHEN e.former_secret_retires_at > now() THEN e.sealed_former_secret END AS "sealedFormerSecret",
      h.id AS "eventId", h.sequence, h.occurred_at AS "occurredAt", h.previous, h.current, h.reason,
      coalesce(x.tenant_external_id, t.external_id) AS "tenantId",
      g.id AS "grantId", g.kind AS "grantKind", g.external_user_id AS "userId"
    FROM claimed c JOIN health_event h ON h.id = c.event_id JOIN webhook_endpoint e ON e.id = ${endpointId}::uuid
      JOIN tenant t ON t.id = h.tenant_id LEFT JOIN tenant_deletion x ON x.tenant_id = t.id
      LEFT JOIN provider_grant g ON g.id = h.grant_id
    ORDER BY h.occurred_at, h.sequence`);
}

/** An attempt that has come to its end. */
export interface EndedAttempt {
  startedAt: Date;
  durationMs: number;
  httpStatus: number | null;
  /** Null: the endpoint took it. */
  failure: WebhookDeliveryFailure | null;
  retryAfterSeconds: number | null;
}

const recordAttempt = (tx: Sql, deliveryId: string, attempt: EndedAttempt) =>
  tx.query(sql`
    INSERT INTO webhook_delivery_attempt (id, delivery_id, started_at, duration_ms, http_status, failure)
    SELECT ${randomUUID()}::uuid, id, ${attempt.startedAt}, ${attempt.durationMs}::int, ${attempt.httpStatus}::int,
      ${attempt.failure}::"WebhookDeliveryFailure"
    FROM webhook_delivery WHERE id = ${deliveryId}::uuid FOR KEY SHARE`);

/** Stores that the endpoint took it. Where somebody has taken it up since then, they settle it; it arrives twice. */
export async function settleDelivered(
  deps: Pick<Deps, 'db'>,
  { deliveryId, endpointId, fence }: ClaimedDelivery,
  attempt: EndedAttempt,
): Promise<void> {
  await deps.db.transaction(async (tx) => {
    await tx.query(sql`
      UPDATE webhook_delivery
      SET status = 'DELIVERED', delivered_at = now(), lease_until = NULL, next_attempt_at = NULL
      WHERE id = ${deliveryId}::uuid AND attempt_count = ${fence}`);
    await recordAttempt(tx, deliveryId, attempt);
  });
  // By itself: whoever holds the endpoint may be waiting for its deliveries.
  await deps.db.query(sql`
    UPDATE webhook_endpoint SET failing_since = NULL WHERE id = ${endpointId}::uuid AND failing_since IS NOT NULL`);
}

/**
 * Stores that an attempt failed, and when it is repeated. 410 disables the endpoint at once, and so does failing for
 * days.
 *
 * @returns whether it was given up, and whether the endpoint was disabled.
 */
export async function settleFailed(
  deps: Pick<Deps, 'db'>,
  delivery: ClaimedDelivery,
  attempt: EndedAttempt,
): Promise<{ isGivenUp: boolean; disabled: 'GONE' | 'FAILING' | null }> {
  const { deliveryId, endpointId, fence } = delivery;
  const isGone = attempt.httpStatus === 410;
  const delay = isGone ? null : retryDelay(delivery.attempt, attempt.retryAfterSeconds);
  return deps.db.transaction(async (tx) => {
    const [endpoint] = await tx.query<{ hasGivenUp: boolean; isDisabled: boolean }>(sql`
      UPDATE webhook_endpoint SET failing_since = coalesce(failing_since, now()),
        paused_until = CASE WHEN ${attempt.retryAfterSeconds}::int > 0
          THEN now() + make_interval(secs => least(${attempt.retryAfterSeconds}::int, ${LONGEST_PAUSE_SECONDS}))
          ELSE paused_until END
      WHERE id = ${endpointId}::uuid
      RETURNING failing_since < now() - make_interval(days => ${GIVE_UP_DAYS}) AS "hasGivenUp",
        disabled_at IS NOT NULL AS "isDisabled"`);
    if (endpoint === undefined) return { isGivenUp: true, disabled: null };
    await tx.query(sql`
      UPDATE webhook_delivery SET lease_until = NULL,
        status = CASE WHEN ${delay === null} THEN 'FAILED' ELSE status END,
        next_attempt_at = CASE WHEN ${delay === null || endpoint.isDisabled} THEN NULL
          ELSE now() + make_interval(secs => ${delay ?? 0}) END
      WHERE id = ${deliveryId}::uuid AND attempt_count = ${fence} AND status = 'PENDING'`);
    await recordAttempt(tx, deliveryId, attempt);
    const disabled = endpoint.isDisabled ? null : isGone ? 'GONE' : endpoint.hasGivenUp ? 'FAILING' : null;
    if (disabled !== null) await disableEndpoint(tx, endpointId, disabled);
    return { isGivenUp: delay === null, disabled };
  });
}

/** Seconds until the next attempt; null: there is none. */
export function retryDelay(attempt: number, retryAfterSeconds: number | null): number | null {
  const seconds = RETRY_SECONDS[attempt - 1];
  if (seconds === undefined) return null;
  const spread = seconds * (1 - JITTER + Math.random() * 2 * JITTER);
  return Math.max(spread, retryAfterSeconds ?? 0);
}

/** Gives a delivery back that nothing was sent of, for a reason that is not the endpoint's. */
export async function releaseDelivery(deps: Pick<Deps, 'db'>, { deliveryId, fence }: ClaimedDelivery): Promise<void> {
  await deps.db.query(sql`
    UPDATE webhook_delivery SET lease_until = NULL, attempt_count = attempt_count - 1,
      next_attempt_at = CASE WHEN next_attempt_at IS NULL THEN NULL
        ELSE now() + make_interval(secs => ${RELEASE_SECONDS}) END
    WHERE id = ${deliveryId}::uuid AND attempt_count = ${fence} AND status = 'PENDING'`);
}
