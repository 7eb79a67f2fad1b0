import sql from 'sql-template-tag';
import { NotFoundError, ProviderUnavailableError, ReauthorizationRequiredError } from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { HealthReason, ProviderEnvironment } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomScopeMissingError,
} from '../zoom/errors.js';
import type { ZoomIdentity } from '../zoom/zoom.js';
import type { Deps } from './deps.js';
import { credentialPlace, lockGrant } from './grant.js';
import { isLive, nextHealth } from './health.js';
import { recordTransitions, type HealthColumns } from './health-event.js';
import { writePersonalMeeting } from './meeting-directory.js';
import type { Refresher } from './refresh.js';

interface GrantToCheck extends HealthColumns {
  tenantId: string;
  version: number | null;
  sealedAccessToken: Sealed;
  apiUrl: string;
  environment: ProviderEnvironment;
}

async function requireLiveGrant(deps: Pick<Deps, 'db'>, id: string): Promise<GrantToCheck & { version: number }> {
  const [grant] = await deps.db.query<GrantToCheck>(sql`
    SELECT g.tenant_id AS "tenantId", g.health_status AS "healthStatus", g.health_reason AS "healthReason",
      c.version, c.sealed_access_token AS "sealedAccessToken",
      c.api_url AS "apiUrl", a.environment
    FROM provider_grant g JOIN provider_app a ON a.id = g.app_id LEFT JOIN credential c ON c.grant_id = g.id
    WHERE g.id = ${id}::uuid`);
  if (grant === undefined) throw new NotFoundError('No such connection exists.');
  const { version } = grant;
  if (version === null || !isLive(grant.healthStatus)) throw new ReauthorizationRequiredError(id, grant.healthReason);
  return { ...grant, version };
}

/**
 * Refreshes a grant now, whether or not it is due, also while a failed attempt's waiting time runs.
 *
 * @returns its id.
 * @throws {ProviderUnavailableError} the provider could not be asked, or another process is asking it.
 */
export async function refreshGrant(deps: Deps & { refresher: Refresher }, id: string): Promise<string> {
  const { tenantId, version } = await requireLiveGrant(deps, id);
  const outcome = await deps.refresher.refresh({ grantId: id, tenantId, version }, { force: true });
  if (outcome.kind === 'refreshed') return id;
  if (outcome.kind === 'failed') throw new ProviderUnavailableError(outcome.reason, outcome.retryAfterSeconds);
  const now = await requireLiveGrant(deps, id);
  if (now.version === version) throw new ProviderUnavailableError('PROVIDER_UNAVAILABLE', 1);
  return id;
}

/**
 * Asks the provider whether it still takes the grant's access token, and records what follows. A token that is refused
 * is refreshed, which tells a token that merely ended from a grant that did.
 *
 * @returns its id.
 * @throws {ProviderUnavailableError} nothing was found out.
 */
export async function checkGrant(deps: Deps & { refresher: Refresher }, id: string): Promise<string> {
  const grant = await requireLiveGrant(deps, id);
  const place = credentialPlace({ id, tenantId: grant.tenantId }, 'sealed_access_token', grant.version);
  const accessToken = await deps.vault.open(deps.db, place, grant.sealedAccessToken);
  let identity: ZoomIdentity | null = null;
  try {
    identity = await deps.zoom.currentUser({ environment: grant.environment, apiUrl: grant.apiUrl, accessToken });
  } catch (error) {
    if (error instanceof ZoomAccessTokenRejectedError || error instanceof ZoomGrantInvalidError) {
      const outcome = await deps.refresher.refresh({ ...grant, grantId: id }, { force: true });
      if (outcome.kind === 'failed') throw new ProviderUnavailableError(outcome.reason, outcome.retryAfterSeconds);
      return id;
    }
    // The token was taken; it only may not read the profile.
    if (!(error instanceof ZoomScopeMissingError)) throw translate(error);
  }
  await deps.db.transaction(async (tx) => {
    const locked = await lockGrant(tx, id);
    if (locked === undefined || !isLive(locked.health.status)) return;
    const [checked] = await tx.query<{ missingScopes: string[]; now: Date }>(sql`
      UPDATE provider_grant SET health_checked_at = now() WHERE id = ${id}::uuid
      RETURNING missing_scopes AS "missingScopes", date_trunc('milliseconds', now()) AS now`);
    if (identity?.personalMeetingId && checked !== undefined) {
      const host = { grantId: id, tenantId: locked.tenantId, hostUserId: identity.userId };
      await writePersonalMeeting(tx, host, identity.personalMeetingId, checked.now);
    }
    const missing = checked?.missingScopes ?? [];
    const next = nextHealth(locked.health, { kind: 'worked', by: 'probe', missingScopes: missing });
    await recordTransitions(tx, [{ grantId: id, tenantId: locked.tenantId, previous: locked.health, next }]);
  });
  deps.feed.publish(HEALTH_TOPIC);
  return id;
}

function translate(error: unknown): unknown {
  if (!(error instanceof ZoomError)) return error;
  const limited = error instanceof ZoomRateLimitedError;
  const reason: HealthReason = limited ? 'RATE_LIMITED' : 'PROVIDER_UNAVAILABLE';
  return new ProviderUnavailableError(reason, (limited ? error.retryAfterSeconds : null) ?? 5);
}
