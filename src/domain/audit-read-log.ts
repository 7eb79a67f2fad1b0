import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import { tell } from '../diagnostics.js';
import type { Log } from '../log.js';
import { AuditUnavailableError } from './audit.js';
import { type AuditCounter, type Countable, createAuditCounter, entryOf, keyOf } from './audit-counter.js';
import type { AuditEntry, AuditPrincipal, AuditTrail } from './audit-trail.js';

/** How often what was read is recorded. */
const FLUSH_MS = 1_000;
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
  credentialVersion: number | null;
  principal: AuditPrincipal;
}

/** An attempt of somebody who is known, refused without a change. */
export interface RefusedAttempt extends Pick<AuditEntry, 'subject' | 'grantId'> {
  action: string;
  /** The tenant's row; null: of no tenant. */
  tenantId: string | null;
  principal: AuditPrincipal;
  /** The name or code of the error: a word of ours. */
  reason: string;
}

/** Records who was handed which token, and who was refused what. */
export interface ReadLog {
  /**
   * Call it before the token is handed out, and wait for what it returns. Nothing: the read is counted, no statement is
   * made for it.
   *
   * @throws {AuditUnavailableError} the event could not be stored, so the token must not be handed out.
   */
  note(read: CredentialRead): Promise<void> | undefined;
  /**
   * Counts an attempt, which is recorded shortly after whatever the mode: attempts of one principal at one action that
   * are refused for one reason make one event at once and one a minute. Not for those of whom nothing is known: they
   * could fill the table. Never throws; where too many events wait already, the attempt is not counted.
   */
  refused(attempt: RefusedAttempt): void;
  /** Records all reads that were counted so far, and the attempts that are due. */
  flush(): Promise<void>;
  /** Events that wait to be recorded. */
  pending(): number;
  /** Records what is left and stops. Rejects where it cannot be recorded. */
  close(): Promise<void>;
}

/** What is answered alike for what is not there and for what is another tenant's. */
const FOREIGN: ReadonlySet<string> = new Set(['NotFoundError', 'GrantNotFoundError', 'MeetingNotFoundError']);

/**
 * Counts a read that failed where it may have been tried at another tenant's. Whoever reaches all tenants has only asked
 * for what is not there.
 */
export function noteForeign(reads: ReadLog, attempt: RefusedAttempt): void {
  if (attempt.tenantId !== null && FOREIGN.has(attempt.reason)) reads.refused(attempt);
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
  const reads = createAuditCounter();
  const refusals = createAuditCounter();
  const stopping = new AbortController();
  let flushing: Promise<void> = Promise.resolve();
  let next: Promise<void> | undefined;
  let failing = false;

  /** What waits now, and nothing that comes meanwhile: it would never end. */
  async function flushNow(counter: AuditCounter, all: boolean): Promise<void> {
    const what = counter === reads ? 'read' : 'refusal';
    for (let left = counter.size(); left > 0; left -= BATCH) {
      const taken = counter.take(Math.min(left, BATCH), all);
      if (taken.length === 0) return;
      const nowMs = performance.now();
      const entries = taken.map(([, one]) => entryOf(one, nowMs));
      try {
        await db.transaction((tx) => trail.append(tx, entries));
      } catch (error) {
        counter.giveBack(taken);
        tell({ kind: 'audit-failure', what });
        throw error;
      }
      tell({ kind: 'audit', what, count: entries.length });
    }
  }

  /** One at a time, so that the events of a chain are in the order of their reads. */
  function flush(counter: AuditCounter, all: boolean): Promise<void> {
    flushing = flushing.catch(() => undefined).then(() => flushNow(counter, all));
    return flushing;
  }

  /** Everyone who comes while a flush is running shares the next one. */
  function flushTogether(): Promise<void> {
    next ??= flushing
      .catch(() => undefined)
      .then(() => {
        next = undefined;
        return flush(reads, true);
      });
    return next;
  }

  async function noteStrictly(key: string, read: Countable): Promise<void> {
    reads.add(key, read, performance.now());
    try {
      await flushTogether();
    } catch (error) {
      reads.takeBack(key);
      throw new AuditUnavailableError({ cause: error });
    }
  }

  async function keepFlushing(): Promise<void> {
    for (;;) {
      await clock.sleep(FLUSH_MS, stopping.signal);
      if (stopping.signal.aborted) return;
      try {
        // In strict mode whoever reads records it.
        if (mode === 'buffered') await flush(reads, reads.size() > maxPending / 2);
        await flush(refusals, false);
        if (failing) log.info('reads of credentials are recorded again', { job: 'record-reads' });
        failing = false;
      } catch (error) {
        if (!failing)
          log.error('reads of credentials cannot be recorded; trying again', { job: 'record-reads' }, error);
        failing = true;
      }
    }
  }
  const running = keepFlushing();

  return {
    note: (read) => {
      const key = keyOf(read);
      if (mode === 'strict' || (reads.size() >= maxPending && !reads.has(key))) return noteStrictly(key, read);
      reads.add(key, read, performance.now());
      return undefined;
    },
    refused: (attempt) => {
      const entry: Countable = { ...attempt, outcome: 'REFUSED' };
      const key = keyOf(entry);
      if (refusals.size() < maxPending || refusals.has(key)) return refusals.add(key, entry, performance.now());
      tell({ kind: 'audit-failure', what: 'refusal' });
    },
    flush: async () => {
      await flush(reads, true);
      await flush(refusals, false);
    },
    pending: reads.size,
    close: async () => {
      stopping.abort();
      await running;
      await flush(reads, true);
      await flush(refusals, true);
    },
  };
}
