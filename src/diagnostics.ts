import { AsyncResource } from 'node:async_hooks';
import { channel, tracingChannel } from 'node:diagnostics_channel';

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
  /** They could not be: a change was not made, or reads are still to be recorded or were refused, or a refusal was not counted. */
  | { kind: 'audit-failure'; what: AuditSubject }
  /** A request of somebody who is not known, or an answer of the consent screen, was refused: never an audit event. */
  | { kind: 'refused-request'; route: 'graphql' | 'websocket' | 'tokens' | 'callback'; reason: string }
  /** One more who is told of health events, or one less. */
  | { kind: 'health-subscription'; change: 1 | -1 }
  | { kind: 'health-event-delivered' }
  | { kind: 'operation'; operation: OperationKind; outcome: OperationOutcome; seconds: number };

export type AuditSubject = 'change' | 'read' | 'refusal';

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

/**
 * Pieces of work that a trace shows:
 *
 * - `request`: one over HTTP to this server. `job`: one run of a job.
 * - `operation`: a GraphQL operation. `credential`: a credential that is read. `webhook`: a delivery that is taken in.
 * - `refresh`: one attempt; within it `lease`, `spool` and `commit`.
 * - `provider`: a request to Zoom.
 * - `transaction`, `statement`: what the database is asked.
 */
export type SpanKind =
  | 'request'
  | 'job'
  | 'operation'
  | 'credential'
  | 'webhook'
  | 'refresh'
  | 'lease'
  | 'spool'
  | 'commit'
  | 'provider'
  | 'transaction'
  | 'statement';

/** What is known of a piece of work. Ids and words of ours only: what leaves this process is taken from here. */
export interface SpanFacts {
  method?: string;
  /** A path of this server, without what is variable in it. */
  route?: string;
  /** Of HTTP. */
  status?: number;
  host?: string;
  /** A path at the provider, without ids. */
  path?: string;
  operationType?: string;
  /** As the caller wrote it: a Name of GraphQL. */
  operationName?: string;
  transport?: string;
  /** What a statement does, and the table that it names first. */
  statement?: string;
  table?: string;
  job?: string;
  grantId?: string;
  tenantId?: string;
  /** Why a refresh was begun. */
  trigger?: 'request' | 'schedule';
  attempt?: string;
  outcome?: string;
  cause?: string;
}

/** What subscribers of a span's channels get, with `error` or `result` added by Node at its end. */
export interface SpanMessage {
  kind: SpanKind;
  facts: SpanFacts;
  error?: unknown;
  result?: unknown;
}

/** Name for `tracingChannel` of `node:diagnostics_channel`. */
export const SPAN_CHANNEL = 'latchkey:span';
/** Work that is published here, with stores that are bound, belongs to no span. */
export const APART_CHANNEL = 'latchkey:apart';
/** Facts that became known about the innermost span. */
export const FACTS_CHANNEL = 'latchkey:facts';

const spans = tracingChannel<unknown, SpanMessage>(SPAN_CHANNEL);
const apartness = channel(APART_CHANNEL);
const findings = channel(FACTS_CHANNEL);

/** Whether anybody makes spans of what happens here. */
export const areTraced = (): boolean => spans.start.hasSubscribers;

/**
 * Does `work` as a piece of work that a trace shows. Where nobody traces it calls `work`, and nothing else.
 *
 * @param facts what is known from the beginning; not called where nobody traces.
 */
export function inSpan<T>(kind: SpanKind, work: () => T | Promise<T>, facts?: () => SpanFacts): T | Promise<T> {
  if (!areTraced()) return work();
  const message: SpanMessage = { kind, facts: facts?.() ?? {} };
  // Async, so that what is thrown at once ends the span, too.
  return spans.tracePromise(async () => work(), message);
}

/** Adds to the innermost span. */
export function addToSpan(facts: SpanFacts): void {
  if (findings.hasSubscribers) findings.publish(facts);
}

/** Does what goes on beyond the span that happens to begin it. */
export function apart<T>(work: () => T): T {
  return apartness.hasSubscribers ? (apartness.runStores(undefined, work) as T) : work();
}

/** Lets `work` belong to the span in which it was handed over, whoever calls it. */
export function keepSpan(work: () => void): () => void {
  return areTraced() ? AsyncResource.bind(work) : work;
}
