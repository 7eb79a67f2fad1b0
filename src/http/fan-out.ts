import {
  type DocumentNode,
  execute,
  type FieldNode,
  getOperationAST,
  GraphQLError,
  Kind,
  type OperationDefinitionNode,
  print,
  visit,
} from 'graphql';
import { getArgumentValues, getVariableValues } from 'graphql/execution/values.js';
import { inSpan, tell } from '../diagnostics.js';
import type { Principal } from '../domain/principal.js';
import { reachOf } from '../domain/principal-directory.js';
import { type Broadcast, type Listener, SlowListenerError } from '../feed/broadcast.js';
import { explainExpired } from '../graphql/connection.js';
import { accessOf, forbidden, isAllowed } from '../graphql/guard.js';
import type { GraphQLDeps } from '../graphql/context.js';
import { healthWatch, isVisible } from '../graphql/health-event.js';
import { schema } from '../graphql/schema.js';
import type { Engine } from './engine.js';
import { formatError } from './mask.js';
import { factsOf } from './operation-spans.js';

const FIELD = 'healthChanged';
const field = schema.getSubscriptionType()?.getFields()[FIELD];
const access = accessOf('Subscription', FIELD);

/** One result, executed and written once for all who are told it. */
export interface SharedResult {
  /** The GraphQL response. */
  readonly json: string;
  /** About the memory that it takes, with one frame. */
  readonly bytes: number;
  /** What a transport makes of it. Made once as long as all ask with one key. */
  frame(key: string, make: (json: string) => Buffer): Buffer;
}

/** A subscription of one client, as its transport sees it. */
export interface Subscriber {
  send(result: SharedResult): void;
  /** Bytes that wait for the client to read them. */
  unread(): number;
  /** Resolves when they have been read, or the client is gone. */
  drained(): Promise<void>;
  /** Told last, and once; null: there is nothing wrong, the server ends. */
  end(error: GraphQLError | null): void;
}

export interface Subscription {
  document: DocumentNode;
  operationName: string | null | undefined;
  variables: Record<string, unknown> | null | undefined;
  principal: Principal;
}

export interface HealthListener extends Listener<SharedResult> {
  principal: Principal;
}

export type HealthBroadcast = Broadcast<SharedResult, HealthListener>;

/**
 * What may wait for one client to read it, and with it one result more. Whoever is told what comes is ended then; whoever
 * is told what is stored is told no more of it before it has read, and dropped where it does not.
 */
const MAX_UNREAD_BYTES = 1_048_576;

interface Shape {
  operation: OperationDefinitionNode;
  root: FieldNode;
  text: string;
  /** The variable that is nothing but the cursor, which subscribers of one group need not share; null: none is. */
  cursorVariable: string | null;
}

/** Looks at an operation that is valid. @returns null for another than the plain subscription to health events. */
function shapeOf(document: DocumentNode, operationName: string | null | undefined): Shape | null {
  const operation = getOperationAST(document, operationName);
  const [root] = operation?.selectionSet.selections ?? [];
  if (operation?.operation !== 'subscription' || root?.kind !== Kind.FIELD) return null;
  if (root.name.value !== FIELD || operation.selectionSet.selections.length > 1) return null;
  if ((root.directives?.length ?? 0) + (operation.directives?.length ?? 0) > 0) return null;
  const after = root.arguments?.find(({ name }) => name.value === 'after')?.value;
  let cursorVariable = after?.kind === Kind.VARIABLE ? after.name.value : null;
  let uses = 0;
  visit(document, {
    VariableDefinition: () => false,
    Variable: ({ name }) => void (uses += name.value === cursorVariable ? 1 : 0),
  });
  if (uses > 1) cursorVariable = null;
  return { operation, root, text: document.loc?.source.body ?? print(document), cursorVariable };
}

function sharedResult(json: string): SharedResult {
  let last: { key: string; frame: Buffer } | undefined;
  return {
    json,
    bytes: 2 * json.length,
    frame: (key, make) => {
      if (last?.key !== key) last = { key, frame: make(json) };
      return last.frame;
    },
  };
}

export interface FanOut {
  /**
   * Takes on a subscription to health events. Those with the same document, variables and reach are executed once for
   * each event, and share the bytes of its result; who may not see an event is told apart for each of them.
   *
   * @returns begins it, and answers what ends it; null for any other operation and whatever is wrong with this one, which
   * the engine then answers.
   */
  prepare(subscription: Subscription): Promise<Join | null>;
}

export type Join = (subscriber: Subscriber) => () => void;

const slowConsumer = () =>
  new GraphQLError('More waits to be read than is kept for one client. Go on behind the last cursor.', {
    extensions: { code: 'SLOW_CONSUMER' },
  });

export function createFanOut(engine: Engine, deps: GraphQLDeps, broadcast: HealthBroadcast): FanOut {
  const shapes = new WeakMap<DocumentNode, Map<string, Shape | null>>();

  function knownShape({ document, operationName }: Subscription): Shape | null {
    const known = shapes.get(document) ?? new Map<string, Shape | null>();
    shapes.set(document, known);
    const name = operationName ?? '';
    const shape = known.get(name) ?? shapeOf(document, operationName);
    known.set(name, shape);
    return shape;
  }

  async function render(subscription: Subscription, event: { id: string }): Promise<SharedResult | null> {
    const { document, operationName, variables, principal } = subscription;
    // Made anew for each event, so that nothing that was read for one is taken for another.
    const contextValue = engine.createContext({ principal });
    if (!(await isVisible(contextValue, event))) return null;
    const { data, errors } = await execute({
      schema,
      document,
      rootValue: event,
      contextValue,
      variableValues: variables,
      operationName,
    });
    const isMissing = Object.values(data ?? {}).every((value) => value === null);
    const masked = errors?.map((error) => engine.mask(error) as GraphQLError);
    // An event that cannot be read is not passed over: the stream ends, and its client comes back for it.
    if (isMissing && masked?.[0] !== undefined) throw masked[0];
    if (isMissing) return null;
    return sharedResult(JSON.stringify({ data, ...(masked === undefined ? {} : { errors: masked.map(formatError) }) }));
  }

  async function excluded(listeners: readonly HealthListener[]): Promise<ReadonlyMap<HealthListener, unknown>> {
    const changed = await deps.principals.changed([...new Set(listeners.map(({ principal }) => principal))]);
    const found = listeners.filter(({ principal }) => changed.has(principal));
    return new Map(found.map((listener) => [listener, forbidden()]));
  }

  /** What a subscriber is told about the end. */
  function errorOf(error: unknown): GraphQLError | null {
    if (error === null) return null;
    if (error instanceof SlowListenerError) return slowConsumer();
    return engine.mask(explainExpired(error)) as GraphQLError;
  }

  /** @returns null where the engine has something to say about the arguments. */
  async function watchOf({ principal, variables }: Subscription, { operation, root }: Shape) {
    if (field === undefined || access === undefined || !isAllowed(access, principal)) return null;
    const { coerced } = getVariableValues(schema, operation.variableDefinitions ?? [], { ...variables });
    if (coerced === undefined) return null;
    try {
      const args = getArgumentValues(field, root, coerced);
      return { coerced, watch: await healthWatch(engine.createContext({ principal }), args) };
    } catch {
      // Found once more on the engine's way.
      return null;
    }
  }

  async function prepare(subscription: Subscription): Promise<Join | null> {
    const shape = knownShape(subscription);
    const { document, operationName, principal } = subscription;
    const variables = subscription.variables ?? undefined;
    if (shape === null || engine.admission.refuse({ document, operationName, variables }, principal) !== null)
      return null;
    const found = await watchOf(subscription, shape);
    if (found === null || engine.streams.refuse(principal) !== null) return null;
    const { after, matches } = found.watch;
    const { [shape.cursorVariable ?? '']: _cursor, ...others } = found.coerced;
    const key = JSON.stringify([shape.text, operationName ?? null, others, principal.kind, reachOf(principal)]);
    const audience = () => ({ matches, render: (event: { id: string }) => render(subscription, event), excluded });
    return (subscriber) => {
      // What serves a group belongs to all of it: a stream is shown until it has begun.
      void inSpan(
        'operation',
        () => undefined,
        () => factsOf(shape.operation),
      );
      const giveBack = engine.streams.enter(principal);
      const finish = once(() => {
        giveBack();
        tell({ kind: 'health-subscription', change: -1 });
      });
      tell({ kind: 'health-subscription', change: 1 });
      const leave = broadcast.join(key, audience, {
        principal,
        after,
        send: (result) => {
          subscriber.send(result);
          tell({ kind: 'health-event-delivered' });
        },
        isSlow: () => subscriber.unread() > MAX_UNREAD_BYTES,
        drained: () => subscriber.drained(),
        end: (error) => {
          finish();
          subscriber.end(errorOf(error));
        },
      });
      return () => {
        finish();
        leave();
      };
    };
  }

  return { prepare };
}

function once(act: () => void): () => void {
  let isDone = false;
  return () => {
    if (!isDone) act();
    isDone = true;
  };
}
