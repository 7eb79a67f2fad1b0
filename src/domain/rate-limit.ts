import sql from 'sql-template-tag';
import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import type { Log } from '../log.js';

/** What is counted together; a ceiling holds within each. */
const WINDOW_MS = 10_000;
/** How often what was counted here is made known to the other processes. */
const SETTLE_MS = 250;
/** What a process may count before it must have asked what the others have counted: this share of a ceiling. */
const TRANCHE_SHARE = 0.1;
/** After a failure the shared count is left alone for this long. */
const PAUSE_MS = 1_000;
/** Names that are counted at once in one process; beyond that those go that were used least lately. */
const MAX_NAMES = 50_000;

/** A ceiling for whoever has this name, over all processes. */
export interface Ceiling {
  /** What is counted under it, such as a key; stored. */
  name: string;
  perSecond: number;
}

export interface Refusal {
  /** When the same would be let through if nothing else came meanwhile. */
  retryAfterSeconds: number;
  /** The shared count cannot be kept at the moment: nobody knows whether the ceiling is reached. */
  isUnknown: boolean;
}

export interface RateLimiter {
  /**
   * Counts one request under each ceiling, or under none where one of them is reached.
   *
   * @param open whether the request is let through by what this process has counted alone while the shared count cannot
   * be kept; otherwise it is refused then.
   * @returns null: let through.
   */
  admit(ceilings: readonly Ceiling[], open: boolean): Promise<Refusal | null> | Refusal | null;
  /** Makes the last counts known. */
  close(): Promise<void>;
}

interface Usage {
  window: number;
  /** What all processes have counted, as of the last time we asked. */
  shared: number;
  /** Counted here and on its way to the shared count. */
  sent: number;
  /** Counted here and not sent yet. */
  pending: number;
}

interface Settled {
  name: string;
  used: number;
  nowMs: number;
}

/**
 * Counts requests in fixed windows of ten seconds, in memory, and adds what was counted to a shared count in the
 * database four times a second and whenever a tenth of a ceiling is used up: busy callers cost a few statements a
 * second, not one for each request.
 *
 * A process lets nobody through on a tenth that it has not settled, so n processes together let through at most
 * n − 1 tenths of a ceiling more than it allows (at least one request each), however fast requests come. Windows are
 * those of the database's clock.
 */
export function createRateLimiter(
  deps: { db: Pick<Database, 'query'>; clock: Clock; log: Log },
  windowMs = WINDOW_MS,
): RateLimiter {
  const { db, clock, log } = deps;
  const usages = new Map<string, Usage>();
  const closing = new AbortController();
  /** How far the database's clock is ahead of ours. */
  let aheadMs = 0;
  let settling: Promise<void> | undefined;
  let ticking = false;
  let failedAt = Number.NEGATIVE_INFINITY;

  const localMs = () => clock.now().getTime();
  const isFailing = (atMs = localMs()) => atMs - failedAt < PAUSE_MS;

  function usageOf(name: string, window: number): Usage {
    let usage = usages.get(name);
    if (usage === undefined || usage.window !== window) usage = { window, shared: 0, sent: 0, pending: 0 };
    // Used last, so that the first entry is the one to let go of.
    usages.delete(name);
    usages.set(name, usage);
    if (usages.size > MAX_NAMES) usages.delete(usages.keys().next().value as string);
    return usage;
  }

  async function send(): Promise<void> {
    const sent = [...usages].filter(([, usage]) => usage.pending > 0).map(([name, usage]) => ({ name, usage }));
    if (sent.length === 0) return;
    // In one order everywhere, so that processes do not wait for each other in a circle.
    sent.sort((a, b) => (a.name < b.name ? -1 : 1));
    for (const { usage } of sent) [usage.sent, usage.pending] = [usage.pending, 0];
    const startedMs = localMs();
    try {
      const rows = await db.query<Settled>(sql`
        INSERT INTO rate_usage (name, period, used)
        SELECT * FROM unnest(${sent.map(({ name }) => name)}::text[], ${sent.map(({ usage }) => usage.window)}::int8[],
          ${sent.map(({ usage }) => usage.sent)}::int[])
        ON CONFLICT (name, period) DO UPDATE SET used = rate_usage.used + excluded.used
        RETURNING name, used, (extract(epoch FROM clock_timestamp()) * 1000)::float8 AS "nowMs"`);
      const used = new Map(rows.map((row) => [row.name, row]));
      for (const { name, usage } of sent) {
        usage.shared = used.get(name)?.used ?? usage.shared;
        usage.sent = 0;
      }
      const endedMs = localMs();
      aheadMs = (rows[0]?.nowMs ?? endedMs + aheadMs) - (startedMs + endedMs) / 2;
      failedAt = Number.NEGATIVE_INFINITY;
    } catch {
      // It may have been stored all the same. Counting twice errs on the side of the ceiling.
      for (const { usage } of sent) [usage.pending, usage.sent] = [usage.pending + usage.sent, 0];
      if (!isFailing()) log.warn('rate limits are not shared at the moment', {});
      failedAt = localMs();
    }
  }

  const settle = (): Promise<void> => (settling ??= send().finally(() => (settling = undefined)));

  async function tick(): Promise<void> {
    if (ticking) return;
    ticking = true;
    let isIdle = false;
    while (!isIdle && !closing.signal.aborted) {
      await clock.sleep(SETTLE_MS, closing.signal);
      if (closing.signal.aborted) break;
      const window = Math.floor((localMs() + aheadMs) / windowMs);
      for (const [name, usage] of usages) if (usage.window < window && usage.pending === 0) usages.delete(name);
      if (!isFailing()) await settle();
      isIdle = usages.size === 0;
    }
    ticking = false;
  }

  const counted = ({ shared, sent, pending }: Usage) => shared + sent + pending;

  const limitOf = ({ perSecond }: Ceiling) => (perSecond * windowMs) / 1_000;

  /** @returns `DUE` where the shared count must be asked first. */
  function admitNow(ceilings: readonly Ceiling[], open: boolean): Refusal | null | 'DUE' {
    const local = localMs();
    const now = local + aheadMs;
    const window = Math.floor(now / windowMs);
    let isDue = false;
    for (const ceiling of ceilings) {
      const usage = usageOf(ceiling.name, window);
      const limit = limitOf(ceiling);
      if (counted(usage) >= limit) {
        return { retryAfterSeconds: Math.max(1, Math.ceil(((window + 1) * windowMs - now) / 1_000)), isUnknown: false };
      }
      isDue ||= usage.sent + usage.pending >= Math.max(1, Math.floor(limit * TRANCHE_SHARE));
    }
    const failing = isFailing(local);
    if (failing && !open) return { retryAfterSeconds: Math.ceil(PAUSE_MS / 1_000), isUnknown: true };
    if (isDue && !failing) return 'DUE';
    for (const { name } of ceilings) usageOf(name, window).pending += 1;
    if (!ticking) void tick();
    return null;
  }

  async function admitSettled(ceilings: readonly Ceiling[], open: boolean): Promise<Refusal | null> {
    for (;;) {
      await settle();
      const admitted = admitNow(ceilings, open);
      if (admitted !== 'DUE') return admitted;
    }
  }

  return {
    // Without a promise where none is needed: every request comes by here.
    admit: (ceilings, open) => {
      if (ceilings.length === 0) return null;
      const admitted = admitNow(ceilings, open);
      return admitted === 'DUE' ? admitSettled(ceilings, open) : admitted;
    },
    close: async () => {
      closing.abort();
      await settle();
    },
  };
}

/** Removes counts of windows that are over. */
export async function purgeRateUsage(deps: { db: Pick<Database, 'query'> }): Promise<void> {
  await deps.db.query(sql`
    DELETE FROM rate_usage WHERE period < floor(extract(epoch FROM now()) * 1000 / ${WINDOW_MS}::int)::int8 - 6`);
}
