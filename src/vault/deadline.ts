import { VaultUnavailableError } from './errors.js';

/**
 * Waits no longer than `ms` for an answer.
 *
 * @param run gets a signal that aborts when nobody waits any more. A plain key that it still brings is overwritten.
 * @throws {VaultUnavailableError} `provider-failed`, when the time is over; otherwise what `run` throws.
 */
export async function withinDeadline<T>(ms: number, run: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      controller.abort();
      reject(new VaultUnavailableError('provider-failed', { cause: new Error(`No answer within ${ms} ms`) }));
    }, ms);
  });
  const answer = run(controller.signal);
  answer.then(
    (late) => {
      if (controller.signal.aborted && late instanceof Uint8Array) late.fill(0);
    },
    // Whoever waits for it is told by the race; afterwards nobody wants to know.
    () => undefined,
  );
  try {
    return await Promise.race([answer, expired]);
  } finally {
    clearTimeout(timer);
  }
}
