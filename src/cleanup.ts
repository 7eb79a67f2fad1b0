import type { Log } from './log.js';

export interface Cleanup {
  add(step: () => unknown): void;
  /** Once, however often it is called. */
  run(): Promise<void>;
}

/** Runs what releases a resource for each that was taken, the last first, also when one of them fails. */
export function createCleanup(log: Log): Cleanup {
  const steps: (() => unknown)[] = [];
  let running: Promise<void> | undefined;
  const run = async () => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      try {
        await step();
      } catch (error) {
        log.error('a part did not close cleanly', {}, error);
      }
    }
  };
  return { add: (step: () => unknown) => void steps.push(step), run: () => (running ??= run()) };
}
