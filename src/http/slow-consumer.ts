const CHECKS = 5;

/**
 * Watches whether a client reads what it is sent.
 *
 * @param pendingBytes what was written and has not left this process.
 * @param onSlow called once, when there was something pending at every look for as long as a client may leave it.
 * @returns stops watching.
 */
export type WatchConsumer = (pendingBytes: () => number, onSlow: () => void) => () => void;

interface Consumer {
  pendingBytes: () => number;
  onSlow: () => void;
  /** Looks in a row at which something was pending. */
  behind: number;
}

/** @param ms how long a client may leave unread what it is sent. */
export function createConsumerWatch(ms: number): WatchConsumer {
  const watched = new Set<Consumer>();
  let timer: NodeJS.Timeout | undefined;

  function look(): void {
    for (const consumer of watched) {
      consumer.behind = consumer.pendingBytes() === 0 ? 0 : consumer.behind + 1;
      if (consumer.behind <= CHECKS) continue;
      watched.delete(consumer);
      consumer.onSlow();
    }
  }

  return (pendingBytes, onSlow) => {
    const consumer = { pendingBytes, onSlow, behind: 0 };
    watched.add(consumer);
    timer ??= setInterval(look, ms / CHECKS).unref();
    return () => {
      watched.delete(consumer);
      if (watched.size > 0) return;
      clearInterval(timer);
      timer = undefined;
    };
  };
}
