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

/** Something that was found out about a grant. */
export type HealthFact =
  /** Consent was given. */
  | { kind: 'consented'; missingScopes: readonly string[] }
  /** The provider took the credential: it was renewed, or a request with it was answered. */
  | { kind: 'worked'; by: 'refresh' | 'probe'; missingScopes: readonly string[] }
  /** Tokens that had been taken for lost, or a grant that had ended at the provider, turned out to be good. */
  | { kind: 'revived'; missingScopes: readonly string[] }
  /** The app has come to require other scopes. */
  | { kind: 'required'; missingScopes: readonly string[] }
  /** A refresh failed in a way that may pass, for the `failures`th time in a row. */
  | { kind: 'failed'; reason: HealthReason; failures: number; threshold: number }
  /**
   * The provider refused the grant for good. `inDoubt`: an earlier refresh may have been answered unread. `idle`: the
   * provider's limit for an unused token had passed.
   */
  | { kind: 'rejected'; rejection: GrantRejection; inDoubt: boolean; idle: boolean }
  /** It was ended from outside. */
  | { kind: 'ended'; reason: 'DISCONNECTED' | 'DEAUTHORIZED_AT_PROVIDER' | 'SUPERSEDED' };

/**
 * The health of a grant once a fact is known: the only rule by which health changes. Pure.
 *
 * - Only a new consent or proof of good tokens revives a grant that ended; what ended keeps the reason it ended for,
 *   unless it is ended on purpose later.
 * - One incident is one reason: a degraded grant keeps the reason it was degraded for until it recovers.
 * - A probe does not disprove a failing refresh: such an incident is over when a refresh succeeds.
 */
export function nextHealth(current: HealthState, fact: HealthFact): HealthState {
  switch (fact.kind) {
    case 'consented':
      return fact.missingScopes.length > 0 ? healthOf('SCOPES_MISSING') : healthOf('CONNECTED');
    case 'worked':
      if (!isLive(current.status) || (fact.by === 'probe' && isOutage(current.reason))) return current;
      return withScopes(current, fact.missingScopes);
    case 'revived':
      if (current.status === 'REVOKED') return current;
      return withScopes(current, fact.missingScopes);
    case 'required':
      if (current.status !== 'HEALTHY' && current.reason !== 'SCOPES_MISSING') return current;
      return withScopes(current, fact.missingScopes);
    case 'failed':
      if (current.status !== 'HEALTHY' || fact.failures < fact.threshold) return current;
      return healthOf(fact.reason);
    case 'rejected':
      return isLive(current.status) ? healthOf(reasonOf(fact)) : current;
    case 'ended':
      return current.status === 'REVOKED' ? current : healthOf(fact.reason);
  }
}

const isOutage = (reason: HealthReason) => reason === 'PROVIDER_UNAVAILABLE' || reason === 'RATE_LIMITED';

function withScopes(current: HealthState, missingScopes: readonly string[]): HealthState {
  if (missingScopes.length > 0) return healthOf('SCOPES_MISSING');
  return current.status === 'HEALTHY' ? current : healthOf('RECOVERED');
}

/** The provider names no cause for most refusals; what we know of the token tells the two that can be told. */
function reasonOf({ rejection, inDoubt, idle }: Extract<HealthFact, { kind: 'rejected' }>): HealthReason {
  if (rejection !== 'REJECTED') return REJECTION[rejection];
  if (inDoubt) return 'ROTATION_LOST';
  return idle ? 'GRANT_EXPIRED' : 'GRANT_REJECTED';
}

export const sameHealth = (a: HealthState, b: HealthState): boolean => a.status === b.status && a.reason === b.reason;
