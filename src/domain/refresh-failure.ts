import sql from 'sql-template-tag';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { HealthReason } from '../generated/prisma/enums.js';
import {
  ZoomClientRejectedError,
  type ZoomError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomResponseInvalidError,
  ZoomUnavailableError,
} from '../zoom/errors.js';
import type { Deps } from './deps.js';
import { lockGrant } from './grant.js';
import { nextHealth } from './health.js';
import { recordTransitions } from './health-event.js';
import { INCIDENT_PROBE_SECONDS, openIncident } from './incident.js';
import { isRotating, type Lease, slowDown } from './lease.js';
import type { RefreshOutcome } from './refresh.js';

const FIRST_RETRY_SECONDS = 0.5;
const LONGEST_RETRY_SECONDS = 300;
/** How long the scheduler leaves an app alone whose provider asks to slow down and does not say how long. */
const UNTOLD_SLOW_DOWN_SECONDS = 1;

const ELSEWHERE: RefreshOutcome = { kind: 'elsewhere' };

/** Settles a lease whose request failed, by what the failure says: about the grant, the app, or the moment. */
export async function settleFailure(deps: Deps, lease: Lease, error: ZoomError): Promise<RefreshOutcome> {
  deps.log.warn('a refresh failed', {
    grantId: lease.grantId,
    tenantId: lease.tenantId,
    appId: lease.app.id,
    errorName: error.name,
    attempt: lease.failures + 1,
  });
  if (error instanceof ZoomGrantInvalidError) return reject(deps, lease, error);
  if (error instanceof ZoomClientRejectedError) {
    await openIncident(deps, lease.app.id);
    return giveBack(deps, lease, { reason: 'APP_REJECTED', seconds: INCIDENT_PROBE_SECONDS });
  }
  const lost =
    error instanceof ZoomResponseInvalidError ||
    (error instanceof ZoomUnavailableError && error.stage === 'unanswered');
  const limited = error instanceof ZoomRateLimitedError;
  const retryAfter = limited || error instanceof ZoomUnavailableError ? error.retryAfterSeconds : null;
  if (limited) await slowDown(deps, lease.app.id, retryAfter ?? UNTOLD_SLOW_DOWN_SECONDS);
  return failForNow(deps, lease, {
    reason: limited ? 'RATE_LIMITED' : 'PROVIDER_UNAVAILABLE',
    retryAfter,
    inDoubt: isRotating(lease) && (lost || lease.inDoubt),
  });
}

/**
 * The provider says the grant is dead. It is believed only if the row is still as it was leased: had another process
 * rotated meanwhile, the dead token was merely an old one.
 */
async function reject(deps: Deps, lease: Lease, { rejection }: ZoomGrantInvalidError): Promise<RefreshOutcome> {
  const { inDoubt, idle } = lease;
  const outcome = await deps.db.transaction(async (tx): Promise<RefreshOutcome> => {
    const grant = await lockGrant(tx, lease.grantId);
    const [mine] = await tx.query(sql`
      UPDATE credential SET refresh_state = 'IDLE', lease_until = NULL, next_refresh_at = NULL, next_probe_at = NULL,
        on_trial = false, failures = failures + 1
      WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}
      RETURNING grant_id`);
    if (grant === undefined || mine === undefined) return ELSEWHERE;
    const next = nextHealth(grant.health, { kind: 'rejected', rejection, inDoubt, idle });
    await recordTransitions(tx, [{ grantId: grant.id, tenantId: grant.tenantId, previous: grant.health, next }]);
    return { kind: 'ended' };
  });
  deps.feed.publish(HEALTH_TOPIC);
  return outcome;
}

/** Full jitter below an exponential ceiling, and never before the provider's own wish. */
function retryDelay(failures: number, retryAfter: number | null): number {
  const ceiling = Math.min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** Math.min(failures, 20));
  return Math.max(retryAfter ?? 0, Math.random() * ceiling, 0.1);
}

/** The refresh did not succeed and may later. Enough failures in a row degrade the grant, once for all of them. */
export async function failForNow(
  deps: Deps,
  lease: Lease,
  failure: { reason: HealthReason; retryAfter: number | null; inDoubt: boolean },
): Promise<RefreshOutcome> {
  const failures = lease.failures + 1;
  const doubtWait = failure.inDoubt ? deps.settings.doubtSeconds : 0;
  const delay = Math.max(retryDelay(failures, failure.retryAfter), doubtWait);
  const outcome = await deps.db.transaction(async (tx): Promise<RefreshOutcome> => {
    const grant = await lockGrant(tx, lease.grantId);
    const [mine] = await tx.query(sql`
      UPDATE credential SET refresh_state = ${failure.inDoubt ? 'IN_DOUBT' : 'IDLE'}::"RefreshState",
        lease_until = CASE WHEN ${failure.inDoubt} THEN now() END, failures = ${failures},
        failure_reason = ${failure.reason}::"HealthReason", retry_at = now() + make_interval(secs => ${delay}),
        next_refresh_at = now() + make_interval(secs => ${delay})
      WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}
      RETURNING grant_id`);
    if (grant === undefined || mine === undefined) return ELSEWHERE;
    const threshold = deps.settings.failuresBeforeDegraded;
    const next = nextHealth(grant.health, { kind: 'failed', reason: failure.reason, failures, threshold });
    await recordTransitions(tx, [{ grantId: grant.id, tenantId: grant.tenantId, previous: grant.health, next }]);
    return { kind: 'failed', reason: failure.reason, retryAfterSeconds: Math.ceil(delay) };
  });
  deps.feed.publish(HEALTH_TOPIC);
  return outcome;
}

/**
 * Gives the lease back without having learned anything about the grant.
 *
 * @param wait why and how long to wait; null: it may be taken again at once.
 */
export async function giveBack(
  deps: Pick<Deps, 'db' | 'settings'>,
  lease: Lease,
  wait: { reason: HealthReason; seconds: number } | null,
): Promise<RefreshOutcome> {
  const { reason, seconds } = wait ?? { reason: null, seconds: 0 };
  await deps.db.query(sql`
    UPDATE credential SET refresh_state = ${lease.inDoubt ? 'IN_DOUBT' : 'IDLE'}::"RefreshState",
      lease_until = CASE WHEN ${lease.inDoubt} THEN now() - make_interval(secs => ${deps.settings.doubtSeconds}) END,
      failure_reason = coalesce(${reason}::"HealthReason", failure_reason),
      retry_at = CASE WHEN ${wait !== null} THEN now() + make_interval(secs => ${seconds}) END,
      next_refresh_at = now() + make_interval(secs => ${seconds})
    WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}`);
  return reason === null ? ELSEWHERE : { kind: 'failed', reason, retryAfterSeconds: Math.ceil(seconds) };
}
