import { AsyncLocalStorage } from 'node:async_hooks';
import { channel, subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { type Context, ROOT_CONTEXT, type Span, SpanStatusCode, trace, type Tracer } from '@opentelemetry/api';
import {
  APART_CHANNEL,
  FACTS_CHANNEL,
  OCCURRENCE_CHANNEL,
  type Occurrence,
  REFRESH_CHANNEL,
  type RefreshProgress,
  SPAN_CHANNEL,
  type SpanFacts,
  type SpanMessage,
} from '../diagnostics.js';
import { attributesOf, failureOf, KINDS, nameOf } from './attributes.js';

/** A piece of work under way. */
interface Scope {
  message: SpanMessage;
  parent: Scope | undefined;
  /** Of the trace that it continues or begins. */
  context: Context;
  /** Of `performance.now`. */
  startMs: number;
  /** Null: nothing has happened yet that is worth a span. */
  span: Span | null;
}

export interface Spans {
  /** Ids of the trace and the span that the caller is in; null where that is none. */
  current(): { traceId: string; spanId: string } | null;
  /** The request that the caller is in continues the trace of `context`, unless it has begun one already. */
  adopt(context: Context): void;
  stop(): void;
}

/**
 * A request is shown from its start, but only once it is known whose trace it continues; a job only if it did
 * something. Both get their span with the first that happens in them.
 */
const isLazy = ({ kind }: SpanMessage): boolean => kind === 'request' || kind === 'job';
const isOfDatabase = ({ kind }: SpanMessage): boolean => kind === 'statement' || kind === 'transaction';
/** By schedule: what began it is the clock, not the job that was looking for what is due. */
const isRoot = ({ kind, facts }: SpanMessage): boolean =>
  isLazy({ kind, facts }) || (kind === 'refresh' && facts.trigger === 'schedule');

/** Outcomes of an operation that are failures of ours. */
const FAILURES: ReadonlySet<string> = new Set(['internal', 'unavailable', 'vault_unavailable']);

/**
 * Makes spans of the pieces of work that this process tells of. Two servers in one process trace each other's.
 *
 * Nothing here may throw: what a subscriber throws ends the process.
 */
export function createSpans(tracer: Tracer): Spans {
  const store = new AsyncLocalStorage<Scope | undefined>();
  const scopes = new WeakMap<object, Scope>();
  const channels = tracingChannel<unknown, SpanMessage>(SPAN_CHANNEL);
  const apartness = channel(APART_CHANNEL);

  function begin(scope: Scope): Span {
    if (scope.span !== null) return scope.span;
    const { kind, attributes } = KINDS[scope.message.kind];
    const options = { kind, attributes, startTime: scope.startMs };
    scope.span = tracer.startSpan(nameOf(scope.message), options, scope.context);
    scope.context = trace.setSpan(scope.context, scope.span);
    return scope.span;
  }

  function open(message: SpanMessage): Scope | undefined {
    const outer = store.getStore();
    // Alone, or after its request, a statement belongs to what this process does all the time.
    if (isOfDatabase(message) && outer?.span?.isRecording() !== true) return outer;
    const parent = isRoot(message) ? undefined : outer;
    if (parent !== undefined) begin(parent);
    const context = parent?.context ?? ROOT_CONTEXT;
    const scope: Scope = { message, parent, context, startMs: performance.now(), span: null };
    scopes.set(message, scope);
    if (!isLazy(message)) begin(scope);
    return scope;
  }

  function close(message: SpanMessage): void {
    const scope = scopes.get(message);
    if (scope === undefined) return;
    const isWorthIt = message.kind === 'request' || message.error !== undefined || message.result === true;
    if (scope.span === null && !isWorthIt) return;
    const span = begin(scope);
    if (!span.isRecording()) return;
    span.setAttributes(attributesOf(message.facts));
    const failure = message.error === undefined ? null : failureOf(message.error);
    if (failure !== null) fail(span, failure);
    else if ((message.facts.status ?? 0) >= 500) fail(span, String(message.facts.status));
    span.end(performance.now());
  }

  function fail(span: Span, type: string): void {
    span.setAttribute('error.type', type);
    span.setStatus({ code: SpanStatusCode.ERROR });
  }

  function nearest(matches: (message: SpanMessage) => boolean): Scope | undefined {
    let scope = store.getStore();
    while (scope !== undefined && !matches(scope.message)) scope = scope.parent;
    return scope;
  }

  function occurred(occurrence: Occurrence): void {
    if (!('outcome' in occurrence)) return;
    const kind = occurrence.kind === 'operation' ? 'request' : occurrence.kind;
    const scope = nearest((message) => message.kind === kind);
    if (scope === undefined) return;
    const { outcome } = occurrence;
    const facts: SpanFacts = { outcome };
    if (occurrence.kind === 'refresh') Object.assign(facts, { cause: occurrence.cause, attempt: occurrence.attempt });
    Object.assign(scope.message.facts, facts);
    if (occurrence.kind !== 'operation') return;
    if (FAILURES.has(outcome)) fail(begin(scope), outcome);
    // A stream may go on for hours, and what serves it belongs to all who listen.
    if (occurrence.operation === 'subscription') close(scope.message);
  }

  function progressed({ step, grantId }: RefreshProgress): void {
    // A group of refreshes is stored within one of them.
    nearest(({ kind, facts }) => kind === 'refresh' && facts.grantId === grantId)?.span?.addEvent(step);
  }

  const guarded =
    <M>(listener: (message: M) => void) =>
    (message: unknown): void => {
      try {
        listener(message as M);
      } catch {
        // A trace that lacks something is better than a process that ends.
      }
    };
  const handlers = { asyncEnd: guarded(close) };
  const listeners: [string, (message: unknown) => void][] = [
    [OCCURRENCE_CHANNEL, guarded(occurred)],
    [REFRESH_CHANNEL, guarded(progressed)],
    [FACTS_CHANNEL, guarded((facts: SpanFacts) => void Object.assign(store.getStore()?.message.facts ?? {}, facts))],
  ];
  channels.start.bindStore(store, (message) => {
    try {
      return open(message as SpanMessage);
    } catch {
      return store.getStore();
    }
  });
  channels.asyncEnd.subscribe(handlers.asyncEnd);
  apartness.bindStore(store, () => undefined);
  for (const [name, listener] of listeners) subscribe(name, listener);

  return {
    current: () => {
      const scope = store.getStore();
      return scope === undefined ? null : begin(scope).spanContext();
    },
    adopt: (context) => {
      const scope = nearest(({ kind }) => kind === 'request');
      if (scope !== undefined && scope.span === null) scope.context = context;
    },
    stop: () => {
      channels.start.unbindStore(store);
      channels.asyncEnd.unsubscribe(handlers.asyncEnd);
      apartness.unbindStore(store);
      for (const [name, listener] of listeners) unsubscribe(name, listener);
    },
  };
}
