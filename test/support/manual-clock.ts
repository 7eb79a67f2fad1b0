import type { Clock } from '../../src/clock.js';

interface Sleeper {
  wakeAt: number;
  wake(): void;
}

export interface ManualClock extends Clock {
  /**
   * Moves time on by `ms` and wakes whoever is due, in order and each at its own moment; between two wake-ups the event
   * loop turns, so that a sleeper may go to sleep again within the same span. Resolves at the end of the span.
   */
  advance(ms: number): Promise<void>;
  /** Resolves once at least `count` sleepers are waiting. */
  sleeping(count?: number): Promise<void>;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** Time that stands still until a test moves it. */
export function createManualClock(start: Date | string = '2027-01-01T00:00:00.000Z'): ManualClock {
  let now = new Date(start).getTime();
  const sleepers = new Set<Sleeper>();
  const watchers = new Set<() => void>();

  return {
    now: () => new Date(now),
    sleep: (ms, signal) =>
      new Promise((resolve) => {
        if (ms <= 0 || signal?.aborted === true) return resolve();
        const sleeper = {
          wakeAt: now + ms,
          wake: () => {
            sleepers.delete(sleeper);
            signal?.removeEventListener('abort', sleeper.wake);
            resolve();
          },
        };
        sleepers.add(sleeper);
        signal?.addEventListener('abort', sleeper.wake);
        for (const watcher of watchers) watcher();
      }),
    advance: async (ms) => {
      const end = now + ms;
      for (;;) {
        const due = [...sleepers]
          .filter(({ wakeAt }) => wakeAt <= end)
          .sort((left, right) => left.wakeAt - right.wakeAt)[0];
        if (due === undefined) break;
        now = Math.max(now, due.wakeAt);
        due.wake();
        await turn();
      }
      now = end;
      await turn();
    },
    sleeping: (count = 1) =>
      new Promise((resolve) => {
        const check = (): void => {
          if (sleepers.size < count) return;
          watchers.delete(check);
          resolve();
        };
        watchers.add(check);
        check();
      }),
  };
}
