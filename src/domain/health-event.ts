import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { tellOf } from '../diagnostics.js';
import type { HealthEventLog, HealthEventPointer } from '../feed/event-stream.js';
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
 * `sequence`, whose row lock lets no later event commit before an earlier one.
 */
export async function positionEvents(db: Database): Promise<void> {
  const [waiting] = await db.query(sql`SELECT 1 FROM health_event WHERE position IS NULL LIMIT 1`);
  if (waiting === undefined) return;
  await db.transaction(async (tx) => {
    await tx.query(sql`SELECT pg_advisory_xact_lock(${POSITION_LOCK})::text`);
    await tx.query(sql`
      UPDATE health_event event SET position = placed.position
      FROM (
        SELECT id, (SELECT coalesce(max(position), 0) FROM health_event)
          + row_number() OVER (ORDER BY occurred_at, tenant_id, sequence) AS position
        FROM (
          SELECT id, tenant_id, sequence,
            max(occurred_at) OVER (PARTITION BY tenant_id ORDER BY sequence) AS occurred_at
          FROM health_event WHERE position IS NULL
        ) waiting
      ) placed
      WHERE event.id = placed.id`);
  });
}

/** The stored events of all tenants, as the feed reads them. */
export function createHealthEventLog(db: Database): HealthEventLog {
  return {
    latest: async () => {
      await positionEvents(db);
      const [row] = await db.query<{ latest: number | null }>(sql`SELECT max(position) AS latest FROM health_event`);
      return row?.latest ?? 0;
    },
    after: async (position, limit) => {
      await positionEvents(db);
      return db.query<HealthEventPointer>(sql`
        SELECT id, position, tenant_id AS "tenantId", grant_id AS "grantId"
        FROM health_event WHERE position > ${position} ORDER BY position LIMIT ${limit}`);
    },
  };
}

/** The health columns of a grant, as the statements of this folder select them. */
export interface HealthColumns {
  healthStatus: HealthStatus;
  healthReason: HealthReason;
}

export const healthFrom = (row: HealthColumns): HealthState => ({ status: row.healthStatus, reason: row.healthReason });
