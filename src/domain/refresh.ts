import { BACKGROUND } from '../database/database.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { HealthReason } from '../generated/prisma/enums.js';
import { inSpan, tell, traceRefresh } from '../diagnostics.js';
import type { Spooled } from '../spool/spool.js';
import { ZoomError } from '../zoom/errors.js';
import type { TokenSet, ZoomClient } from '../zoom/zoom.js';
import { callAsApp, createOpenedSecrets } from './app-secret.js';
import type { Deps } from './deps.js';
import { credentialPlace } from './grant.js';
import { closeIncident, waitForIncident } from './incident.js';
import { databaseNow, heldSeconds, takeDueLeases, takeLease, type Lease } from './lease.js';
import { createProviderGuard, ProviderPausedError } from './provider-guard.js';
import { createRenewalWriter, settleRenewal, surrenderOrphan } from './refresh-commit.js';
import { createRefreshQueue } from './refresh-queue.js';
import { failForNow, giveBack, settleFailure } from './refresh-failure.js';
import { renewedRow, spoolEntry, type Renewal, type RenewedRow } from './renewal.js';
import { settleSpooled } from './spool-replay.js';

/**
 * How long a rotated token is tried to be stored before it is left to the spool. This process does not ask for the
 * credential again meanwhile; once the lease and the wait after it have run out another may, and then the fence keeps
 * what is stored consistent, though one of the two answers is lost.
 */
const STORE_PATIENCE_MS = 120_000;
/** While the pace of an app or the share of a tenant holds back what is due, it is looked at this often. */
const HELD_BACK_MS = 40;
/** How long after the last lease something may still be held back. */
const ATTENTIVE_MS = 1_000;
/** How long a turn without retries lasts once their budget is spent. */
const BUDGET_PAUSE_SECONDS = 5;

/**
 * What became of an attempt. `elsewhere`: the row is not at the version any more that wanted it, or another process is
 * at it; read it again.
 */
export type RefreshOutcome =
  { kind: 'refreshed' | 'elsewhere' | 'ended' } | { kind: 'failed'; reason: HealthReason; retryAfterSeconds: number };

const ELSEWHERE: RefreshOutcome = { kind: 'elsewhere' };

/** Refreshes credentials: the only code that sends a refresh token which the database holds. */
export interface Refresher {
  /**
   * Refreshes one credential if it still is at `version`. Callers in one process share one attempt; among processes the
   * lease decides.
   *
   * @param options `force`: also before a failed attempt's waiting time is over.
   */
  refresh(
    seen: { grantId: string; tenantId: string; version: number },
    options?: { force?: boolean },
  ): Promise<RefreshOutcome>;
  /**
   * Leases credentials that are due and refreshes them, at most `limit` at a time, and resolves when more could be
   * leased: a provider that is slow to answer for some does not keep the others waiting.
   *
   * @returns whether to ask again at once.
   */
  refreshDue(limit: number): Promise<boolean>;
  /**
   * Stores what this machine's spool holds from refreshes and imports whose process died, or could not reach the database.
   *
   * @param options `all`: also what other running processes may still be at; for the start, before anything is read.
   */
  replay(options?: { all?: boolean }): Promise<void>;
  /** What this process is at, for whoever watches it. */
  load(): RefreshLoad;
  /** Starts no further attempt; resolves when none is under way any more. */
  drain(): Promise<void>;
}

export interface RefreshLoad {
  /** Refreshes under way, asked for and scheduled. */
  running: number;
  /** Leases that wait for their turn in this process. */
  queued: number;
  /** Provider apps whose requests are held back because the provider does not answer. */
  pausedApps: number;
}

export function createRefresher(deps: Deps): Refresher {
  const { settings } = deps;
  const running = new Map<string, Promise<RefreshOutcome>>();
  const stopping = new AbortController();
  let lastTakenMs = -Infinity;
  const guard = createProviderGuard({ perTenant: settings.refreshesPerTenant });
  const patience = { patienceMs: STORE_PATIENCE_MS, hurry: stopping.signal };
  const openedSecrets = createOpenedSecrets();
  // One transaction for all, at a time: it counts for nobody.
  const writeHealthy = createRenewalWriter(deps, patience);
  const scheduled: Deps = { ...deps, db: deps.db.shareOf(BACKGROUND) };
  /** What a reader waits for takes up the connections of the reader's tenant. */
  const onBehalfOf = (tenantId: string): Deps => ({ ...deps, db: deps.db.shareOf(tenantId) });

  function track(grantId: string, attempt: Promise<RefreshOutcome>): Promise<RefreshOutcome> {
    const tracked = attempt.finally(() => {
      if (running.get(grantId) === tracked) running.delete(grantId);
    });
    running.set(grantId, tracked);
    return tracked;
  }

  const queue = createRefreshQueue({
    clock: deps.clock,
    run: (lease) =>
      track(
        lease.grantId,
        guard.inShareOf(lease.tenantId, () => shown(lease, 'schedule', () => runCounted(scheduled, lease))),
      ),
  });

  const giveBackAll = (leases: readonly Lease[]) =>
    Promise.allSettled(leases.map((lease) => giveBack(scheduled, lease, null)));

  /** Refreshes of each tenant, those that wait included. */
  function perTenant(): Map<string, number> {
    const counts = new Map(guard.running());
    for (const { tenantId } of queue.waiting()) counts.set(tenantId, (counts.get(tenantId) ?? 0) + 1);
    return counts;
  }

  async function leaseAndRun(own: Deps, seen: { grantId: string; version: number }, force: boolean) {
    if (stopping.signal.aborted) return ELSEWHERE;
    const lease = await inSpan('lease', () => takeLease(own, seen, { force }));
    return lease === null ? ELSEWHERE : runCounted(own, lease, force);
  }

  /** As `runLease`, and tells whoever counts. */
  async function runCounted(own: Deps, lease: Lease, force = false): Promise<RefreshOutcome> {
    const sinceMs = performance.now();
    const end = (outcome: RefreshOutcome['kind'] | 'error', cause: string) => {
      const attempt = lease.failures === 0 ? 'first' : 'retry';
      tell({ kind: 'refresh', outcome, cause, attempt, seconds: (performance.now() - sinceMs) / 1_000 });
    };
    try {
      const outcome = await runLease(own, lease, force);
      end(outcome.kind, outcome.kind === 'failed' ? outcome.reason : 'none');
      return outcome;
    } catch (error) {
      end('error', 'none');
      throw error;
    }
  }

  /** Asks the provider once and settles the lease with whatever came of it. */
  async function runLease(own: Deps, lease: Lease, force: boolean): Promise<RefreshOutcome> {
    traceRefresh('leased', lease);
    let renewal: Renewal | undefined;
    try {
      const pause = lease.appIncident ? await waitForIncident(own, lease.app.id) : 0;
      if (pause > 0) return await giveBack(own, lease, { reason: 'APP_REJECTED', seconds: pause });
      if (!force && !guard.mayTry(lease.app.id, lease.failures === 0 ? 'first' : 'retry')) {
        return await giveBack(own, lease, { reason: 'PROVIDER_UNAVAILABLE', seconds: BUDGET_PAUSE_SECONDS });
      }
      const sealer = await deps.vault.sealer(own.db, lease.tenantId);
      const keep = await deps.spool.prepare();
      const request = await prepareRequest(own, lease);
      renewal = await guard.call(lease.app.id, () => callAsApp({ ...own, openedSecrets }, lease.app, request));
      traceRefresh('answered', lease);
      const row = renewedRow(sealer, settings, renewal);
      const spooled = await keep(spoolEntry(row));
      if (spooled.isDurable) traceRefresh('spooled', lease);
      const renewed = { renewal, row };
      const outcome = await inSpan('commit', () => store(own, lease, renewed, spooled));
      traceRefresh('committed', lease);
      if (lease.appIncident) await closeIncident(own, lease.app.id);
      return outcome;
    } catch (error) {
      if (error instanceof LeaseSpentError) return giveBack(own, lease, null);
      if (error instanceof ProviderPausedError) {
        const { retryAfterSeconds: retryAfter } = error;
        return failForNow(own, lease, { reason: 'PROVIDER_UNAVAILABLE', retryAfter, inDoubt: lease.inDoubt });
      }
      if (error instanceof ZoomError) return settleFailure(own, lease, error);
      // Ours, not the provider's: the vault or the database. The lease runs out by itself if this cannot be stored.
      deps.log.error('a refresh could not be carried out', { grantId: lease.grantId, tenantId: lease.tenantId }, error);
      // Once answered, the stored refresh token is spent; what replaced it waits in the spool, under this lease's fence.
      if (renewal === undefined) {
        const { inDoubt } = lease;
        await failForNow(own, lease, { reason: 'PROVIDER_UNAVAILABLE', retryAfter: null, inDoubt }).catch(() => null);
      }
      throw error;
    }
  }

  /** Opens everything a refresh needs before anything is sent, so that a locked vault cannot cost a rotation. */
  async function prepareRequest(own: Deps, lease: Lease): Promise<(client: ZoomClient) => Promise<Renewal>> {
    const { grantId, tenantId, fence, version } = lease;
    let refreshToken: Awaited<ReturnType<Deps['vault']['open']>> | null = null;
    if (lease.appKind !== 'SERVER_TO_SERVER') {
      if (lease.sealedRefreshToken === null) throw new Error('The credential has no refresh token.');
      const place = credentialPlace({ id: grantId, tenantId }, 'sealed_refresh_token', version);
      refreshToken = await deps.vault.open(own.db, place, lease.sealedRefreshToken);
    }
    return async (client) => {
      // Sent later, the answer could come when another process has taken the credential up already.
      if (heldSeconds(lease) + settings.providerDeadlineSeconds > settings.leaseSeconds) throw new LeaseSpentError();
      const issuedAt = databaseNow(lease);
      const answer: TokenSet =
        refreshToken === null
          ? await deps.zoom.mintAccountToken(client, lease.providerAccountId)
          : await deps.zoom.refresh(client, refreshToken);
      const tokens = {
        ...answer,
        // RFC 6749 §6: an answer that names no scopes leaves them as they were, and one without a new refresh token
        // leaves the former one good.
        scopes: answer.scopes.length > 0 ? answer.scopes : lease.grantedScopes,
        refreshToken: answer.refreshToken ?? refreshToken,
      };
      return { grantId, tenantId, fence, version, issuedAt, tokens, isRotated: answer.refreshToken !== null };
    };
  }

  async function store(
    own: Deps,
    lease: Lease,
    { renewal, row }: { renewal: Renewal; row: RenewedRow },
    spooled: Spooled,
  ): Promise<RefreshOutcome> {
    try {
      if (hasSame(row.scopes, lease.grantedScopes) && (await writeHealthy(row))) {
        spooled.settle();
        deps.feed.publish(HEALTH_TOPIC);
        return { kind: 'refreshed' };
      }
      const outcome = await settleRenewal(own, row, patience);
      if (outcome === 'gone') await surrenderOrphan(own, renewal, lease.app.id, patience);
      if (outcome === 'undecided') spooled.postpone();
      else spooled.settle();
      return outcome === 'stored' ? { kind: 'refreshed' } : ELSEWHERE;
    } catch (error) {
      spooled.postpone();
      throw error;
    }
  }

  return {
    refresh: (seen, { force = false } = {}) => {
      queue.hurry(seen.grantId);
      return (
        running.get(seen.grantId) ??
        track(
          seen.grantId,
          guard.inShareOf(seen.tenantId, () =>
            shown(seen, 'request', () => leaseAndRun(onBehalfOf(seen.tenantId), seen, force)),
          ),
        )
      );
    },
    refreshDue: async (limit) => {
      const room = {
        limit: queue.room(limit),
        busy: [...running.keys(), ...queue.waiting().map(({ grantId }) => grantId)],
        pausedApps: guard.pausedApps(),
        running: perTenant(),
        perTenant: settings.refreshesPerTenant,
      };
      const leases = stopping.signal.aborted ? [] : await takeDueLeases(scheduled, room);
      // Taken while the end began, nobody would start them.
      if (stopping.signal.aborted) await giveBackAll(leases);
      else queue.add(leases);
      if (leases.length > 0) {
        lastTakenMs = performance.now();
        await queue.awaitRoom();
        return true;
      }
      if (queue.isEmpty && performance.now() - lastTakenMs > ATTENTIVE_MS) return false;
      await deps.clock.sleep(HELD_BACK_MS);
      return true;
    },
    replay: async (options) => {
      for (const spooled of await deps.spool.unsettled(options)) await settleSpooled(scheduled, spooled);
    },
    load: () => ({
      running: running.size,
      queued: queue.waiting().length,
      pausedApps: guard.pausedApps().length,
    }),
    drain: async () => {
      stopping.abort();
      await giveBackAll(queue.stop());
      while (running.size > 0) await Promise.allSettled(running.values());
    },
  };
}

/** As one span of a trace. */
const shown = async <T>(
  { grantId, tenantId }: { grantId: string; tenantId: string },
  trigger: 'request' | 'schedule',
  refresh: () => Promise<T>,
): Promise<T> => inSpan('refresh', refresh, () => ({ grantId, tenantId, trigger, outcome: 'elsewhere' }));

/** So much of the lease was over before the request could be sent that it was not. */
class LeaseSpentError extends Error {}

const hasSame = (a: readonly string[], b: readonly string[]) =>
  a.length === b.length && a.every((name) => b.includes(name));
