import { type Attributes, SpanKind as OtelKind } from '@opentelemetry/api';
import { DomainError } from '../errors.js';
import type { SpanFacts, SpanKind, SpanMessage } from '../diagnostics.js';

/** What may leave this process, under the names that OpenTelemetry gives it. A fact without an entry does not compile. */
const NAMES: Record<keyof SpanFacts, string> = {
  method: 'http.request.method',
  route: 'http.route',
  status: 'http.response.status_code',
  host: 'server.address',
  path: 'url.template',
  operationType: 'graphql.operation.type',
  operationName: 'graphql.operation.name',
  transport: 'latchkey.transport',
  statement: 'db.operation.name',
  table: 'db.collection.name',
  job: 'latchkey.job',
  grantId: 'latchkey.grant.id',
  tenantId: 'latchkey.tenant.id',
  trigger: 'latchkey.refresh.trigger',
  attempt: 'latchkey.refresh.attempt',
  outcome: 'latchkey.outcome',
  cause: 'latchkey.cause',
};

/** The words, ids, hosts and paths that we write have no other form; whatever else gets here by mistake is left out. */
const FORM = /^[\w.:/{}*-]{1,100}$/;

/** Attributes for what of `facts` may be told. */
export function attributesOf(facts: SpanFacts): Attributes {
  const attributes: Attributes = {};
  for (const [fact, value] of Object.entries(facts)) {
    const name = NAMES[fact as keyof SpanFacts] as string | undefined;
    if (name === undefined) continue;
    if (typeof value === 'number' || (typeof value === 'string' && FORM.test(value))) attributes[name] = value;
  }
  return attributes;
}

/** What is true of every span of a kind. */
export const KINDS: Record<SpanKind, { kind: OtelKind; attributes: Attributes }> = {
  request: { kind: OtelKind.SERVER, attributes: {} },
  job: { kind: OtelKind.INTERNAL, attributes: {} },
  operation: { kind: OtelKind.INTERNAL, attributes: {} },
  credential: { kind: OtelKind.INTERNAL, attributes: {} },
  webhook: { kind: OtelKind.INTERNAL, attributes: {} },
  refresh: { kind: OtelKind.INTERNAL, attributes: {} },
  lease: { kind: OtelKind.INTERNAL, attributes: {} },
  spool: { kind: OtelKind.INTERNAL, attributes: {} },
  commit: { kind: OtelKind.INTERNAL, attributes: {} },
  provider: { kind: OtelKind.CLIENT, attributes: { 'peer.service': 'zoom' } },
  transaction: { kind: OtelKind.CLIENT, attributes: { 'db.system.name': 'postgresql' } },
  statement: { kind: OtelKind.CLIENT, attributes: { 'db.system.name': 'postgresql' } },
};

/** One of few names: nothing in it that a caller chose. */
export function nameOf({ kind, facts }: SpanMessage): string {
  const words = (...parts: (string | undefined)[]) => parts.filter((part) => part !== undefined).join(' ');
  switch (kind) {
    case 'request':
      return words(facts.method, facts.route);
    case 'operation':
      return words('GraphQL', facts.operationType);
    case 'provider':
      return words(facts.method, facts.path);
    case 'statement':
      return words(facts.statement, facts.table);
    case 'job':
      return words('job', facts.job);
    case 'lease':
    case 'spool':
    case 'commit':
      return `refresh ${kind}`;
    default:
      return kind;
  }
}

/**
 * What a failure is called: its code, else its class. Never its message, which may quote what was sent, or a statement.
 *
 * @returns null for an answer that a caller can act on, which is no failure of ours.
 */
export function failureOf(error: unknown): string | null {
  if (error instanceof DomainError) return null;
  const { code, name } = (error ?? {}) as { code?: unknown; name?: unknown };
  for (const word of [code, name]) if (typeof word === 'string' && /^\w{1,60}$/.test(word)) return word;
  return 'unknown';
}
