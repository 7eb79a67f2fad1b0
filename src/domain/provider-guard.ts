import {
  bulkhead,
  circuitBreaker,
  CircuitState,
  ConsecutiveBreaker,
  ExponentialBackoff,
  handleWhen,
  type BulkheadPolicy,
  type IBackoff,
} from 'cockatiel';
import { LRUCache } from 'lru-cache';
import { ZoomResponseInvalidError, ZoomUnavailableError } from '../zoom/errors.js';

/** Failures in a row of one app's requests after which the provider is taken for down. */
const BREAKER_FAILURES = 10;
const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 60_000;

/** Retries may be a tenth of first attempts, and in any case so many a second: an outage must not be made worse. */
const RETRY_SHARE = 0.1;
const RETRIES_PER_SECOND = 2;
const RETRY_RESERVE = 100;

const MAX_APPS = 1_000;
const NO_BOUND = Number.MAX_SAFE_INTEGER;

/** The provider is taken for down: nothing was sent. */
export class ProviderPausedError extends Error {
  readonly retryAfterSeconds: number;

  constructor(retryAfterSeconds: number) {
    super('The provider is not asked at the moment');
    this.name = 'ProviderPausedError';
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/**
 * Keeps one process's refreshes from harming each other: a breaker and a retry budget for each provider app, and a
 * share of the process for each tenant. In memory, per process: it protects, and nothing depends on it being right.
 */
export interface ProviderGuard {
  /**
   * Runs a request in the name of an app. After failures in a row none is sent for a while, then one finds out.
   *
   * @throws {ProviderPausedError} nothing was sent.
   */
  call<T>(appId: string, request: () => Promise<T>): Promise<T>;
  /** Apps for which `call` would send nothing now. */
  pausedApps(): string[];
  /** Takes one retry out of the app's budget, or pays for one by a first attempt. @returns whether it may be sent. */
  mayTry(appId: string, attempt: 'first' | 'retry'): boolean;
  /** Runs `work` once the tenant has less than its share under way; what waits is done in order. */
  inShareOf<T>(tenantId: string, work: () => Promise<T>): Promise<T>;
  /** How much each tenant has under way. */
  running(): ReadonlyMap<string, number>;
}

interface AppGuard {
  execute: <T>(request: () => Promise<T>) => Promise<T>;
  /** Monotonic time from which one request may find out whether the provider is back; 0 while it is not paused. */
  pausedUntilMs: number;
  retries: number;
  countedAtMs: number;
}

/** @param perTenant refreshes of one tenant that may be under way at once. */
export function createProviderGuard({ perTenant }: { perTenant: number }): ProviderGuard {
  const apps = new LRUCache<string, AppGuard>({ max: MAX_APPS });
  const tenants = new Map<string, BulkheadPolicy>();

  function guardOf(appId: string): AppGuard {
    let guard = apps.get(appId);
    if (guard === undefined) apps.set(appId, (guard = createAppGuard()));
    return guard;
  }

  return {
    call: (appId, request) => guardOf(appId).execute(request),
    pausedApps: () => [...apps.entries()].flatMap(([id, guard]) => (remainingMs(guard) > 0 ? [id] : [])),
    mayTry: (appId, attempt) => spend(guardOf(appId), attempt),
    inShareOf: async (tenantId, work) => {
      let share = tenants.get(tenantId);
      if (share === undefined) tenants.set(tenantId, (share = bulkhead(perTenant, NO_BOUND)));
      try {
        return await share.execute(work);
      } finally {
        // Not at once: what waited has left the queue, and is about to begin.
        setImmediate(() => {
          if (share.executionSlots === perTenant) tenants.delete(tenantId);
        });
      }
    },
    running: () =>
      new Map([...tenants].map(([tenantId, { executionSlots }]) => [tenantId, perTenant - executionSlots])),
  };
}

function createAppGuard(): AppGuard {
  const guard: AppGuard = { execute: callThrough, pausedUntilMs: 0, retries: RETRY_RESERVE, countedAtMs: 0 };
  const breaker = circuitBreaker(
    handleWhen((error) => error instanceof ZoomUnavailableError || error instanceof ZoomResponseInvalidError),
    {
      breaker: new ConsecutiveBreaker(BREAKER_FAILURES),
      halfOpenAfter: outside(
        new ExponentialBackoff({ initialDelay: FIRST_PAUSE_MS, maxDelay: LONGEST_PAUSE_MS }),
        (durationMs) => (guard.pausedUntilMs = performance.now() + durationMs),
      ),
    },
  );
  breaker.onStateChange((state) => {
    if (state === CircuitState.Closed) guard.pausedUntilMs = 0;
  });
  let underWay: Promise<unknown> = Promise.resolve();
  async function callThrough<T>(request: () => Promise<T>): Promise<T> {
    for (;;) {
      const pausedMs = remainingMs(guard);
      if (pausedMs > 0) throw new ProviderPausedError(Math.max(0.1, pausedMs / 1_000));
      if (breaker.state === CircuitState.Closed) return breaker.execute(request);
      if (breaker.state === CircuitState.Open) {
        const attempt = breaker.execute(request);
        underWay = attempt.catch(() => undefined);
        return attempt;
      }
      await underWay;
    }
  }
  return guard;
}

const remainingMs = ({ pausedUntilMs }: AppGuard) => pausedUntilMs - performance.now();

/**
 * The same backoff, telling each duration that it gives and letting the breaker wait for none: the breaker reads the
 * clock of the wall, and a pause must neither end nor go on for hours because somebody set that.
 */
function outside(backoff: { next(): IBackoff<unknown> }, tell: (durationMs: number) => void) {
  return {
    next: (): IBackoff<unknown> => {
      const given = backoff.next();
      tell(given.duration);
      return { duration: Number.NEGATIVE_INFINITY, ...outside(given as never, tell) };
    },
  };
}

function spend(guard: AppGuard, attempt: 'first' | 'retry'): boolean {
  const now = performance.now();
  const earned = ((now - guard.countedAtMs) / 1_000) * RETRIES_PER_SECOND + (attempt === 'first' ? RETRY_SHARE : 0);
  guard.retries = Math.min(RETRY_RESERVE, guard.retries + earned);
  guard.countedAtMs = now;
  if (attempt === 'first') return true;
  if (guard.retries < 1) return false;
  guard.retries -= 1;
  return true;
}
