import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { AuthorizationFailure, ProviderEnvironment } from '../generated/prisma/enums.js';
import type { ZoomIdentity } from '../zoom/zoom.js';

/**
 * Lets whoever is about to store a grant for one subject, and then for one provider user of an app, through one by one
 * until the transaction ends: of two at once each would otherwise miss the other's grant, which is not committed yet,
 * and both would stay live. The subject comes first everywhere, so that two do not wait for each other.
 */
export async function lockForGrant(
  tx: Sql,
  grant: { tenantId: string; appId: string; subject: string; providerUserId: string },
): Promise<void> {
  await lockFor(tx, `${grant.tenantId}/${grant.appId}/${grant.subject}`);
  await lockFor(tx, `${grant.appId}/${grant.providerUserId}`);
}

async function lockFor(tx: Sql, what: string): Promise<void> {
  await tx.query(sql`SELECT pg_advisory_xact_lock(hashtextextended(${what}, 0))::text`);
}

/** For whom, and where, a user connection is about to be stored. */
export interface UserAdmission {
  tenantId: string;
  appId: string;
  environment: ProviderEnvironment;
  externalUserId: string;
  allowIdentityChange: boolean;
}

/**
 * A user must be in an account where the tenant's app is installed, and stay the same person unless told otherwise.
 * Installations and connections that were ended do not bind.
 *
 * @returns why the user may not be connected; null: they may. Holds until the transaction ends only under `lockForGrant`.
 */
export async function refuseIdentity(
  tx: Sql,
  admission: UserAdmission,
  identity: Pick<ZoomIdentity, 'accountId' | 'userId'>,
): Promise<AuthorizationFailure | null> {
  const installations = await tx.query<{ accountId: string }>(sql`
    SELECT g.provider_account_id AS "accountId" FROM provider_grant g JOIN provider_app a ON a.id = g.app_id
    WHERE g.tenant_id = ${admission.tenantId}::uuid AND g.kind = 'INSTALLATION' AND g.health_status <> 'REVOKED'
      AND a.environment = ${admission.environment}::"ProviderEnvironment"`);
  if (installations.length > 0 && !installations.some(({ accountId }) => accountId === identity.accountId)) {
    return 'ACCOUNT_MISMATCH';
  }
  if (admission.allowIdentityChange) return null;
  const [former] = await tx.query<{ userId: string | null }>(sql`
    SELECT provider_user_id AS "userId" FROM provider_grant
    WHERE tenant_id = ${admission.tenantId}::uuid AND app_id = ${admission.appId}::uuid
      AND subject = ${admission.externalUserId} AND health_status <> 'REVOKED'`);
  return former === undefined || former.userId === identity.userId ? null : 'IDENTITY_CHANGED';
}
