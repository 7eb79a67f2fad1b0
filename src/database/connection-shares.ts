/** What a holder asked for waited too long for one of its connections, or too much waits already. Asking later helps. */
export class DatabaseBusyError extends Error {
  readonly retryAfterSeconds: number;

  constructor(retryAfterSeconds: number) {
    super('Too much is asked of the database at once.');
    this.name = 'DatabaseBusyError';
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

/** What is told to whoever was refused: places pass on within moments. */
export const RETRY_AFTER_SECONDS = 1;

export const busy = (): DatabaseBusyError => new DatabaseBusyError(RETRY_AFTER_SECONDS);
/** Waiting for each connection of a share, before more is refused at once. */
const MAX_WAITING_PER_CONNECTION = 100;

export interface ConnectionSharesOptions {
  /** Connections of one holder. */
  limitOf(holder: string): number;
  /** Longest that something waits for its turn. */
  patienceMs: number;
}

/** How many connections of a pool each holder, such as a tenant, has taken. */
export interface ConnectionShares {
  /**
   * Takes one of the holder's connections; `give` it back.
   *
   * @returns undefined where there was room, so that nothing is waited for; else what resolves when it is this one's turn.
   * Those that wait get theirs in order.
   *
   * The promise rejects with DatabaseBusyError after `patienceMs`, or at once where too many wait.
   */
  take(holder: string): Promise<void> | undefined;
  give(holder: string): void;
  /** Runs `work` with one of the holder's connections. */
  run<T>(holder: string, work: () => Promise<T>): Promise<T>;
  isWaitedFor(holder: string): boolean;
  /** What somebody is told who waits for a share in a queue of their own; it is counted as if they had waited here. */
  refuse(): DatabaseBusyError;
  figures(): ShareFigures;
}

export interface ShareFigures {
  /** Connections that are taken at the moment. */
  held: number;
  /** What waits for one at the moment. */
  waiting: number;
  /** What got one after having waited, since the beginning. */
  waited: number;
  /** What was told DatabaseBusyError, since the beginning. */
  refused: number;
}

interface Turn {
  begin(): void;
  timer: NodeJS.Timeout;
}

interface Share {
  held: number;
  readonly limit: number;
  /** Oldest first. */
  readonly waiting: Set<Turn>;
}

/**
 * Keeps what is held by anybody below their share of a pool.
 *
 * Not a bulkhead of the library that guards the provider: there, whoever comes while a place passes on takes it from
 * those that wait, and nobody leaves the queue before it is their turn.
 */
export function createConnectionShares({ limitOf, patienceMs }: ConnectionSharesOptions): ConnectionShares {
  const shares = new Map<string, Share>();
  let held = 0;
  let waiting = 0;
  let waited = 0;
  let refused = 0;

  function refuse(): DatabaseBusyError {
    refused += 1;
    return busy();
  }

  function shareOf(holder: string): Share {
    let share = shares.get(holder);
    if (share === undefined) shares.set(holder, (share = { held: 0, limit: limitOf(holder), waiting: new Set() }));
    return share;
  }

  function wait({ limit, waiting: queue }: Share): Promise<void> {
    if (queue.size >= limit * MAX_WAITING_PER_CONNECTION) return Promise.reject(refuse());
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        clearTimeout(turn.timer);
        queue.delete(turn);
        waiting -= 1;
      };
      const turn: Turn = {
        begin: () => {
          leave();
          waited += 1;
          resolve();
        },
        timer: setTimeout(() => {
          leave();
          reject(refuse());
        }, patienceMs),
      };
      queue.add(turn);
      waiting += 1;
    });
  }

  function take(holder: string): Promise<void> | undefined {
    const share = shareOf(holder);
    if (share.held >= share.limit) return wait(share);
    share.held += 1;
    held += 1;
    return undefined;
  }

  function give(holder: string): void {
    const share = shareOf(holder);
    const [next] = share.waiting;
    // It passes on as it is, so that nobody who comes meanwhile is before those that wait.
    if (next !== undefined) return next.begin();
    held -= 1;
    share.held -= 1;
    if (share.held === 0) shares.delete(holder);
  }

  return {
    take,
    give,
    run: async (holder, work) => {
      const turn = take(holder);
      if (turn !== undefined) await turn;
      try {
        return await work();
      } finally {
        give(holder);
      }
    },
    isWaitedFor: (holder) => (shares.get(holder)?.waiting.size ?? 0) > 0,
    refuse,
    figures: () => ({ held, waiting, waited, refused }),
  };
}
