import sql from 'sql-template-tag';
import { GrantNotFoundError } from '../errors.js';
import type { CredentialDeps } from './credential.js';
import { GRANT_COLUMNS, type HostGrant, ranked } from './meeting-host.js';
import type { MeetingCall } from './meeting-scope.js';

/**
 * The grants that reach a user of the product at the provider: the user's own connections, and installations in the
 * same account. The one that can best make one of `calls` first.
 *
 * @throws {GrantNotFoundError} the user never connected.
 */
export async function findUserGrants(
  deps: Pick<CredentialDeps, 'db'>,
  { tenantId, userId, onlyTenantId }: { tenantId: string; userId: string; onlyTenantId: string | null },
  calls: readonly MeetingCall[],
): Promise<HostGrant[]> {
  // No stored id holds a zero character, and the database refuses to be asked for one.
  if (tenantId.includes('\0') || userId.includes('\0')) throw new GrantNotFoundError();
  const grants = await deps.db.query<HostGrant>(sql`
    SELECT DISTINCT ON (g.health_since, g.id) ${GRANT_COLUMNS}, own.provider_user_id AS "hostUserId"
    FROM tenant t
    JOIN provider_grant own ON own.tenant_id = t.id AND own.kind = 'USER_CONNECTION' AND own.external_user_id = ${userId}
    JOIN provider_app own_app ON own_app.id = own.app_id
    JOIN provider_grant g ON g.id = own.id OR (g.tenant_id = t.id AND g.kind = 'INSTALLATION'
      AND own.health_status <> 'REVOKED' AND own.provider_user_id IS NOT NULL
      AND g.health_status <> 'REVOKED' AND g.provider_account_id = own.provider_account_id)
    JOIN provider_app a ON a.id = g.app_id AND a.environment = own_app.environment
    WHERE t.external_id = ${tenantId} AND (${onlyTenantId}::uuid IS NULL OR t.id = ${onlyTenantId}::uuid)
    ORDER BY g.health_since DESC, g.id, own.health_since DESC`);
  if (grants.length === 0) throw new GrantNotFoundError();
  return ranked(grants, calls);
}

/**
 * One grant by its row, as reaching the provider user who authorized it.
 *
 * @param onlyTenantId the only tenant it may belong to; null: any.
 * @throws {GrantNotFoundError} there is none.
 */
export async function findGrant(
  deps: Pick<CredentialDeps, 'db'>,
  grantId: string,
  onlyTenantId: string | null,
): Promise<HostGrant> {
  const [grant] = await deps.db.query<HostGrant>(sql`
    SELECT ${GRANT_COLUMNS}, coalesce(g.provider_user_id, 'me') AS "hostUserId"
    FROM provider_grant g JOIN provider_app a ON a.id = g.app_id JOIN tenant t ON t.id = g.tenant_id
    WHERE g.id = ${grantId}::uuid AND (${onlyTenantId}::uuid IS NULL OR t.id = ${onlyTenantId}::uuid)`);
  if (grant === undefined) throw new GrantNotFoundError();
  return grant;
}
