import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';
import { GRAPHQL_TRANSPORT_WS_PROTOCOL } from 'graphql-ws';
import { useServer } from 'graphql-ws/use/ws';
import { WebSocketServer } from 'ws';
import {
  type DocumentNode,
  type ExecutionArgs,
  type ExecutionResult,
  type FormattedExecutionResult,
  GraphQLError,
} from 'graphql';
import type { WebSocket } from 'ws';
import { tell } from '../diagnostics.js';
import type { PrincipalDirectory } from '../domain/principal-directory.js';
import { NOBODY, type Principal } from '../domain/principal.js';
import type { Log } from '../log.js';
import type { AddressOf } from './address.js';
import { type Authenticate, sourceOf } from './authenticate.js';
import type { Engine } from './engine.js';
import type { FanOut, Join } from './fan-out.js';
import { formatError } from './mask.js';
import { isNestedDeeper, MAX_VARIABLE_DEPTH } from './nesting.js';
import { endOf } from './principal-stream.js';
import { type RateGate, refusalError } from './rate-gate.js';
import type { WatchConsumer } from './slow-consumer.js';

const MAX_MESSAGE_BYTES = 102_400;
const INIT_TIMEOUT_MS = 3_000;
const CLOSE_PATIENCE_MS = 1_000;
const DRAIN_LOOK_MS = 50;
/** What may wait for one client that reads slower than it is answered. */
const MAX_PENDING_BYTES = 1_048_576;

/** "Try again later", by which clients may come back. */
const TRY_AGAIN = 1_013;
/** "Forbidden" of the protocol, after which clients may try again with another session. */
const FORBIDDEN = 4_403;

interface Extra extends Record<PropertyKey, unknown> {
  request: IncomingMessage;
  socket: WebSocket;
  principal?: Principal;
  unwatch?: () => void;
}

/**
 * Serves operations over WebSocket with the `graphql-transport-ws` protocol. The caller authenticates with
 * `connection_init`, by `payload.authorization`; whoever is refused, or comes to an end later, is told by close code
 * 4403.
 *
 * @see https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md
 */
export function createWebSocketHandler(options: {
  engine: Engine;
  fanOut: FanOut;
  authenticate: Authenticate;
  rateGate: RateGate;
  addressOf: AddressOf;
  principals: PrincipalDirectory;
  log: Log;
  watchConsumer: WatchConsumer;
}) {
  const { engine, fanOut, authenticate, rateGate, addressOf, principals, log, watchConsumer } = options;
  const server = new WebSocketServer({
    noServer: true,
    maxPayload: MAX_MESSAGE_BYTES,
    handleProtocols: (protocols) =>
      protocols.has(GRAPHQL_TRANSPORT_WS_PROTOCOL) ? GRAPHQL_TRANSPORT_WS_PROTOCOL : false,
  });
  const isBehind = ({ bufferedAmount }: WebSocket): boolean => bufferedAmount > MAX_PENDING_BYTES;

  function drop(socket: WebSocket): void {
    if (socket.readyState !== socket.OPEN) return;
    log.warn('a WebSocket was dropped', { code: 'SLOW_CONSUMER' });
    socket.close(TRY_AGAIN, 'SLOW_CONSUMER');
    setTimeout(() => socket.terminate(), CLOSE_PATIENCE_MS).unref();
  }

  server.on('connection', (socket) => {
    const unwatch = watchConsumer(
      () => socket.bufferedAmount,
      () => drop(socket),
    );
    socket.once('close', unwatch);
  });

  const cleanup = useServer<{ authorization?: unknown }, Extra>(
    {
      connectionInitWaitTimeout: INIT_TIMEOUT_MS,
      // Unexpected errors close a socket without their text, whatever NODE_ENV says.
      isProd: true,
      onConnect: async ({ connectionParams, extra }) => {
        const authorization = connectionParams?.authorization;
        const authentication = await authenticate(
          typeof authorization === 'string' ? authorization : undefined,
          sourceOf(extra.request),
        );
        if ('refusal' in authentication) {
          tell({ kind: 'refused-request', route: 'websocket', reason: authentication.refusal });
          log.warn('a WebSocket was refused', { code: authentication.refusal });
          return false;
        }
        const { principal } = authentication;
        extra.principal = principal;
        extra.unwatch = principals.watch(principal, (end) =>
          extra.socket.close(FORBIDDEN, endOf(principal, end).message),
        );
        return true;
      },
      onClose: ({ extra }) => extra.unwatch?.(),
      execute: (args) => (args as EnvelopedArgs).rootValue.execute(args),
      subscribe: (args) => (args as EnvelopedArgs).rootValue.subscribe(args),
      onSubscribe: async ({ extra }, id, { query, variables, operationName, ...naming }) => {
        const refusal = await rateGate.principal(extra.principal ?? NOBODY);
        if (refusal !== null) return [refusalError(refusal)];
        const { schema, execute, subscribe, contextFactory, parse, validate } = engine.yoga.getEnveloped({
          req: extra.request,
          principal: extra.principal,
          clientAddress: addressOf(sourceOf(extra.request)) ?? null,
        } as never);
        // Who asks and does not read the answers is asked to stop before more of them are made.
        if (isBehind(extra.socket)) drop(extra.socket);
        if (extra.socket.readyState !== extra.socket.OPEN) return [slowConsumerError()];
        if (isNestedDeeper(variables)) return [nestingError()];
        let document: DocumentNode;
        try {
          const text = query === '' ? (engine.persistedDocuments?.textOf(naming) ?? query) : query;
          document = parse(text) as DocumentNode;
          const errors = validate(schema, document);
          if (errors.length > 0) return errors;
        } catch (error) {
          // Concerns this operation alone; thrown on, it would close the socket and end the others.
          return [engine.mask(error) as GraphQLError];
        }
        const { principal } = extra;
        const join = principal && (await fanOut.prepare({ document, variables, operationName, principal }));
        if (join) {
          const shared = () => sharedResults(extra.socket, id, join);
          return { schema, operationName, document, rootValue: { execute, subscribe: shared } };
        }
        return {
          schema,
          operationName,
          document,
          variableValues: variables,
          contextValue: await contextFactory(),
          // The functions of this very operation, as the two hooks above find them.
          rootValue: { execute, subscribe },
        };
      },
      onNext: ({ extra }, _id, _payload, _args, { errors, ...result }) => {
        // A socket that is being closed is sent nothing any more.
        if (isBehind(extra.socket)) drop(extra.socket);
        if (errors === undefined) return undefined;
        return { ...result, errors: errors.map(formatError) } as FormattedExecutionResult;
      },
      onError: (_ctx, _id, _payload, errors) => {
        log.debug('a WebSocket operation failed', { count: errors.length });
        return errors.map(formatError);
      },
    },
    server,
  );

  return {
    upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer): void => {
      server.handleUpgrade(req, socket, head, (ws) => server.emit('connection', ws, req));
    },
    count: (): number => server.clients.size,
    /** Closes every socket with 1001, which clients take as a reason to reconnect. */
    close: async (): Promise<void> => {
      // A client that does not answer the close must not hold up those who wait for the process to end.
      const cut = setTimeout(() => server.clients.forEach((client) => client.terminate()), CLOSE_PATIENCE_MS);
      await cleanup.dispose();
      clearTimeout(cut);
    },
  };
}

/**
 * A subscription whose results are written to the socket by those who share them, so that only its end comes this way.
 */
function sharedResults(socket: WebSocket, id: string, join: Join): AsyncIterableIterator<ExecutionResult> {
  let end: (last: ExecutionResult | null) => void = () => undefined;
  const ended = new Promise<ExecutionResult | null>((resolve) => (end = resolve));
  let isOver = false;
  const head = `{"id":${JSON.stringify(id)},"type":"next","payload":`;
  const leave = join({
    send: (result) =>
      socket.send(
        result.frame(id, (json) => Buffer.from(`${head}${json}}`)),
        AS_TEXT,
        ignoreFailure,
      ),
    unread: () => socket.bufferedAmount,
    drained: () => drained(socket),
    end: (error) => end(error === null ? null : { errors: [error] }),
  });
  return {
    next: async () => {
      const last = isOver ? null : await ended;
      isOver = true;
      return last === null ? { done: true, value: undefined } : { done: false, value: last };
    },
    return: async () => {
      leave();
      end(null);
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

const AS_TEXT = { binary: false };
/** A socket that breaks closes, which is where it is dealt with. */
const ignoreFailure = (): void => undefined;

/** A WebSocket does not tell when it has been read. */
async function drained(socket: WebSocket): Promise<void> {
  while (socket.readyState === socket.OPEN && socket.bufferedAmount > 0) {
    await new Promise((resolve) => setTimeout(resolve, DRAIN_LOOK_MS));
  }
}

const slowConsumerError = () =>
  new GraphQLError('The answers are not read.', { extensions: { code: 'SLOW_CONSUMER' } });

const nestingError = () =>
  new GraphQLError(`Variables may be nested ${MAX_VARIABLE_DEPTH} levels deep.`, {
    extensions: { code: 'BAD_USER_INPUT' },
  });

interface EnvelopedArgs extends ExecutionArgs {
  rootValue: { execute: (args: unknown) => never; subscribe: (args: unknown) => never };
}
