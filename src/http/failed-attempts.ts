import { RateLimiterMemory } from 'rate-limiter-flexible';

const WINDOW_SECONDS = 60;

/** Counts attempts to get in that failed. */
export interface FailedAttempts {
  /**
   * Notes one, under each name that it counts for: the address that it came from, the key that it claimed to be.
   *
   * @returns after how many seconds to try again; null while there were few.
   */
  note(names: readonly string[]): Promise<number | null>;
}

/**
 * Counts in this process, by the minute. Only those who fail are held back: whoever has a right key gets in whatever
 * others do, also from behind the same proxy.
 *
 * @param limit failures that are answered as such within a minute.
 */
export function createFailedAttempts(limit: number): FailedAttempts {
  const limiter = new RateLimiterMemory({ points: limit, duration: WINDOW_SECONDS });
  return {
    note: async (names) => {
      for (const name of names) {
        // Points that go beyond what is there are counted, too, and answered with what is left of the minute.
        const { consumedPoints, msBeforeNext } = await limiter.penalty(name);
        // The next names are not counted: from one address only so many are remembered.
        if (consumedPoints > limit) return Math.max(1, Math.ceil(msBeforeNext / 1_000));
      }
      return null;
    },
  };
}
