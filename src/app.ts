import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { addToSpan, areTraced, inSpan } from './diagnostics.js';
import type { GraphQLDeps } from './graphql/context.js';
import type { AddressOf } from './http/address.js';
import type { Authenticate } from './http/authenticate.js';
import { createCors } from './http/cors.js';
import { createEngine, type EngineOptions, GRAPHQL_PATH } from './http/engine.js';
import { createFanOut, type HealthBroadcast } from './http/fan-out.js';
import { createGraphQLHandler } from './http/graphql.js';
import { describeRefusal, type RateGate } from './http/rate-gate.js';
import { createCallbackHandler, createStartHandler } from './http/oauth.js';
import { unavailablePage } from './http/pages.js';
import { methodNotAllowed, notFound, respond, respondJson } from './http/respond.js';
import type { Readiness } from './http/readiness.js';
import { createEventStreams } from './http/server-sent-events.js';
import { createConsumerWatch } from './http/slow-consumer.js';
import { createTokenHandler } from './http/tokens.js';
import { createWebSocketHandler } from './http/websocket.js';
import { createZoomWebhookHandler } from './http/zoom-webhook.js';

export interface App {
  handle(req: IncomingMessage, res: ServerResponse): void;
  upgrade(req: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Open WebSockets. */
  webSockets(): number;
  /** From here on `/readyz` says no, and no WebSocket is opened. */
  drain(): void;
  /** Ends the streams. */
  close(): Promise<void>;
}

type Handler = (req: IncomingMessage, res: ServerResponse, segment: string, query: URLSearchParams) => Promise<void>;

export interface AppOptions {
  deps: GraphQLDeps;
  /** Tells health events to those who subscribe. */
  broadcast: HealthBroadcast;
  authenticate: Authenticate;
  rateGate: RateGate;
  addressOf: AddressOf;
  readiness: Readiness;
  engine: EngineOptions;
  /** How long a client may leave what it is sent unread. */
  slowConsumerMs: number;
  /** Whether anything but the health paths is served. */
  api: boolean;
}

/** Others are named alike in traces: a caller may send any word. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH']);

/** Routes exact paths; whatever is none of them is 404. */
export function createApp(options: AppOptions): App {
  const { deps, broadcast, authenticate, rateGate, addressOf, readiness, engine: engineOptions, api } = options;
  const { log } = deps;
  const engine = createEngine(deps, engineOptions);
  const watchConsumer = createConsumerWatch(options.slowConsumerMs);
  const fanOut = createFanOut(engine, deps, broadcast);
  const graphql = createGraphQLHandler({
    engine,
    serveEvents: createEventStreams({ engine, fanOut, principals: deps.principals, watchConsumer, log }),
    authenticate,
    rateGate,
    addressOf,
    cors: createCors(deps.db),
    log,
    graphiql: engineOptions.development,
    watchConsumer,
  });
  const { principals } = deps;
  const webSocket = createWebSocketHandler({
    engine,
    fanOut,
    authenticate,
    rateGate,
    addressOf,
    principals,
    log,
    watchConsumer,
  });
  let draining = false;

  const ready: Handler = async (_req, res) => {
    const reasons = await readiness.reasons();
    const isReady = reasons.length === 0;
    const quarantine = reasons.includes('quarantined') ? { quarantined: true } : {};
    respondJson(res, isReady ? 200 : 503, { ready: isReady, ...quarantine });
  };

  /** For pages that anybody may open: as often as the ceiling for one address allows. */
  const limited =
    (handler: Handler): Handler =>
    async (req, res, segment, query) => {
      const refusal = await rateGate.address(req);
      if (refusal === null) return handler(req, res, segment, query);
      const { status, headers } = describeRefusal(refusal);
      const { html, csp } = unavailablePage();
      const page = { type: 'text/html; charset=utf-8', text: html };
      return respond(res, status, page, { 'content-security-policy': csp, ...headers });
    };

  /** What serves a path, or all paths of one more segment where it ends with a slash. */
  const routes: Record<string, { method: string; handler: Handler }> = {
    ...(api && {
      '/oauth/start/': { method: 'GET', handler: limited(createStartHandler(deps)) },
      '/oauth/callback/': { method: 'GET', handler: limited(createCallbackHandler(deps)) },
      '/tokens/grants/': {
        method: 'GET',
        handler: createTokenHandler(deps, { authenticate, rateGate, addressOf, of: 'grants' }),
      },
      '/tokens/meetings/': {
        method: 'GET',
        handler: createTokenHandler(deps, { authenticate, rateGate, addressOf, of: 'meetings' }),
      },
      '/webhooks/zoom/': { method: 'POST', handler: createZoomWebhookHandler(deps) },
    }),
    '/livez': { method: 'GET', handler: async (_req, res) => respondJson(res, 200, { live: true }) },
    '/readyz': { method: 'GET', handler: ready },
  };

  /** As a trace names it; null: not shown, because it is asked for all the time. */
  function routeOf(req: IncomingMessage): string | null {
    const [path] = splitUrl(req.url ?? '/');
    if (path === '/livez' || path === '/readyz') return null;
    if (api && path === GRAPHQL_PATH) return path;
    const folder = path.slice(0, path.lastIndexOf('/') + 1);
    return routes[folder] === undefined ? '*' : `${folder}{id}`;
  }

  async function route(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const [path, search] = splitUrl(req.url ?? '/');
    if (api && path === GRAPHQL_PATH) return graphql(req, res);
    const slash = path.lastIndexOf('/') + 1;
    const segment = path.slice(slash);
    const found = segment === '' ? undefined : (routes[path] ?? routes[path.slice(0, slash)]);
    if (found === undefined || !/^[A-Za-z0-9_-]+$/.test(segment)) return notFound(res);
    if (req.method !== found.method) return methodNotAllowed(res, found.method);
    return found.handler(req, res, segment, new URLSearchParams(search));
  }

  /** Answers also what fails. Never rejects. */
  const answer = (req: IncomingMessage, res: ServerResponse): Promise<void> =>
    route(req, res).catch((error: unknown) => {
      log.error('a request failed', {}, error);
      if (res.headersSent) return void res.destroy();
      if (req.url?.startsWith('/oauth/')) {
        const { html, csp } = unavailablePage();
        return respond(res, 503, { type: 'text/html; charset=utf-8', text: html }, { 'content-security-policy': csp });
      }
      return respondJson(res, 500, { error: 'Unexpected error.' });
    });

  return {
    handle: (req, res) => {
      // So that a proxy sends its next request elsewhere, instead of into a connection that is being closed.
      if (draining) res.setHeader('connection', 'close');
      const shown = areTraced() ? routeOf(req) : null;
      if (shown === null) return void answer(req, res);
      void inSpan(
        'request',
        async () => {
          await answer(req, res);
          addToSpan({ status: res.statusCode });
        },
        () => ({ method: METHODS.has(req.method ?? '') ? (req.method ?? '') : '_OTHER', route: shown }),
      );
    },
    upgrade: (req, socket, head) => {
      // Node has taken its own listener off; a socket that is reset would end the process without one.
      socket.on('error', () => socket.destroy());
      const [path] = splitUrl(req.url ?? '/');
      if (api && path === GRAPHQL_PATH && !draining) return webSocket.upgrade(req, socket, head);
      socket.end('HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 0\r\n\r\n');
    },
    webSockets: () => webSocket.count(),
    drain: () => {
      draining = true;
      readiness.drain();
    },
    close: () => webSocket.close(),
  };
}

function splitUrl(url: string): [string, string] {
  const at = url.indexOf('?');
  return at === -1 ? [url, ''] : [url.slice(0, at), url.slice(at + 1)];
}
