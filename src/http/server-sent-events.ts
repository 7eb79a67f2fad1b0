import type { IncomingMessage, ServerResponse } from 'node:http';
import { type DocumentNode, GraphQLError } from 'graphql';
import type { PrincipalDirectory } from '../domain/principal-directory.js';
import { schema } from '../graphql/schema.js';
import type { Log } from '../log.js';
import type { Engine, RequestContext } from './engine.js';
import type { FanOut, Subscriber } from './fan-out.js';
import { formatError } from './mask.js';
import { endOf } from './principal-stream.js';
import { BASE_HEADERS } from './respond.js';
import type { SingleOperation } from './single-operation.js';
import type { WatchConsumer } from './slow-consumer.js';

/** Below the idle limits of common proxies. */
const PING_MS = 12_000;
/** How long a client may take to read the end of its stream. */
const END_PATIENCE_MS = 10_000;
const PING = Buffer.from(':\n\n');
const COMPLETE = 'event: complete\ndata:\n\n';

const frameOf = (json: string): Buffer => Buffer.from(`event: next\ndata: ${json}\n\n`);

/** @returns whether it was served; the engine's own HTTP layer answers what was not. */
export type ServeEvents = (
  req: IncomingMessage,
  res: ServerResponse,
  operation: SingleOperation | null,
  request: RequestContext,
) => Promise<boolean>;

/**
 * Serves subscriptions that are shared over server-sent events, in the "distinct connections" mode of GraphQL over SSE.
 *
 * @see https://github.com/enisdenjo/graphql-sse/blob/master/PROTOCOL.md
 */
export function createEventStreams(options: {
  engine: Engine;
  fanOut: FanOut;
  principals: PrincipalDirectory;
  watchConsumer: WatchConsumer;
  log: Log;
}): ServeEvents {
  const { engine, fanOut, principals, watchConsumer, log } = options;
  const open = new Set<ServerResponse>();
  let pings: NodeJS.Timeout | undefined;

  function ping(): void {
    for (const res of open) {
      // One that does not read is not told that it is connected.
      if (res.writableLength === 0) res.write(PING);
    }
  }

  function begin(res: ServerResponse): void {
    res.writeHead(200, {
      ...BASE_HEADERS,
      'content-type': 'text/event-stream',
      'cache-control': 'no-cache',
      connection: 'keep-alive',
      // Proxies that buffer or compress answers leave this one alone.
      'content-encoding': 'none',
      'x-accel-buffering': 'no',
    });
    // Browsers do not show a stream to the page before something of it has come.
    res.write(PING);
    open.add(res);
    pings ??= setInterval(ping, PING_MS).unref();
  }

  /** @returns null where the engine would not run it: parsed and validated again on its way, which answers the error. */
  function prepare({ query }: SingleOperation, request: RequestContext): DocumentNode | null {
    const { parse, validate } = engine.yoga.getEnveloped({ ...request } as never);
    try {
      const document = parse(query) as DocumentNode;
      return validate(schema, document).length > 0 ? null : document;
    } catch {
      return null;
    }
  }

  return async function serveEvents(
    req: IncomingMessage,
    res: ServerResponse,
    operation: SingleOperation | null,
    request: RequestContext,
  ): Promise<boolean> {
    if (operation === null || !/^text\/event-stream *(,|;|$)/i.test(req.headers.accept ?? '')) return false;
    const document = prepare(operation, request);
    if (document === null) return false;
    const { principal } = request;
    const { variables, operationName } = operation;
    const join = await fanOut.prepare({ document, variables, operationName, principal });
    if (join === null) return false;
    if (res.destroyed) return true;
    begin(res);
    const leave = join(subscriberOf(res));
    const unwatch = principals.watch(principal, (reason) => {
      leave();
      const { message, code } = endOf(principal, reason);
      end(res, new GraphQLError(message, { extensions: { code } }));
    });
    const unwatchConsumer = watchConsumer(
      () => res.writableLength,
      () => {
        log.warn('a stream was dropped', { code: 'SLOW_CONSUMER' });
        // Nothing more gets through to a client that does not read.
        res.destroy();
      },
    );
    res.once('close', () => {
      leave();
      unwatch();
      unwatchConsumer();
      open.delete(res);
    });
    return true;
  };
}

const subscriberOf = (res: ServerResponse): Subscriber => ({
  send: (result) => void res.write(result.frame('sse', frameOf)),
  unread: () => res.writableLength,
  drained: () =>
    new Promise((resolve) => {
      if (res.destroyed || !res.writableNeedDrain) return resolve();
      const settle = () => {
        res.off('drain', settle).off('close', settle);
        resolve();
      };
      res.on('drain', settle).on('close', settle);
    }),
  end: (error) => end(res, error),
});

function end(res: ServerResponse, error: GraphQLError | null): void {
  const last = error === null ? '' : frameOf(JSON.stringify({ errors: [formatError(error)] })).toString();
  res.end(`${last}${COMPLETE}`);
  // What is left unread does not keep the connection for good.
  setTimeout(() => res.destroy(), END_PATIENCE_MS).unref();
}
