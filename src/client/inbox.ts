const PATIENCE_MS = 10_000;

/** Everything that arrived over one subscription, in its order. */
export interface Inbox<Item> {
  readonly items: readonly Item[];
  /**
   * The first item that fits, among those that came and those that will.
   *
   * @param what names it for the person who waits.
   * @throws {Error} the subscription ended, or nothing that fits came within ten seconds.
   */
  find(what: string, fits: (item: Item) => boolean): Promise<Item>;
  put(item: Item): void;
  /** Nothing more will come. Items that came before are still found. */
  fail(error: Error): void;
}

/** An empty inbox. It keeps everything, so it is for streams as short as a story. */
export function createInbox<Item>(): Inbox<Item> {
  const items: Item[] = [];
  const listeners = new Set<() => void>();
  let failure: Error | undefined;
  const changed = () => listeners.forEach((listener) => listener());

  const find: Inbox<Item>['find'] = (what, fits) =>
    new Promise((resolve, reject) => {
      const settle = (conclude: () => void) => {
        clearTimeout(timer);
        listeners.delete(look);
        conclude();
      };
      const look = () => {
        const found = items.find(fits);
        if (found !== undefined) return settle(() => resolve(found));
        if (failure !== undefined) settle(() => reject(failure));
      };
      const timer = setTimeout(() => {
        settle(() => reject(new Error(`expected ${what} within ${PATIENCE_MS / 1_000} s, got nothing of the kind`)));
      }, PATIENCE_MS);
      listeners.add(look);
      look();
    });

  return {
    items,
    find,
    put: (item) => {
      items.push(item);
      changed();
    },
    fail: (error) => {
      failure ??= error;
      changed();
    },
  };
}
