import { setTimeout as delay } from 'node:timers/promises';

/** Time as the process sees it. Leases and expiry never ask it: they are decided by the database's clock. */
export interface Clock {
  now(): Date;
  /** Resolves after `ms` milliseconds, or at once when `signal` aborts; it never rejects. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

export const systemClock: Clock = {
  now: () => new Date(),
  sleep: async (ms, signal) => {
    try {
      await delay(ms, undefined, { signal, ref: true });
    } catch (error) {
      // The abort is the wake-up the caller asked for, not a failure.
      if (!signal?.aborted) throw error;
    }
  },
};
