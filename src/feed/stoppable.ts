/**
 * An async generator that can be left while it waits. Leaving a bare one is a request that stays in line behind
 * whatever it waits for, so its clean-up might never run; this one is told by `signal` at once.
 *
 * @param run must return soon after `signal` aborts.
 */
export function stoppable<T>(
  run: (signal: AbortSignal) => AsyncGenerator<T, void, void>,
): AsyncIterableIterator<T, void, void> {
  const stop = new AbortController();
  const inner = run(stop.signal);
  return {
    next: () => inner.next(),
    return: () => {
      stop.abort();
      return inner.return();
    },
    throw: (error) => {
      stop.abort();
      return inner.throw(error);
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
