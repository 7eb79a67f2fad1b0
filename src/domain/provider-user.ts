import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { UserRemovedEvent, UserUpdatedEvent } from '../zoom/webhook-event.js';
import { retireCredential } from './grant.js';
import { nextHealth } from './health.js';
import { healthFrom, type HealthColumns, type Transition } from './health-event.js';
import { resolutionOf } from './provider-time.js';
import type { Effect, EventReceiver } from './webhook-effect.js';

/**
 * Takes over the e-mail address and name of a provider user. Each has a time of its own, because an event tells only
 * what changed: of two events the later one counts, field by field, whichever arrives first. What the consent told is
 * older than any event since.
 */
export async function updateProviderUser(
  tx: Sql,
  app: EventReceiver,
  { accountId, userId, email, displayName, at }: UserUpdatedEvent,
): Promise<Effect> {
  if (email === undefined && displayName === undefined) return { changed: 0, transitions: [] };
  const resolution = resolutionOf(at);
  const changed = await tx.query(sql`
    WITH told AS (
      SELECT coalesce(${at}::timestamptz, now()) AS at, ${email ?? null}::text AS email,
        ${displayName ?? null}::text AS name
    ), concerned AS (
      SELECT g.id,
        coalesce(told.email IS NOT NULL AND CASE WHEN g.provider_user_email_at IS NULL
          THEN date_trunc(${resolution}, g.authorized_at) <= told.at
          ELSE (told.at, told.email COLLATE "C") > (g.provider_user_email_at, g.provider_user_email COLLATE "C") END,
          false) AS takes_email,
        coalesce(told.name IS NOT NULL AND CASE WHEN g.provider_user_name_at IS NULL
          THEN date_trunc(${resolution}, g.authorized_at) <= told.at
          ELSE (told.at, told.name COLLATE "C") > (g.provider_user_name_at, g.provider_user_name COLLATE "C") END,
          false) AS takes_name
      FROM provider_grant g, told
      WHERE g.app_id = ${app.id}::uuid AND g.provider_account_id = ${accountId} AND g.provider_user_id = ${userId}
        AND g.health_status <> 'REVOKED'
      ORDER BY g.id FOR UPDATE OF g
    )
    UPDATE provider_grant g SET
      provider_user_email = CASE WHEN takes_email THEN told.email ELSE g.provider_user_email END,
      provider_user_email_at = CASE WHEN takes_email THEN told.at ELSE g.provider_user_email_at END,
      provider_user_name = CASE WHEN takes_name THEN told.name ELSE g.provider_user_name END,
      provider_user_name_at = CASE WHEN takes_name THEN told.at ELSE g.provider_user_name_at END
    FROM concerned, told WHERE g.id = concerned.id AND (takes_email OR takes_name)
    RETURNING g.id`);
  return { changed: changed.length, transitions: [] };
}

interface LiveGrant extends HealthColumns {
  id: string;
  tenantId: string;
}

/**
 * Ends the live grants of a user who can no longer act at the provider. Their tokens are not used again, and somebody
 * has to authorize anew. What was authorized after the removal stays, as do tokens of an account that name no user.
 */
export async function removeProviderUser(
  tx: Sql,
  app: EventReceiver,
  { accountId, userId, at }: UserRemovedEvent,
): Promise<Effect> {
  if (app.kind === 'SERVER_TO_SERVER') return { changed: 0, transitions: [] };
  const grants = await tx.query<LiveGrant>(sql`
    SELECT id, tenant_id AS "tenantId", health_status AS "healthStatus", health_reason AS "healthReason"
    FROM provider_grant
    WHERE app_id = ${app.id}::uuid AND provider_account_id = ${accountId} AND provider_user_id = ${userId}
      AND health_status IN ('HEALTHY', 'DEGRADED')
      AND (${at}::timestamptz IS NULL OR date_trunc(${resolutionOf(at)}, authorized_at) <= ${at}::timestamptz)
    ORDER BY id FOR UPDATE`);
  for (const { id } of grants) await retireCredential(tx, id);
  const transitions = grants.map((grant): Transition => {
    const previous = healthFrom(grant);
    const next = nextHealth(previous, { kind: 'rejected', rejection: 'USER_REMOVED', inDoubt: false, idle: false });
    return { grantId: grant.id, tenantId: grant.tenantId, previous, next };
  });
  return { changed: grants.length, transitions };
}
