import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { AppDeauthorizedEvent } from '../zoom/webhook-event.js';
import { destroyCredential, probeUsersOf } from './grant.js';
import { nextHealth } from './health.js';
import { healthFrom, type HealthColumns, type Transition } from './health-event.js';
import { resolutionOf } from './provider-time.js';
import type { Effect, EventReceiver } from './webhook-effect.js';

interface ConcernedGrant extends HealthColumns {
  id: string;
  tenantId: string;
}

/**
 * Ends the grants that a deauthorization is about and removes what is known of the person: the user's grants, or for an
 * admin-managed app the account's. A grant that was authorized later than the app was removed is another one and stays.
 * Grants that had ended before are purged, too.
 *
 * A receipt is written where anything was ended or removed.
 */
export async function applyDeauthorization(
  tx: Sql,
  app: EventReceiver,
  { accountId, userId, at }: AppDeauthorizedEvent,
): Promise<Effect> {
  const grants = await tx.query<ConcernedGrant>(sql`
    SELECT id, tenant_id AS "tenantId", health_status AS "healthStatus", health_reason AS "healthReason"
    FROM provider_grant
    WHERE app_id = ${app.id}::uuid AND provider_account_id = ${accountId}
      AND (provider_user_id = ${userId} OR ${app.kind !== 'USER_MANAGED'})
      AND (health_status <> 'REVOKED' OR provider_user_id IS NOT NULL)
      AND (${at}::timestamptz IS NULL OR date_trunc(${resolutionOf(at)}, authorized_at) <= ${at}::timestamptz)
    ORDER BY id FOR UPDATE`);
  if (grants.length === 0) return { changed: 0, transitions: [] };
  const live = grants.filter(({ healthStatus }) => healthStatus !== 'REVOKED');
  for (const { id, tenantId } of live) {
    await destroyCredential(tx, id);
    if (app.kind !== 'USER_MANAGED') await probeUsersOf(tx, { tenantId, accountId });
  }
  await purgeProviderUser(
    tx,
    grants.map(({ id }) => id),
  );
  await tx.query(sql`
    INSERT INTO deauthorization_receipt (id, app_id, grants_revoked, purged_at)
    VALUES (${randomUUID()}::uuid, ${app.id}::uuid, ${live.length}, now())`);
  const transitions = live.map((grant): Transition => {
    const previous = healthFrom(grant);
    const next = nextHealth(previous, { kind: 'ended', reason: 'DEAUTHORIZED_AT_PROVIDER' });
    return { grantId: grant.id, tenantId: grant.tenantId, previous, next };
  });
  return { changed: grants.length, transitions };
}

/**
 * Removes what the provider told about the person behind ended grants. What stays is the product's own: its tenant and
 * user ids, the account the grant was in, and the history of its health, which names nobody.
 */
async function purgeProviderUser(tx: Sql, grantIds: readonly string[]): Promise<void> {
  await tx.query(sql`
    UPDATE provider_grant SET provider_user_id = NULL, provider_user_email = NULL, provider_user_name = NULL,
      provider_user_email_at = NULL, provider_user_name_at = NULL
    WHERE id = ANY(${grantIds}::uuid[])`);
}
