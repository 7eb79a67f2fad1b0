import type { Clock } from '../clock.js';

/**
 * One request that reached the sandbox, or one webhook attempt that left it (`route: 'webhook'`). It never holds a
 * token, code, secret, or any text a caller chose.
 */
export interface JournalEntry {
  /** Order of arrival, from 1. */
  seq: number;
  /** ISO 8601, on the sandbox's clock. */
  at: string;
  method: string;
  /** `authorize`, `token`, `revoke`, `users`, …, `webhook`, or `unknown`. */
  route: string;
  /** Null until answered, and for good if the connection ended without an answer. */
  status: number | null;
  /** `received` until decided; then a fixed word such as `rotated`, `invalid_grant`, `delivered`. */
  outcome: string;
  /** How the client authenticated; null where that has no meaning. */
  authentication: 'basic' | 'body' | 'bearer' | 'none' | null;
  /** Only of apps that the sandbox knows. */
  clientId: string | null;
  /** Only of grant types that exist; else `other`. */
  grantType: string | null;
  /** `fingerprintOf` the refresh token, code, revoked token or bearer token that was sent. */
  tokenFingerprint: string | null;
  /** A `code_challenge` or `code_verifier` was sent. */
  pkce: boolean;
  /** A `scope` parameter was present, even if empty. */
  scopeSent: boolean;
  /** Names of known query parameters; unknown ones show as `other`. */
  queryKeys: string[];
  /** The kind of fault that was applied. */
  fault: string | null;
  /** Webhooks only: name of the event, 1 for the first attempt, and the id shared by its retries. */
  event: string | null;
  attempt: number | null;
  deliveryId: string | null;
}

export type JournalFacts = Partial<Omit<JournalEntry, 'seq' | 'at'>> & Pick<JournalEntry, 'method' | 'route'>;

export interface Ledger {
  /** Adds an entry and returns the function that fills in the rest of it. */
  open(facts: JournalFacts): (rest: Partial<JournalFacts>) => void;
  /** Copies of the entries with a greater `seq`, oldest first. */
  since(seq: number): JournalEntry[];
  clear(): void;
  /** Resolves with the first entry, present or future, that fits; rejects when the sandbox closes. */
  waitFor(fits: (entry: JournalEntry) => boolean, since: number): Promise<JournalEntry>;
  close(): void;
}

/** Entries kept; the oldest go first. */
const CAPACITY = 20_000;

const BLANK = {
  status: null,
  outcome: 'received',
  authentication: null,
  clientId: null,
  grantType: null,
  tokenFingerprint: null,
  pkce: false,
  scopeSent: false,
  queryKeys: [],
  fault: null,
  event: null,
  attempt: null,
  deliveryId: null,
} satisfies Partial<JournalEntry>;

/** The sandbox's journal, in memory only. `clear` empties it and goes on counting. */
export function createLedger(clock: Clock): Ledger {
  let entries: JournalEntry[] = [];
  let seq = 0;
  const waiters = new Set<{ check(entry: JournalEntry): void; reject(error: Error): void }>();

  const tell = (entry: JournalEntry): void => {
    for (const waiter of waiters) waiter.check(entry);
  };

  return {
    open: (facts) => {
      seq += 1;
      const entry: JournalEntry = { ...BLANK, seq, at: clock.now().toISOString(), ...facts };
      entries.push(entry);
      if (entries.length > CAPACITY) entries = entries.slice(CAPACITY / 10);
      tell(entry);
      return (rest) => {
        Object.assign(entry, rest);
        tell(entry);
      };
    },
    since: (after) => entries.filter((entry) => entry.seq > after).map((entry) => ({ ...entry })),
    clear: () => {
      entries = [];
    },
    waitFor: (fits, since) => {
      const found = entries.find((entry) => entry.seq > since && fits(entry));
      if (found !== undefined) return Promise.resolve({ ...found });
      return new Promise((resolve, reject) => {
        const waiter = {
          check: (entry: JournalEntry) => {
            if (entry.seq <= since || !fits(entry)) return;
            waiters.delete(waiter);
            resolve({ ...entry });
          },
          reject,
        };
        waiters.add(waiter);
      });
    },
    close: () => {
      for (const waiter of waiters) waiter.reject(new Error('The sandbox was closed before such an entry appeared.'));
      waiters.clear();
    },
  };
}
