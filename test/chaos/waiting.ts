import { until } from '../support/until.js';

/** Longest that anything is waited for unless told. */
const PATIENCE_SECONDS = 20;

/** What was waited for did not come about. */
export class WaitedInVainError extends Error {
  constructor(what: string, seconds: number) {
    super(`waited ${seconds} s in vain until ${what}`);
    this.name = 'WaitedInVainError';
  }
}

/** Waits until `attempt` holds. A failing attempt counts as one that does not hold yet. */
export async function waitUntil(
  what: string,
  attempt: () => boolean | Promise<boolean>,
  seconds = PATIENCE_SECONDS,
): Promise<void> {
  const deadline = performance.now() + seconds * 1_000;
  await until(async () => {
    const holds = await Promise.resolve()
      .then(attempt)
      .catch(() => false);
    if (!holds && performance.now() > deadline) throw new WaitedInVainError(what, seconds);
    return holds;
  });
}

/** The outcome of `promise`, or null where it takes longer. */
export async function within<T>(seconds: number, promise: Promise<T>): Promise<T | null> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<null>((resolve) => {
    timer = setTimeout(() => resolve(null), seconds * 1_000);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Lets time pass where the passing of time is what is tested. */
export const pass = (seconds: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, seconds * 1_000);
  });
