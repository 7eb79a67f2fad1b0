import type { HealthReason, HealthStatus } from '../generated/prisma/enums.js';
import type { GrantRejection } from '../zoom/errors.js';

/** The present state of a grant as far as its health is concerned. */
export interface HealthState {
  status: HealthStatus;
  reason: HealthReason;
}

const STATUS: Record<HealthReason, HealthStatus> = {
  CONNECTED: 'HEALTHY',
  RECOVERED: 'HEALTHY',
  PROVIDER_UNAVAILABLE: 'DEGRADED',
  RATE_LIMITED: 'DEGRADED',
  APP_REJECTED: 'DEGRADED',
  SCOPES_MISSING: 'DEGRADED',
  GRANT_REJECTED: 'REAUTHORIZATION_REQUIRED',
  GRANT_EXPIRED: 'REAUTHORIZATION_REQUIRED',
  ROTATION_LOST: 'REAUTHORIZATION_REQUIRED',
  SUPERSEDED: 'REAUTHORIZATION_REQUIRED',
  PROVIDER_USER_REMOVED: 'REAUTHORIZATION_REQUIRED',
  DISABLED_BY_ADMIN: 'REAUTHORIZATION_REQUIRED',
  DEAUTHORIZED_AT_PROVIDER: 'REVOKED',
  DISCONNECTED: 'REVOKED',
};

const REMEDY: Record<HealthReason, string | null> = {
  CONNECTED: null,
  RECOVERED: null,
  PROVIDER_UNAVAILABLE: 'Nothing to do: Zoom does not answer at the moment and is asked again.',
  RATE_LIMITED: 'Nothing to do: Zoom asks to slow down and is asked again later.',
  APP_REJECTED: 'Check the client id and secret of the provider app.',
  SCOPES_MISSING: 'Add the missing scopes to the app at Zoom and authorize again.',
  GRANT_REJECTED: 'Authorize again: Zoom no longer accepts this connection.',
  GRANT_EXPIRED: 'Authorize again: the connection was unused for too long.',
  ROTATION_LOST: 'Authorize again: the answer to a token renewal was lost.',
  SUPERSEDED: 'Authorize again if this connection is still wanted: the same Zoom user was connected elsewhere since.',
  PROVIDER_USER_REMOVED: 'Have someone who is still in the Zoom account authorize again.',
  DISABLED_BY_ADMIN: 'Ask the Zoom account administrator to allow the app, then authorize again.',
  DEAUTHORIZED_AT_PROVIDER: 'Authorize again if the connection is still wanted: the app was removed at Zoom.',
  DISCONNECTED: 'Authorize again if the connection is still wanted: it was disconnected here.',
};

const REJECTION: Record<GrantRejection, HealthReason> = {
  REJECTED: 'GRANT_REJECTED',
  EXPIRED: 'GRANT_EXPIRED',
  USER_REMOVED: 'PROVIDER_USER_REMOVED',
  DISABLED_BY_ADMIN: 'DISABLED_BY_ADMIN',
  SUPERSEDED: 'SUPERSEDED',
};

export const healthOf = (reason: HealthReason): HealthState => ({ status: STATUS[reason], reason });

/** What a person should do, in one sentence; null when there is nothing. */
export const remedyFor = (reason: HealthReason): string | null => REMEDY[reason];

/** Whether tokens of the grant may be used and refreshed. */
export const isLive = (status: HealthStatus): boolean => status === 'HEALTHY' || status === 'DEGRADED';

/** The provider took the credential: a refresh or a probe succeeded. Only a new consent revives a grant that ended. */
export function afterSuccess(current: HealthState, missingScopes: readonly string[]): HealthState {
  if (!isLive(current.status)) return current;
  if (missingScopes.length > 0) return healthOf('SCOPES_MISSING');
  return current.status === 'HEALTHY' ? current : healthOf('RECOVERED');
}

/**
 * A refresh failed in a way that may pass. A healthy grant stays so until `threshold` failures in a row; one incident
 * keeps the reason it opened with.
 */
export function afterTransientFailure(
  current: HealthState,
  failure: { reason: HealthReason; failures: number; threshold: number },
): HealthState {
  if (current.status !== 'HEALTHY' || failure.failures < failure.threshold) return current;
  return healthOf(failure.reason);
}

/** The provider refused the grant for good. `inDoubt`: an earlier refresh may have been answered unread. */
export function afterRejection(
  current: HealthState,
  { rejection, inDoubt }: { rejection: GrantRejection; inDoubt: boolean },
): HealthState {
  // What ended keeps the reason it ended for.
  if (!isLive(current.status)) return current;
  return healthOf(inDoubt && rejection === 'REJECTED' ? 'ROTATION_LOST' : REJECTION[rejection]);
}

export const sameHealth = (a: HealthState, b: HealthState): boolean => a.status === b.status && a.reason === b.reason;
