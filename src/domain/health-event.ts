import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { tellOf } from '../diagnostics.js';
import { type HealthEventLog, type HealthEventPointer, PositionExpiredError } from '../feed/event-stream.js';
import type { HealthReason, HealthStatus } from '../generated/prisma/enums.js';
import { noteAudit } from './audit.js';
import { type HealthState, isLive, sameHealth } from './health.js';

/** Any number: what matters is that every process asks for the same lock. */
const POSITION_LOCK = 5_560_127;

export interface Transition {
  grantId: string;
  tenantId: string;
  /** Null for a grant that has just been made. */
  previous: HealthState | null;
  next: HealthState;
  /** Record an event even if nothing changed: consent was given anew. */
  always?: boolean;
}

/** What the audit trail tells of: that a connection began, came back or ended. Everything between is health alone. */
function auditActionOf({ previous, next, always = false }: Transition): string | null {
  if (next.status === 'REVOKED') return 'grant.revoked';
  if (!isLive(next.status)) return 'grant.ended';
  if (always || previous === null) return 'grant.connected';
  return !isLive(previous.status) ? 'grant.recovered' : null;
}

/**
 * Writes the new health of grants and one event for each that changed, and that it is to be told to the webhook
 * endpoints that are enabled, in the caller's transaction. An endpoint that is being deleted is waited for, so that no
 * transition fails by it.
 *
 * Takes the tenants' event counters in one order, so that transactions which touch several tenants do not deadlock.
 * Call it last, and publish `HEALTH_TOPIC` after the commit.
 */
export async function recordTransitions(tx: Sql, transitions: readonly Transition[]): Promise<void> {
  const changed = transitions
    .filter(({ previous, next, always }) => always || previous === null || !sameHealth(previous, next))
    .toSorted((a, b) => (a.tenantId < b.tenantId ? -1 : a.tenantId > b.tenantId ? 1 : 0));
  for (const transition of changed) {
    const { grantId, tenantId, previous, next } = transition;
    await tx.query(sql`
      WITH grant_row AS (
        UPDATE provider_grant
        SET health_status = ${next.status}::"HealthStatus", health_reason = ${next.reason}::"HealthReason",
          health_since = now(), health_checked_at = now()
        WHERE id = ${grantId}::uuid
      ), counter AS (
        UPDATE tenant SET event_sequence = event_sequence + 1 WHERE id = ${tenantId}::uuid RETURNING event_sequence
      ), event AS (
        INSERT INTO health_event (id, tenant_id, grant_id, sequence, previous, current, reason)
        SELECT ${randomUUID()}::uuid, ${tenantId}::uuid, ${grantId}::uuid, event_sequence,
          ${previous?.status ?? null}::"HealthStatus", ${next.status}::"HealthStatus", ${next.reason}::"HealthReason"
        FROM counter
        RETURNING id, tenant_id
      )
      INSERT INTO webhook_delivery (endpoint_id, event_id)
      SELECT endpoint.id, event.id FROM event JOIN webhook_endpoint endpoint
        ON endpoint.disabled_at IS NULL AND (endpoint.tenant_id = event.tenant_id OR endpoint.tenant_id IS NULL)
      FOR KEY SHARE OF endpoint`);
    tellOf(tx, { kind: 'health-transition', ...next });
    const action = auditActionOf(transition);
    if (action !== null) noteAudit(tx, { tenantId, grantId, action, reason: next.reason });
  }
}

/**
 * Gives positions to the events that were committed since the last call.
 *
 * A position is given after commit and under one lock, so positions become visible in their order: a number taken
 * inside the writing transactions would let a reader pass one that commits late. Within a tenant positions follow
 * `sequence`, whose row lock lets no later event commit before an earlier one. No position is ever given twice, also
 * when the event that had it is gone.
 */
export async function positionEvents(db: Database): Promise<void> {
  const [waiting] = await db.query(sql`SELECT 1 FROM health_event WHERE position IS NULL LIMIT 1`);
  if (waiting === undefined) return;
  await db.transaction(async (tx) => {
    await tx.query(sql`SELECT pg_advisory_xact_lock(${POSITION_LOCK})::text`);
    await tx.query(sql`
      WITH start AS (
        SELECT greatest(last_position, (SELECT coalesce(max(position), 0) FROM health_event)) AS position
        FROM health_event_log
      ), placed AS (
        UPDATE health_event event SET position = numbered.position
        FROM (
          SELECT id, (SELECT position FROM start)
            + row_number() OVER (ORDER BY occurred_at, tenant_id, sequence) AS position
          FROM (
            SELECT id, tenant_id, sequence,
              max(occurred_at) OVER (PARTITION BY tenant_id ORDER BY sequence) AS occurred_at
            FROM health_event WHERE position IS NULL
          ) waiting
        ) numbered
        WHERE event.id = numbered.id RETURNING event.position
      )
      UPDATE health_event_log SET last_position = greatest(last_position, (SELECT max(position) FROM placed))`);
  });
}

/** The stored events of all tenants, as the feed reads them. */
export function createHealthEventLog(db: Database): HealthEventLog {
  return {
    latest: async () => {
      await positionEvents(db);
      const [row] = await db.query<{ latest: number }>(sql`SELECT last_position AS latest FROM health_event_log`);
      return row?.latest ?? 0;
    },
    after: async (position, limit) => {
      await positionEvents(db);
      // One statement, so that what it does not find cannot have been removed before it looked for the removed.
      const rows = await db.query<EventRow>(sql`
        SELECT log.last_position AS "lastPosition", log.expired_position AS "expiredPosition",
          log.lost_after AS "lostAfter", log.restored_position AS "restoredPosition",
          event.id, event.position, event.tenant_id AS "tenantId", event.grant_id AS "grantId"
        FROM health_event_log log LEFT JOIN LATERAL (
          SELECT * FROM health_event WHERE position > ${position} ORDER BY position LIMIT ${limit}
        ) event ON true ORDER BY event.position`);
      checkPosition(position, rows[0]);
      // Where there is no event, the row is that of the log alone.
      return rows.flatMap(({ id, position: at, tenantId, grantId }) =>
        id === null ? [] : [{ id, position: at, tenantId, grantId }],
      );
    },
  };
}

type EventRow = LogRow & Omit<HealthEventPointer, 'id'> & { id: string | null };

/** What is known of the order of events as a whole. */
interface LogRow {
  lastPosition: number;
  expiredPosition: number;
  lostAfter: number;
  restoredPosition: number;
}

/**
 * @throws {PositionExpiredError} what came behind the position is not known any more: it is older than what is kept, or
 * was given before a backup was restored that does not have it.
 */
function checkPosition(position: number, log: LogRow | undefined): void {
  if (log === undefined) throw new Error('The health event log has no row.');
  const isLost = position > log.lostAfter && position < log.restoredPosition;
  if (position < log.expiredPosition || position > log.lastPosition || isLost) throw new PositionExpiredError();
}

/**
 * For whoever has read events around a position: call it after the reading.
 *
 * @throws {PositionExpiredError} as `HealthEventLog.after`.
 */
export async function requireKnownPosition(db: Sql, position: number): Promise<void> {
  const [log] = await db.query<LogRow>(sql`
    SELECT last_position AS "lastPosition", expired_position AS "expiredPosition", lost_after AS "lostAfter",
      restored_position AS "restoredPosition" FROM health_event_log`);
  checkPosition(position, log);
}

/**
 * For a database that was restored: events that were told of since the backup was made are not in it, and their
 * positions are not given again. Whoever stands behind one of them is told to begin anew.
 */
export async function skipLostPositions(tx: Sql): Promise<void> {
  await tx.query(sql`
    UPDATE health_event_log SET
      lost_after = CASE restored_position WHEN 0 THEN last_position ELSE lost_after END,
      restored_position = greatest(last_position + 1, (extract(epoch FROM now()) * 1000)::bigint),
      last_position = greatest(last_position + 1, (extract(epoch FROM now()) * 1000)::bigint)`);
}

/** Events that one statement removes, so that none runs for long. */
const EXPIRED_AT_ONCE = 5_000;

/**
 * Removes the events that are older than they are kept. Only from the beginning of their order, so that what is left is
 * whole from one position on.
 */
export async function expireEvents(db: Database, retentionDays: number): Promise<void> {
  for (let removed = EXPIRED_AT_ONCE; removed === EXPIRED_AT_ONCE;) {
    const rows = await db.query(sql`
      WITH oldest AS (
        SELECT id, position,
          bool_and(occurred_at < now() - make_interval(days => ${retentionDays})) OVER (ORDER BY position) AS is_expired
        FROM (SELECT * FROM health_event WHERE position IS NOT NULL ORDER BY position LIMIT ${EXPIRED_AT_ONCE}) first
      ), removed AS (
        DELETE FROM health_event WHERE id IN (SELECT id FROM oldest WHERE is_expired) RETURNING position
      ), log AS (
        UPDATE health_event_log
        SET expired_position = greatest(expired_position, (SELECT max(position) FROM removed))
        WHERE EXISTS (SELECT 1 FROM removed)
      )
      SELECT position FROM removed`);
    removed = rows.length;
  }
}

/** The health columns of a grant, as the statements of this folder select them. */
export interface HealthColumns {
  healthStatus: HealthStatus;
  healthReason: HealthReason;
}

export const healthFrom = (row: HealthColumns): HealthState => ({ status: row.healthStatus, reason: row.healthReason });
