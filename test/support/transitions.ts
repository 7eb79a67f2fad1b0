import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';
import { recordTransitions } from '../../src/domain/health-event.js';
import { healthOf } from '../../src/domain/health.js';

export interface MadeGrant {
  id: string;
  tenantId: string;
  externalId: string;
}

/**
 * Makes an app and that many user connections between it and a tenant, without a trip through consent.
 *
 * @param given a tenant that there is; otherwise one is made.
 */
export async function makeGrants(db: Database, count: number, given?: string): Promise<MadeGrant[]> {
  const externalId = given ?? `org_${randomUUID().slice(0, 8)}`;
  const appId = randomUUID();
  const [tenant] = await db.query<{ id: string }>(
    sql`INSERT INTO tenant (id, external_id, allowed_origins) VALUES (${randomUUID()}::uuid, ${externalId}, '{}')
    ON CONFLICT (external_id) DO UPDATE SET external_id = excluded.external_id RETURNING id`,
  );
  const tenantId = tenant?.id ?? '';
  await db.query(sql`
    INSERT INTO provider_app (id, key, provider, name, kind, environment, client_id, secret_version, sealed_client_secret,
      client_secret_set_at, required_scopes, optional_scopes)
    VALUES (${appId}::uuid, ${appId}, 'ZOOM', 'App', 'USER_MANAGED', 'COMMERCIAL', ${appId}, 1, '\\x00', now(), '{}', '{}')`);
  const grants = Array.from({ length: count }, () => ({ id: randomUUID(), tenantId, externalId }));
  for (const { id } of grants) {
    await db.query(sql`
      INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
        granted_scopes, missing_scopes, health_status, health_reason, health_since, authorized_at)
      VALUES (${id}::uuid, 'USER_CONNECTION', ${tenantId}::uuid, ${appId}::uuid, ${id}, ${id}, 'account', '{}', '{}',
        'HEALTHY', 'CONNECTED', now(), now())`);
  }
  return grants;
}

/** Writes `count` transitions of a grant, each in its own transaction as the domain does. */
export async function flip(db: Database, grant: MadeGrant, count: number): Promise<void> {
  for (let i = 0; i < count; i += 1) {
    const [previous, next] =
      i % 2 === 0 ? (['CONNECTED', 'RATE_LIMITED'] as const) : (['RATE_LIMITED', 'RECOVERED'] as const);
    await db.transaction((tx) =>
      recordTransitions(tx, [
        {
          grantId: grant.id,
          tenantId: grant.tenantId,
          previous: healthOf(previous),
          next: healthOf(next),
          always: true,
        },
      ]),
    );
  }
}
