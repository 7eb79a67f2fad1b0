import type { Feed } from './feed.js';
import { HEALTH_TOPIC } from './feed.js';

/** Pointers that one subscriber may have waiting; beyond that they are read from the log again. */
const MAX_QUEUE = 1_000;
const READ_BATCH = 200;

/** What came behind a position cannot be told any more: whoever stands there begins anew, with the present state. */
export class PositionExpiredError extends Error {
  constructor() {
    super('The events behind this position are not kept any more.');
    this.name = 'PositionExpiredError';
  }
}

/** What is known of a health event without reading its row. */
export interface HealthEventPointer {
  id: string;
  position: number;
  tenantId: string;
  grantId: string | null;
}

/** The stored events in the order of their positions. Whoever has seen a position has seen every smaller one. */
export interface HealthEventLog {
  /** The newest position; 0 where there is none. */
  latest(): Promise<number>;
  /** @throws {PositionExpiredError} events that came behind the position are gone. */
  after(position: number, limit: number): Promise<HealthEventPointer[]>;
}

export interface HealthEventStream {
  /**
   * Events that match, from right behind position `after` (null: from now on), replayed and then live: none skipped,
   * none twice, in order. Ends when `signal` aborts or the feed closes.
   *
   * Memory per subscriber is bounded: one that reads slower than events come falls back to reading the log.
   */
  subscribe(options: SubscribeOptions): AsyncGenerator<HealthEventPointer, void, void>;
  /** As `subscribe`, with as many at once as there are: never none, and at most as many as are kept for a subscriber. */
  batches(options: SubscribeOptions): AsyncGenerator<HealthEventPointer[], void, void>;
}

export interface SubscribeOptions {
  /** Position to go on behind; null: from now on. */
  after: number | null;
  matches: (event: HealthEventPointer) => boolean;
  signal: AbortSignal;
}

interface Subscriber {
  matches: (event: HealthEventPointer) => boolean;
  queue: HealthEventPointer[];
  /** The queue was dropped: what it held must be read from the log. */
  overrun: boolean;
  wake: () => void;
}

interface Reader {
  /** Rejects when the log cannot be read at the start. */
  ready: Promise<void>;
  stop: AbortController;
  ended: boolean;
}

/** A promise with its settling functions, which Node 20 does not bring. */
function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: unknown) => void } {
  let resolve = () => undefined as void;
  let reject = (_error: unknown) => undefined as void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}

/** One reader per process serves all its subscribers, and reads only while there are any. */
export function createHealthEventStream(log: HealthEventLog, feed: Feed): HealthEventStream {
  const subscribers = new Set<Subscriber>();
  let reader: Reader | undefined;

  function offer(event: HealthEventPointer): void {
    for (const subscriber of subscribers) {
      if (!subscriber.matches(event)) continue;
      if (subscriber.queue.length >= MAX_QUEUE) {
        subscriber.queue = [];
        subscriber.overrun = true;
      }
      if (!subscriber.overrun) subscriber.queue.push(event);
      subscriber.wake();
    }
  }

  /** Reads what is behind `head` and hands it out; returns the new head. */
  async function readOn(head: number): Promise<number> {
    for (;;) {
      const events = await log.after(head, READ_BATCH);
      for (const event of events) {
        head = event.position;
        offer(event);
      }
      if (events.length < READ_BATCH) return head;
    }
  }

  function startReader(): Reader {
    const ready = deferred();
    // Every subscriber awaits it; when none is left, the rejection concerns nobody.
    ready.promise.catch(() => undefined);
    const started: Reader = { ready: ready.promise, stop: new AbortController(), ended: false };
    const run = async () => {
      let head: number | undefined;
      for await (const _ of feed.wakeUps(HEALTH_TOPIC, started.stop.signal)) {
        try {
          head = head === undefined ? await log.latest() : await readOn(head);
          ready.resolve();
        } catch (error) {
          // This process slept for longer than events are kept. Who is behind finds out by reading from where they are.
          if (error instanceof PositionExpiredError) {
            head = undefined;
            for (const subscriber of subscribers) {
              subscriber.overrun = true;
              subscriber.wake();
            }
          }
          // The database is away. Who waits for the start is told; who is live goes on when it is back.
          ready.reject(error);
        }
      }
    };
    void run().finally(() => {
      started.ended = true;
      ready.reject(new Error('The feed is closed.'));
      for (const subscriber of subscribers) subscriber.wake();
    });
    return started;
  }

  async function* subscribe(options: SubscribeOptions): AsyncGenerator<HealthEventPointer, void, void> {
    for await (const events of batches(options)) yield* events;
  }

  async function* batches({
    after,
    matches,
    signal,
  }: SubscribeOptions): AsyncGenerator<HealthEventPointer[], void, void> {
    let wake = deferred();
    // The first pass reads the log, from which the queue then takes over.
    const subscriber: Subscriber = { matches, queue: [], overrun: true, wake: () => wake.resolve() };
    const onAbort = () => subscriber.wake();
    signal.addEventListener('abort', onAbort);
    subscribers.add(subscriber);
    if (reader === undefined || reader.ended) reader = startReader();
    const mine = reader;
    try {
      await mine.ready;
      let position = after ?? (await log.latest());
      while (!signal.aborted && !mine.ended) {
        if (subscriber.overrun) {
          // Cleared first: what is offered while the log is read stays in the queue.
          subscriber.overrun = false;
          for (let more = true; more && !signal.aborted;) {
            const events = await log.after(position, READ_BATCH);
            position = events.at(-1)?.position ?? position;
            more = events.length === READ_BATCH;
            const matching = events.filter(matches);
            if (matching.length > 0) yield matching;
          }
        }
        while (subscriber.queue.length > 0) {
          const from = position;
          const events = subscriber.queue.filter((event) => event.position > from);
          subscriber.queue = [];
          position = events.at(-1)?.position ?? position;
          if (events.length > 0) yield events;
        }
        if (subscriber.overrun || signal.aborted || mine.ended) continue;
        await wake.promise;
        wake = deferred();
      }
    } finally {
      signal.removeEventListener('abort', onAbort);
      subscribers.delete(subscriber);
      if (subscribers.size === 0) {
        mine.stop.abort();
        if (reader === mine) reader = undefined;
      }
    }
  }

  return { subscribe, batches };
}
