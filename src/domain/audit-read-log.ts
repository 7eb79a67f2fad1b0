import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import { tell } from '../diagnostics.js';
import type { Log } from '../log.js';
import { AuditUnavailableError } from './audit.js';
import type { AuditEntry, AuditPrincipal, AuditTrail } from './audit-trail.js';

/** How often what was read is recorded. */
const FLUSH_MS = 1_000;
/** Reads of one credential by one principal within this time become one event. */
const WINDOW_MS = 60_000;
/** Events of one transaction: chains stay locked for some milliseconds. */
const BATCH = 500;

/**
 * `strict`: a token is handed out once its event is committed. `buffered`: reads are counted and recorded shortly after;
 * where too many wait to be recorded, as in `strict`.
 */
export type AuditMode = 'strict' | 'buffered';

/** A token that is about to be handed out. */
export interface CredentialRead {
  action: 'credential.read' | 'provider_token.minted';
  tenantId: string;
  grantId: string;
  /** Null for a token that was minted with the credential. */
  version: number | null;
  principal: AuditPrincipal;
}

/** Records who was handed which token. */
export interface ReadLog {
  /**
   * Call it before the token is handed out, and wait for what it returns. Nothing: the read is counted, no statement is
   * made for it.
   *
   * @throws {AuditUnavailableError} the event could not be stored, so the token must not be handed out.
   */
  note(read: CredentialRead): Promise<void> | undefined;
  /** Records all that was counted so far. */
  flush(): Promise<void>;
  /** Events that wait to be recorded. */
  pending(): number;
  /** Records what is left and stops. Rejects where it cannot be recorded. */
  close(): Promise<void>;
}

/** Reads that become one event. */
interface Counted {
  read: CredentialRead;
  count: number;
  /** By the monotonic clock, milliseconds. */
  firstMs: number;
  lastMs: number;
  /** When it is to be recorded: at once for the first event of a pair, then once a window. */
  dueMs: number;
}

const keyOf = ({ principal, action, grantId, version }: CredentialRead): string =>
  `${principal.kind} ${principal.id} ${action} ${grantId} ${version}`;

/** Of reads from several addresses none stands for all. */
const withoutAddress = (read: CredentialRead): CredentialRead => ({
  ...read,
  principal: { ...read.principal, clientAddress: null },
});

const together = (one: CredentialRead, other: CredentialRead): CredentialRead =>
  one.principal.clientAddress === other.principal.clientAddress ? one : withoutAddress(one);

/** Reads in the order in which their pairs were first read since they were recorded last. */
function createCounter() {
  let waiting = new Map<string, Counted>();
  /** Pairs that were recorded lately, and until when they are not recorded again. Oldest first. */
  const recent = new Map<string, number>();

  function forgetRecent(nowMs: number): void {
    for (const [key, untilMs] of recent) {
      if (untilMs > nowMs) return;
      recent.delete(key);
    }
  }

  return {
    size: () => waiting.size,
    has: (key: string) => waiting.has(key),
    add: (key: string, read: CredentialRead, nowMs: number): void => {
      const known = waiting.get(key);
      if (known === undefined) {
        waiting.set(key, { read, count: 1, firstMs: nowMs, lastMs: nowMs, dueMs: recent.get(key) ?? nowMs });
        return;
      }
      if (known.read.principal.clientAddress !== read.principal.clientAddress) known.read = withoutAddress(read);
      known.count += 1;
      known.lastMs = nowMs;
    },
    /** The token was not handed out after all. */
    takeBack: (key: string): void => {
      const known = waiting.get(key);
      if (known !== undefined && --known.count === 0) waiting.delete(key);
    },
    /** Takes what is due out of the count, so that reads which come meanwhile become another event. */
    take: (most: number, all: boolean): [string, Counted][] => {
      const nowMs = performance.now();
      forgetRecent(nowMs);
      const taken: [string, Counted][] = [];
      for (const entry of waiting) {
        if (taken.length === most) break;
        if (all || entry[1].dueMs <= nowMs) taken.push(entry);
      }
      for (const [key] of taken) {
        waiting.delete(key);
        recent.delete(key);
        recent.set(key, nowMs + WINDOW_MS);
      }
      return taken;
    },
    /** What could not be recorded is counted again, before what has come since. */
    giveBack: (taken: readonly [string, Counted][]): void => {
      const since = waiting;
      waiting = new Map(taken);
      for (const [key, one] of since) {
        const former = waiting.get(key);
        const merged = former && { ...former, count: former.count + one.count, lastMs: one.lastMs };
        waiting.set(key, merged === undefined ? one : { ...merged, read: together(merged.read, one.read) });
      }
    },
  };
}

function entryOf({ read, count, firstMs, lastMs }: Counted, nowMs: number): AuditEntry {
  const { tenantId, principal, action, grantId, version } = read;
  const [agoMs, lastAgoMs] = [nowMs - firstMs, nowMs - lastMs];
  return { tenantId, principal, action, grantId, credentialVersion: version, count, agoMs, lastAgoMs };
}

export interface ReadLogOptions {
  db: Pick<Database, 'transaction'>;
  trail: AuditTrail;
  clock: Clock;
  log: Log;
  mode: AuditMode;
  /** Events that may wait to be recorded before reads wait for them. */
  maxPending: number;
}

export function createReadLog({ db, trail, clock, log, mode, maxPending }: ReadLogOptions): ReadLog {
  const counter = createCounter();
  const stopping = new AbortController();
  let flushing: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;
  let failing = false;

  /** What waits now, and nothing that comes meanwhile: it would never end. */
  async function flushNow(all: boolean): Promise<void> {
    for (let left = counter.size(); left > 0; left -= BATCH) {
      const taken = counter.take(Math.min(left, BATCH), all);
      if (taken.length === 0) return;
      const nowMs = performance.now();
      const entries = taken.map(([, one]) => entryOf(one, nowMs));
      try {
        await db.transaction((tx) => trail.append(tx, entries));
      } catch (error) {
        counter.giveBack(taken);
        tell({ kind: 'audit-failure', what: 'read' });
        throw error;
      }
      tell({ kind: 'audit', what: 'read', count: entries.length });
    }
  }

  /** One at a time, so that the events of a chain are in the order of their reads. */
  function flush(all: boolean): Promise<void> {
    flushing = flushing.catch(() => undefined).then(() => flushNow(all));
    return flushing;
  }

  /** Everyone who comes while a flush is running shares the next one. */
  function flushTogether(): Promise<void> {
    next ??= flushing
      .catch(() => undefined)
      .then(() => {
        next = undefined;
        return flush(true);
      });
    return next;
  }

  async function noteStrictly(key: string, read: CredentialRead): Promise<void> {
    counter.add(key, read, performance.now());
    try {
      await flushTogether();
    } catch (error) {
      counter.takeBack(key);
      throw new AuditUnavailableError({ cause: error });
    }
  }

  async function keepFlushing(): Promise<void> {
    for (;;) {
      await clock.sleep(FLUSH_MS, stopping.signal);
      if (stopping.signal.aborted) return;
      try {
        await flush(counter.size() > maxPending / 2);
        if (failing) log.info('reads of credentials are recorded again', { job: 'record-reads' });
        failing = false;
      } catch (error) {
        if (!failing)
          log.error('reads of credentials cannot be recorded; trying again', { job: 'record-reads' }, error);
        failing = true;
      }
    }
  }
  const running = mode === 'buffered' ? keepFlushing() : Promise.resolve();

  return {
    note: (read) => {
      const key = keyOf(read);
      if (mode === 'strict' || (counter.size() >= maxPending && !counter.has(key))) return noteStrictly(key, read);
      counter.add(key, read, performance.now());
      return undefined;
    },
    flush: () => flush(true),
    pending: counter.size,
    close: async () => {
      stopping.abort();
      await running;
      await flush(true);
    },
  };
}
