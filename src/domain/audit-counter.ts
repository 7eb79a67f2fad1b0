import type { AuditEntry } from './audit-trail.js';

/** What happens again and again is one event in this time. */
const WINDOW_MS = 60_000;

/** Something that is counted before it is recorded. */
export type Countable = Omit<AuditEntry, 'count' | 'agoMs' | 'lastAgoMs' | 'chain'>;

/** What becomes one event. */
export interface Counted {
  entry: Countable;
  count: number;
  /** By the monotonic clock, milliseconds. */
  firstMs: number;
  lastMs: number;
  /** When it is to be recorded: at once for the first event of a kind, then once a window. */
  dueMs: number;
}

/**
 * Reads of one credential by one principal are one event; so are the attempts of one principal at one thing that are
 * refused for one reason, whatever else they named: whoever tries many ids makes no more events than who tries one.
 */
export const keyOf = (entry: Countable): string =>
  entry.outcome === 'REFUSED'
    ? `${entry.action} ! ${entry.tenantId} ${entry.reason} ${entry.principal.kind} ${entry.principal.id}`
    : `${entry.grantId} ${entry.credentialVersion} ${entry.action} ${entry.principal.kind} ${entry.principal.id}`;

const sameOrNull = <T>(one: T | null | undefined, other: T | null | undefined): T | null =>
  one === other ? (one ?? null) : null;

/** Where they came from several addresses, or were about several things, none stands for all. */
function together(one: Countable, other: Countable): Countable {
  const clientAddress = sameOrNull(one.principal.clientAddress, other.principal.clientAddress);
  const isSame =
    clientAddress === one.principal.clientAddress && one.subject === other.subject && one.grantId === other.grantId;
  if (isSame) return one;
  return {
    ...one,
    subject: sameOrNull(one.subject, other.subject),
    grantId: sameOrNull(one.grantId, other.grantId),
    principal: { ...one.principal, clientAddress },
  };
}

/** The event of what was counted. @param nowMs by the monotonic clock. */
export const entryOf = ({ entry, count, firstMs, lastMs }: Counted, nowMs: number): AuditEntry => ({
  ...entry,
  count,
  agoMs: nowMs - firstMs,
  lastAgoMs: nowMs - lastMs,
});

export type AuditCounter = ReturnType<typeof createAuditCounter>;

/** What waits to be recorded, in the order in which it first happened since it was recorded last. */
export function createAuditCounter() {
  let waiting = new Map<string, Counted>();
  /** Keys that were recorded lately, and until when they are not recorded again. Oldest first. */
  const recent = new Map<string, number>();

  function forgetRecent(nowMs: number): void {
    for (const [key, untilMs] of recent) {
      if (untilMs > nowMs) return;
      recent.delete(key);
    }
  }

  return {
    size: () => waiting.size,
    has: (key: string) => waiting.has(key),
    add: (key: string, entry: Countable, nowMs: number): void => {
      const known = waiting.get(key);
      if (known === undefined) {
        waiting.set(key, { entry, count: 1, firstMs: nowMs, lastMs: nowMs, dueMs: recent.get(key) ?? nowMs });
        return;
      }
      known.entry = together(known.entry, entry);
      known.count += 1;
      known.lastMs = nowMs;
    },
    /** It did not happen after all. */
    takeBack: (key: string): void => {
      const known = waiting.get(key);
      if (known !== undefined && --known.count === 0) waiting.delete(key);
    },
    /** Takes what is due out of the count, so that what comes meanwhile becomes another event. */
    take: (most: number, all: boolean): [string, Counted][] => {
      const nowMs = performance.now();
      forgetRecent(nowMs);
      const taken: [string, Counted][] = [];
      for (const entry of waiting) {
        if (taken.length === most) break;
        if (all || entry[1].dueMs <= nowMs) taken.push(entry);
      }
      for (const [key] of taken) {
        waiting.delete(key);
        recent.delete(key);
        recent.set(key, nowMs + WINDOW_MS);
      }
      return taken;
    },
    /** What could not be recorded is counted again, before what has come since. */
    giveBack: (taken: readonly [string, Counted][]): void => {
      const since = waiting;
      waiting = new Map(taken);
      for (const [key, one] of since) {
        const former = waiting.get(key);
        const merged = former && { ...former, count: former.count + one.count, lastMs: one.lastMs };
        waiting.set(key, merged === undefined ? one : { ...merged, entry: together(merged.entry, one.entry) });
      }
    },
  };
}
