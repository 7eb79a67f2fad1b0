import { channel } from 'node:diagnostics_channel';

/**
 * Where a refresh has come to:
 *
 * - `leased`: the lease is committed, nothing is sent yet.
 * - `answered`: the whole answer of the provider is read and holds tokens.
 * - `spooled`: the sealed tokens are on this machine's disk. Left out where the spool cannot be written.
 * - `committing`: they are written within the transaction, which is not committed yet.
 * - `committed`: they are stored.
 */
export type RefreshStep = 'leased' | 'answered' | 'spooled' | 'committing' | 'committed';

/** What subscribers get. It holds no secret. */
export interface RefreshProgress {
  step: RefreshStep;
  grantId: string;
  fence: number;
}

/** Name of the channel, for `subscribe` of `node:diagnostics_channel`. Its subscribers run within the refresh. */
export const REFRESH_CHANNEL = 'latchkey:refresh';

const refreshes = channel(REFRESH_CHANNEL);

/** Tells whoever traces this process where a refresh has come to; costs nothing where nobody does. */
export function traceRefresh(step: RefreshStep, { grantId, fence }: { grantId: string; fence: number }): void {
  if (refreshes.hasSubscribers) refreshes.publish({ step, grantId, fence } satisfies RefreshProgress);
}

/** Something that happened, told to whoever counts: words of ours only, so that the number of distinct ones is bounded. */
export type Occurrence =
  /** A lease was settled. `elsewhere`: nothing was learned, or somebody else was faster. `cause` of a failure. */
  | {
      kind: 'refresh';
      outcome: 'refreshed' | 'elsewhere' | 'ended' | 'failed' | 'error';
      cause: string;
      attempt: 'first' | 'retry';
      seconds: number;
    }
  /** A credential was asked for. `outcome`: `served`, `served_with_warning`, or the name of the error. */
  | { kind: 'credential'; outcome: string }
  | { kind: 'webhook'; outcome: WebhookOutcome }
  /** An attempt to tell a webhook endpoint of an event: `delivered`, or why not. */
  | { kind: 'delivery'; outcome: DeliveryOutcome; seconds: number }
  | { kind: 'health-transition'; status: string; reason: string }
  /** Events of the audit trail were stored. */
  | { kind: 'audit'; what: AuditSubject; count: number }
  /** They could not be: a change was not made, or reads are still to be recorded or were refused. */
  | { kind: 'audit-failure'; what: AuditSubject }
  /** One more who is told of health events, or one less. */
  | { kind: 'health-subscription'; change: 1 | -1 }
  | { kind: 'health-event-delivered' }
  | { kind: 'operation'; operation: OperationKind; outcome: OperationOutcome; seconds: number };

export type AuditSubject = 'change' | 'read';

export type DeliveryOutcome = 'delivered' | 'refused' | 'timed_out' | 'connection_failed' | 'address_not_allowed';

export type WebhookOutcome =
  | 'accepted'
  | 'repeated'
  | 'without_effect'
  | 'validated'
  | 'unknown_app'
  | 'bad_signature'
  | 'clock_skew_suspected'
  | 'malformed_validation'
  | 'too_large'
  | 'not_stored';

/** `credential` is the query of that one field: what products wait for. */
export type OperationKind = 'credential' | 'query' | 'mutation' | 'subscription' | 'unknown';

export type OperationOutcome =
  | 'ok'
  | 'bad_request'
  | 'rate_limited'
  | 'unauthenticated'
  | 'forbidden'
  | 'vault_unavailable'
  | 'audit_unavailable'
  | 'unavailable'
  | 'internal';

/** Name of the channel on which occurrences are told. Its subscribers run within whatever happened. */
export const OCCURRENCE_CHANNEL = 'latchkey:occurrence';

const occurrences = channel(OCCURRENCE_CHANNEL);

/** Costs next to nothing where nobody counts. */
export function tell(occurrence: Occurrence): void {
  if (occurrences.hasSubscribers) occurrences.publish(occurrence);
}

const waiting = new WeakMap<object, Occurrence[]>();

/**
 * Keeps back what is told of a transaction.
 *
 * @returns a function that tells it; call it after the commit, or never.
 */
export function holdBack(tx: object): () => void {
  const held: Occurrence[] = [];
  waiting.set(tx, held);
  return () => held.forEach(tell);
}

/** Tells it once the transaction is committed; at once, where nobody keeps it back. */
export function tellOf(tx: object, occurrence: Occurrence): void {
  const held = waiting.get(tx);
  if (held === undefined) tell(occurrence);
  else held.push(occurrence);
}
