import type { Clock } from '../clock.js';

/** Health events of any tenant. */
export const HEALTH_TOPIC = 'health';

/** Progress of one authorization session. */
export const authorizationTopic = (sessionId: string): string => `authorization:${sessionId}`;

/**
 * Wakes whoever waits for changes that others commit.
 *
 * A signal says only "look again": it carries no data and may be lost, since every listener looks again by itself once
 * per poll interval. Publish after the commit.
 */
export interface Feed {
  /** Wakes the listeners of `topic` in this process. */
  publish(topic: string): void;
  /**
   * Yields at once, and then whenever the topic was published or the poll interval has passed, until `signal` aborts or
   * the feed is closed. Signals that arrive while the consumer works are folded into one.
   */
  wakeUps(topic: string, signal: AbortSignal): AsyncGenerator<void, void, void>;
  /** Ends every iteration. */
  close(): void;
}

/** @param pollMs how late a change that another process committed may be noticed. */
export function createFeed({ clock, pollMs }: { clock: Clock; pollMs: number }): Feed {
  const listeners = new Map<string, Set<() => void>>();
  const closing = new AbortController();

  async function* wakeUps(topic: string, signal: AbortSignal): AsyncGenerator<void, void, void> {
    let pending = true;
    let wake = new AbortController();
    const listener = () => {
      pending = true;
      wake.abort();
    };
    const group = listeners.get(topic) ?? new Set();
    listeners.set(topic, group.add(listener));
    signal.addEventListener('abort', listener);
    closing.signal.addEventListener('abort', listener);
    try {
      while (!signal.aborted && !closing.signal.aborted) {
        if (!pending) await clock.sleep(pollMs, wake.signal);
        if (signal.aborted || closing.signal.aborted) return;
        pending = false;
        wake = new AbortController();
        yield;
      }
    } finally {
      group.delete(listener);
      if (group.size === 0) listeners.delete(topic);
      signal.removeEventListener('abort', listener);
      closing.signal.removeEventListener('abort', listener);
    }
  }

  return {
    publish: (topic) => listeners.get(topic)?.forEach((listener) => listener()),
    wakeUps,
    close: () => closing.abort(),
  };
}
