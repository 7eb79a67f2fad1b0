const CHECKS = 5;

/**
 * Watches whether a client reads what it is sent.
 *
 * @param pendingBytes what was written and has not left this process.
 * @param onSlow called once, when there was something pending at every look for `ms`.
 * @returns stops watching.
 */
export function watchConsumer(pendingBytes: () => number, ms: number, onSlow: () => void): () => void {
  let behind = 0;
  const timer = setInterval(() => {
    behind = pendingBytes() === 0 ? 0 : behind + 1;
    if (behind <= CHECKS) return;
    clearInterval(timer);
    onSlow();
  }, ms / CHECKS);
  timer.unref();
  return () => clearInterval(timer);
}
