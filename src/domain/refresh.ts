import sql from 'sql-template-tag';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { HealthReason } from '../generated/prisma/enums.js';
import {
  ZoomClientRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomResponseInvalidError,
  ZoomUnavailableError,
} from '../zoom/errors.js';
import type { TokenSet, ZoomClient } from '../zoom/zoom.js';
import { callAsApp } from './app-secret.js';
import type { Deps } from './deps.js';
import { credentialPlace, lockGrant, refreshDelaySeconds, sealTokens } from './grant.js';
import { afterRejection, afterSuccess, afterTransientFailure } from './health.js';
import { recordTransitions } from './health-event.js';
import { closeIncident, openIncident, waitForIncident } from './incident.js';
import { isRotating, takeDueLeases, takeLease, type Lease } from './lease.js';
import { persist } from './persist.js';
import { revokePending } from './revocation.js';
import { queueRevocation } from './revocation-queue.js';
import { missingScopes } from './scope.js';

const FIRST_RETRY_SECONDS = 0.5;
const LONGEST_RETRY_SECONDS = 300;
const REFRESH_TOKEN_DAYS = 90;
/**
 * How long a rotated token is tried to be stored. This process does not ask for the credential again meanwhile; once
 * the lease and the wait after it have run out another may, and then the fence keeps what is stored consistent, though
 * one of the two answers is lost.
 */
const STORE_PATIENCE_MS = 120_000;

/**
 * What became of an attempt. `elsewhere`: the row is not at the version any more that wanted it, or another process is
 * at it; read it again.
 */
export type RefreshOutcome =
  { kind: 'refreshed' | 'elsewhere' | 'ended' } | { kind: 'failed'; reason: HealthReason; retryAfterSeconds: number };

const ELSEWHERE: RefreshOutcome = { kind: 'elsewhere' };

/** Refreshes credentials: the only code that sends a refresh token. */
export interface Refresher {
  /**
   * Refreshes one credential if it still is at `version`. Callers in one process share one attempt; among processes the
   * lease decides.
   *
   * @param options `force`: also before a failed attempt's waiting time is over.
   */
  refresh(seen: { grantId: string; version: number }, options?: { force?: boolean }): Promise<RefreshOutcome>;
  /**
   * Starts refreshing credentials that are due, at most `limit` of them at a time, and resolves when one more could be
   * started: a provider that is slow to answer for some does not keep the others waiting.
   *
   * @returns whether more may be due.
   */
  refreshDue(limit: number): Promise<boolean>;
  /** Starts no further attempt; resolves when none is under way any more. */
  drain(): Promise<void>;
}

export function createRefresher(deps: Deps): Refresher {
  const running = new Map<string, Promise<RefreshOutcome>>();
  const scheduled = new Set<Promise<unknown>>();
  let draining = false;

  function track(grantId: string, attempt: Promise<RefreshOutcome>): Promise<RefreshOutcome> {
    const tracked = attempt.finally(() => {
      if (running.get(grantId) === tracked) running.delete(grantId);
    });
    running.set(grantId, tracked);
    return tracked;
  }

  function schedule(lease: Lease): void {
    const attempt: Promise<unknown> = Promise.allSettled([track(lease.grantId, runLease(deps, lease))]).then(() =>
      scheduled.delete(attempt),
    );
    scheduled.add(attempt);
  }

  async function leaseAndRun(seen: { grantId: string; version: number }, force: boolean): Promise<RefreshOutcome> {
    if (draining) return ELSEWHERE;
    const lease = await takeLease(deps, seen, { force });
    return lease === null ? ELSEWHERE : runLease(deps, lease);
  }

  return {
    refresh: (seen, { force = false } = {}) =>
      running.get(seen.grantId) ?? track(seen.grantId, leaseAndRun(seen, force)),
    refreshDue: async (limit) => {
      const room = limit - scheduled.size;
      const leases = await takeDueLeases(deps, room, [...running.keys()]);
      for (const lease of leases) schedule(lease);
      if (scheduled.size >= limit) await Promise.race(scheduled);
      return leases.length === room;
    },
    drain: async () => {
      draining = true;
      while (running.size > 0) await Promise.allSettled(running.values());
    },
  };
}

/** Asks the provider once and settles the lease with whatever came of it. */
async function runLease(deps: Deps, lease: Lease): Promise<RefreshOutcome> {
  const startedAt = performance.now();
  let answered = false;
  try {
    const pause = lease.appIncident ? await waitForIncident(deps, lease.app.id) : 0;
    if (pause > 0) return await keepWaiting(deps, lease, 'APP_REJECTED', pause);
    const answer = await callAsApp(deps, lease.app, await prepareRequest(deps, lease));
    answered = true;
    // RFC 6749 §6: an answer that names no scopes leaves them as they were.
    const tokens = { ...answer, scopes: answer.scopes.length > 0 ? answer.scopes : lease.grantedScopes };
    const ageSeconds = (performance.now() - startedAt) / 1_000;
    const outcome = await persist(deps, STORE_PATIENCE_MS, (tx) => commitTokens(deps, tx, lease, tokens, ageSeconds));
    deps.feed.publish(HEALTH_TOPIC);
    if (lease.appIncident) await closeIncident(deps, lease.app.id);
    if (outcome.kind === 'elsewhere') void revokePending(deps);
    return outcome;
  } catch (error) {
    if (error instanceof ZoomError) return settleFailure(deps, lease, error);
    // Ours, not the provider's: the vault or the database. The lease runs out by itself if this cannot be stored.
    deps.log.error('a refresh could not be carried out', { grantId: lease.grantId, tenantId: lease.tenantId }, error);
    // Once answered, the stored refresh token is spent, and what replaced it is lost.
    const inDoubt = lease.inDoubt || (answered && isRotating(lease));
    await failForNow(deps, lease, { reason: 'PROVIDER_UNAVAILABLE', retryAfter: null, inDoubt }).catch(() => undefined);
    throw error;
  }
}

/** Opens everything a refresh needs before anything is sent, so that a locked vault cannot cost a rotation. */
async function prepareRequest(deps: Deps, lease: Lease): Promise<(client: ZoomClient) => Promise<TokenSet>> {
  if (lease.appKind === 'SERVER_TO_SERVER') {
    return (client) => deps.zoom.mintAccountToken(client, lease.providerAccountId);
  }
  if (lease.sealedRefreshToken === null) throw new Error('The credential has no refresh token.');
  const place = credentialPlace({ id: lease.grantId, tenantId: lease.tenantId }, 'sealed_refresh_token', lease.version);
  const refreshToken = await deps.vault.open(deps.db, place, lease.sealedRefreshToken);
  return async (client) => {
    const tokens = await deps.zoom.refresh(client, refreshToken);
    // RFC 6749 §6: without a new refresh token in the answer the former one stays good.
    return { ...tokens, refreshToken: tokens.refreshToken ?? refreshToken };
  };
}

type Tx = Parameters<typeof sealTokens>[1];

/**
 * Stores the new tokens if the fence is still ours. If it is not, they are dropped and never returned to a caller:
 * somebody ended or replaced the grant, or took the credential for lost and went on.
 *
 * Here as everywhere the grant is locked before its credential, so that ending a grant while it is refreshed waits
 * instead of deadlocking.
 */
async function commitTokens(
  deps: Deps,
  tx: Tx,
  lease: Lease,
  tokens: TokenSet,
  ageSeconds: number,
): Promise<RefreshOutcome> {
  const grant = { id: lease.grantId, tenantId: lease.tenantId };
  const version = lease.version + 1;
  const locked = await lockGrant(tx, lease.grantId);
  const sealed = await sealTokens(deps.vault, tx, grant, version, tokens);
  const life = tokens.expiresInSeconds - ageSeconds;
  const delay = refreshDelaySeconds(life, deps.settings.refreshMarginSeconds);
  const [committed] = await tx.query(sql`
    WITH renewed AS (
      UPDATE credential SET version = ${version}, sealed_access_token = ${sealed.access},
        sealed_refresh_token = ${sealed.refresh}, key_version = ${sealed.keyVersion}, scopes = ${tokens.scopes}::text[],
        api_url = ${tokens.apiUrl}, issued_at = now() - make_interval(secs => ${ageSeconds}),
        expires_at = now() + make_interval(secs => ${life}),
        refresh_expires_at = CASE WHEN ${tokens.refreshToken !== null}
          THEN now() + make_interval(days => ${REFRESH_TOKEN_DAYS}) END,
        last_refreshed_at = now(), next_refresh_at = now() + make_interval(secs => ${delay}), refresh_state = 'IDLE',
        lease_until = NULL, failures = 0, failure_reason = NULL, retry_at = NULL
      WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}
      RETURNING grant_id
    )
    UPDATE provider_grant SET health_checked_at = now() FROM renewed WHERE id = renewed.grant_id RETURNING id`);
  if (committed === undefined) {
    deps.log.warn('a late answer to a refresh was fenced off', { grantId: grant.id, tenantId: grant.tenantId });
    const expiresAt = new Date(deps.clock.now().getTime() + life * 1_000);
    // Disconnected while the provider was renewing: what it handed out must not outlive the grant.
    if (locked?.health.status === 'REVOKED') {
      await queueRevocation(deps, tx, { tenantId: grant.tenantId, appId: lease.app.id }, { ...tokens, expiresAt });
    }
    return ELSEWHERE;
  }
  const unchanged = locked?.health.status === 'HEALTHY' && sameScopes(tokens.scopes, lease.grantedScopes);
  if (locked !== undefined && !unchanged) await updateScopes(tx, lease, locked, tokens.scopes);
  return { kind: 'refreshed' };
}

const sameScopes = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((name) => b.includes(name));

type LockedGrant = NonNullable<Awaited<ReturnType<typeof lockGrant>>>;

async function updateScopes(tx: Tx, lease: Lease, grant: LockedGrant, granted: readonly string[]): Promise<void> {
  // Read under the grant's lock: the app may have come to require more since the lease was taken.
  const [app] = await tx.query<{ requiredScopes: string[] }>(sql`
    SELECT required_scopes AS "requiredScopes" FROM provider_app WHERE id = ${lease.app.id}::uuid`);
  const missing = missingScopes(app?.requiredScopes ?? [], granted);
  await tx.query(sql`
    UPDATE provider_grant SET granted_scopes = ${granted}::text[], missing_scopes = ${missing}::text[]
    WHERE id = ${grant.id}::uuid`);
  const next = afterSuccess(grant.health, missing);
  await recordTransitions(tx, [{ grantId: grant.id, tenantId: grant.tenantId, previous: grant.health, next }]);
}

async function settleFailure(deps: Deps, lease: Lease, error: ZoomError): Promise<RefreshOutcome> {
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
    return keepWaiting(deps, lease, 'APP_REJECTED', 30);
  }
  const lost =
    error instanceof ZoomResponseInvalidError ||
    (error instanceof ZoomUnavailableError && error.stage === 'unanswered');
  const retryAfter =
    error instanceof ZoomRateLimitedError || error instanceof ZoomUnavailableError ? error.retryAfterSeconds : null;
  return failForNow(deps, lease, {
    reason: error instanceof ZoomRateLimitedError ? 'RATE_LIMITED' : 'PROVIDER_UNAVAILABLE',
    retryAfter,
    inDoubt: isRotating(lease) && (lost || lease.inDoubt),
  });
}

/**
 * The provider says the grant is dead. It is believed only if the row is still as it was leased: had another process
 * rotated meanwhile, the dead token was merely an old one.
 */
async function reject(deps: Deps, lease: Lease, error: ZoomGrantInvalidError): Promise<RefreshOutcome> {
  const outcome = await deps.db.transaction(async (tx): Promise<RefreshOutcome> => {
    const grant = await lockGrant(tx, lease.grantId);
    const [mine] = await tx.query(sql`
      UPDATE credential SET refresh_state = 'IDLE', lease_until = NULL, next_refresh_at = NULL,
        failures = failures + 1
      WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}
      RETURNING grant_id`);
    if (grant === undefined || mine === undefined) return ELSEWHERE;
    const next = afterRejection(grant.health, { rejection: error.rejection, inDoubt: lease.inDoubt });
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

async function failForNow(
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
      WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} RETURNING grant_id`);
    if (grant === undefined || mine === undefined) return ELSEWHERE;
    const threshold = deps.settings.failuresBeforeDegraded;
    const next = afterTransientFailure(grant.health, { reason: failure.reason, failures, threshold });
    await recordTransitions(tx, [{ grantId: grant.id, tenantId: grant.tenantId, previous: grant.health, next }]);
    return { kind: 'failed', reason: failure.reason, retryAfterSeconds: Math.ceil(delay) };
  });
  deps.feed.publish(HEALTH_TOPIC);
  return outcome;
}

/** Gives the lease back without having learned anything about the grant. */
async function keepWaiting(deps: Deps, lease: Lease, reason: HealthReason, seconds: number): Promise<RefreshOutcome> {
  await deps.db.query(sql`
    UPDATE credential SET refresh_state = ${lease.inDoubt ? 'IN_DOUBT' : 'IDLE'}::"RefreshState",
      lease_until = CASE WHEN ${lease.inDoubt} THEN now() - make_interval(secs => ${deps.settings.doubtSeconds}) END,
      failure_reason = ${reason}::"HealthReason", retry_at = now() + make_interval(secs => ${seconds}),
      next_refresh_at = now() + make_interval(secs => ${seconds})
    WHERE grant_id = ${lease.grantId}::uuid AND fence = ${lease.fence} AND version = ${lease.version}`);
  return { kind: 'failed', reason, retryAfterSeconds: seconds };
}
