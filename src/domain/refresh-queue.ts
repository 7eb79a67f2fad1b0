import type { Clock } from '../clock.js';
import type { Lease } from './lease.js';

/** Leases taken beyond what may be under way, as a part of that: the next ones are at hand when something ends. */
const AHEAD_SHARE = 0.5;
/** Part of them that must be missing before more are taken, and how long what is missing waits for that. */
const FREE_SHARE = 0.5;
const GATHER_MS = 20;

/**
 * What a process has leased of what is due: as much as may be under way at once, and some ahead, so that nobody waits
 * for the database each time something ends.
 */
export interface RefreshQueue {
  /** Leases that may be taken now, where so many may be under way at once. */
  room(limit: number): number;
  add(leases: readonly Lease[]): void;
  /** Begins the refresh of a credential at once, if it is leased and waits. */
  hurry(grantId: string): void;
  /** Resolves when enough more may be taken, or a moment after anything may, or when `stop` was called. */
  awaitRoom(): Promise<void>;
  readonly isEmpty: boolean;
  /** Leases that wait. */
  waiting(): Lease[];
  /** Begins nothing any more, and hands out what waits. */
  stop(): Lease[];
}

/** @param run begins one refresh, and resolves when it has ended. */
export function createRefreshQueue({
  run,
  clock,
}: {
  run: (lease: Lease) => Promise<unknown>;
  clock: Clock;
}): RefreshQueue {
  const waiting = new Map<string, Lease>();
  const running = new Set<Promise<unknown>>();
  const stopping = new AbortController();
  let limit = 0;

  function start(lease: Lease): void {
    waiting.delete(lease.grantId);
    const ended: Promise<unknown> = Promise.allSettled([run(lease)]).then(() => {
      running.delete(ended);
      startNext();
    });
    running.add(ended);
  }

  function startNext(): void {
    for (const lease of waiting.values()) {
      if (running.size >= limit || stopping.signal.aborted) return;
      start(lease);
    }
  }

  const most = () => limit + Math.ceil(limit * AHEAD_SHARE);
  const held = () => waiting.size + running.size;
  const isFull = () => held() > most() - Math.ceil(limit * AHEAD_SHARE * FREE_SHARE);

  return {
    room: (given) => {
      limit = given;
      return most() - held();
    },
    add: (leases) => {
      for (const lease of leases) waiting.set(lease.grantId, lease);
      startNext();
    },
    hurry: (grantId) => {
      const lease = waiting.get(grantId);
      if (lease !== undefined) start(lease);
    },
    awaitRoom: async () => {
      if (!isFull()) return;
      await Promise.race(running);
      const gathered = clock.now().getTime() + GATHER_MS;
      while (isFull() && !stopping.signal.aborted) {
        const left = gathered - clock.now().getTime();
        if (left <= 0) return;
        await Promise.race([...running, clock.sleep(left, stopping.signal)]);
      }
    },
    get isEmpty() {
      return held() === 0;
    },
    waiting: () => [...waiting.values()],
    stop: () => {
      stopping.abort();
      const left = [...waiting.values()];
      waiting.clear();
      return left;
    },
  };
}
