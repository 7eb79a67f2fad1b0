import type { IncomingMessage, ServerResponse } from 'node:http';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { ExecutionResult } from 'graphql';
import { type OperationKind, tell } from '../diagnostics.js';
import type { Log } from '../log.js';
import { NOBODY } from '../domain/principal.js';
import type { Refusal } from '../domain/rate-limit.js';
import type { AddressOf } from './address.js';
import { REFUSALS, refusalHeaders, sourceOf, type Authenticate, type Refused } from './authenticate.js';
import type { Cors } from './cors.js';
import { formatError } from './mask.js';
import { GRAPHQL_PATH, type Engine, type RequestContext } from './engine.js';
import { isNestedDeeper, MAX_VARIABLE_DEPTH } from './nesting.js';
import { outcomeOf } from './operation-outcome.js';
import type { PersistedDocuments } from './persisted-documents.js';
import { describeRefusal, type RateGate } from './rate-gate.js';
import { answerOf, retryHeaders, statusOf } from './result-status.js';
import { BASE_HEADERS, methodNotAllowed, readBody, respondJson } from './respond.js';
import type { ServeEvents } from './server-sent-events.js';
import type { WatchConsumer } from './slow-consumer.js';
import { createSingleOperationRunner, type SingleOperation } from './single-operation.js';

const MAX_BODY_BYTES = 102_400;

function respondRefusal(res: ServerResponse, refused: Refused): void {
  const { status, message } = REFUSALS[refused.refusal];
  respondJson(res, status, { errors: [{ message, extensions: { code: refused.refusal } }] }, refusalHeaders(refused));
}

function respondRateLimited(res: ServerResponse, refusal: Refusal): void {
  const { status, message, extensions, headers } = describeRefusal(refusal);
  respondJson(res, status, { errors: [{ message, extensions }] }, headers);
}

const respondError = (res: ServerResponse, status: number, message: string, code: string): void =>
  respondJson(
    res,
    status,
    { errors: [{ message, extensions: { code } }] },
    status === 413 ? { connection: 'close' } : {},
  );

/**
 * Answers /graphql over HTTP.
 *
 * There are two doors to the engine. Most requests are a POST of one well-formed query or mutation: those are run
 * directly, as are subscriptions that are shared. Everything else (other subscriptions, GET, GraphiQL, anything malformed) takes the way through the engine's own
 * HTTP layer, which negotiates, streams, and words the errors. Parsing, validation, limits, context and masking are
 * the engine's on both ways.
 */
export function createGraphQLHandler(options: {
  engine: Engine;
  authenticate: Authenticate;
  rateGate: RateGate;
  addressOf: AddressOf;
  cors: Cors;
  log: Log;
  graphiql: boolean;
  serveEvents: ServeEvents;
  watchConsumer: WatchConsumer;
}) {
  const { engine, authenticate, rateGate, addressOf, cors, log, graphiql, serveEvents, watchConsumer } = options;
  const runSingle = createSingleOperationRunner(engine);

  return async function handle(req: IncomingMessage, res: ServerResponse): Promise<void> {
    const { method, headers } = req;
    if (graphiql && method === 'GET' && asksForPage(headers.accept)) {
      // The page holds nothing; what it asks for later is authenticated. Without a query there is nothing to execute.
      return viaEngine(req, res, null, { principal: NOBODY }, null, GRAPHQL_PATH);
    }
    if (isPreflight(req)) return cors.preflight(req, res);
    const sinceMs = performance.now();
    if (headers.origin !== undefined) await cors.allow(req, res);
    const authentication = await authenticate(headers.authorization, sourceOf(req));
    if ('refusal' in authentication) {
      count('unknown', REFUSALS[authentication.refusal].status === 401 ? 'unauthenticated' : 'forbidden', sinceMs);
      tell({ kind: 'refused-request', route: 'graphql', reason: authentication.refusal });
      if (authentication.refusal !== 'UNAUTHENTICATED')
        log.warn('a caller was refused', { code: authentication.refusal });
      return respondRefusal(res, authentication);
    }
    const gate = rateGate.principal(authentication.principal);
    const refusal = gate instanceof Promise ? await gate : gate;
    if (refusal !== null) {
      count('unknown', 'rate_limited', sinceMs);
      return respondRateLimited(res, refusal);
    }
    const context = { principal: authentication.principal, clientAddress: addressOf(sourceOf(req)) ?? null };
    if (method !== 'GET' && method !== 'POST') return methodNotAllowed(res, 'GET, POST');
    if (method === 'GET') {
      const variables = new URLSearchParams(req.url?.split('?')[1]).get('variables');
      if (isNestedDeeper(parseJson(variables ?? ''))) return respondNesting(res, sinceMs);
      return viaEngine(req, res, null, context, sinceMs);
    }
    if (!isJson(headers['content-type'])) {
      count('unknown', 'bad_request', sinceMs);
      return respondError(res, 415, 'Send the operation as application/json.', 'UNSUPPORTED_MEDIA_TYPE');
    }
    const encoding = headers['content-encoding'] ?? 'identity';
    if (encoding.toLowerCase() !== 'identity') {
      // Nobody knows what it unpacks to.
      count('unknown', 'bad_request', sinceMs);
      return respondError(res, 415, 'Send the operation uncompressed.', 'UNSUPPORTED_MEDIA_TYPE');
    }
    const body = await readBody(req, MAX_BODY_BYTES);
    if (body === null) {
      count('unknown', 'bad_request', sinceMs);
      return respondError(res, 413, `A request may have ${MAX_BODY_BYTES} bytes.`, 'PAYLOAD_TOO_LARGE');
    }
    // What is no JSON is read again on the other way, which answers the error.
    const params = parseJson(body.toString('utf8'));
    if (isRecord(params) && isNestedDeeper(params['variables'])) return respondNesting(res, sinceMs);
    const mediaType = plainAnswerType(headers.accept);
    const operation = operationOf(params, engine.persistedDocuments);
    if (mediaType === null && (await serveEvents(req, res, operation, context)))
      return count('subscription', 'ok', sinceMs);
    if (mediaType === null || operation === null) return viaEngine(req, res, body, context, sinceMs);
    const single = await runSingle(operation, context);
    if (single === null) return viaEngine(req, res, body, context, sinceMs);
    count(single.kind, outcomeOf(single.result.errors), sinceMs);
    return respondResult(res, single.result, mediaType);
  };

  async function viaEngine(
    req: IncomingMessage,
    res: ServerResponse,
    body: Buffer | null,
    context: RequestContext,
    sinceMs: number | null,
    url = req.url ?? GRAPHQL_PATH,
  ): Promise<void> {
    const gone = new AbortController();
    res.once('close', () => gone.abort());
    const { method = 'GET' } = req;
    const request = new Request(`http://localhost${url}`, {
      method,
      headers: Object.entries(req.headers).flatMap(([name, value]) =>
        value === undefined ? [] : [[name, Array.isArray(value) ? value.join(', ') : value] as [string, string]],
      ),
      ...(body === null ? {} : { body: new Uint8Array(body) }),
      signal: gone.signal,
    });
    const response = await engine.yoga.fetch(request, context as never);
    const head = { ...BASE_HEADERS, ...Object.fromEntries(response.headers) };
    const mediaType = response.headers.get('content-type') ?? '';
    if (response.body === null || !/^(text\/event-stream|multipart\/)/.test(mediaType)) {
      const text = await response.text();
      const answer = answerOf(text);
      const status = response.status === 200 && answer !== null ? statusOf(answer, mediaType) : response.status;
      if (sinceMs !== null) count('unknown', outcomeOf(answer?.errors), sinceMs);
      res.writeHead(status, { ...head, ...retryHeaders(status) });
      res.end(text);
      return;
    }
    res.writeHead(response.status, head);
    if (sinceMs !== null) count('subscription', 'ok', sinceMs);
    const unwatch = watchConsumer(
      () => res.writableLength,
      () => {
        log.warn('a stream was dropped', { code: 'SLOW_CONSUMER' });
        // Nothing more gets through to a client that does not read.
        res.destroy();
      },
    );
    try {
      await pipeline(Readable.fromWeb(response.body as never), res);
    } catch (error) {
      // The client went away in the middle of a stream, which is how streams end.
      if (!gone.signal.aborted) throw error;
    } finally {
      unwatch();
    }
  }
}

function respondNesting(res: ServerResponse, sinceMs: number): void {
  count('unknown', 'bad_request', sinceMs);
  respondError(res, 400, `Variables may be nested ${MAX_VARIABLE_DEPTH} levels deep.`, 'BAD_USER_INPUT');
}

const isPreflight = ({ method, headers }: IncomingMessage): boolean =>
  method === 'OPTIONS' && headers.origin !== undefined && headers['access-control-request-method'] !== undefined;

const count = (operation: OperationKind, outcome: ReturnType<typeof outcomeOf>, sinceMs: number): void =>
  tell({ kind: 'operation', operation, outcome, seconds: (performance.now() - sinceMs) / 1_000 });

const asksForPage = (accept: string | undefined): boolean =>
  accept !== undefined && accept.includes('text/html') && !accept.includes('application/json');

const isJson = (contentType: string | undefined): boolean =>
  contentType !== undefined && /^application\/json *(;|$)/i.test(contentType);

const JSON_TYPE = 'application/json; charset=utf-8';
const RESPONSE_TYPE = 'application/graphql-response+json; charset=utf-8';

/** The answer's media type where the request leaves no choice; null where it has to be negotiated. */
function plainAnswerType(accept: string | undefined): string | null {
  if (accept === undefined || accept === '*/*' || accept === 'application/json') return JSON_TYPE;
  return accept === 'application/graphql-response+json' ? RESPONSE_TYPE : null;
}

/** @returns undefined for what is no JSON. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What a body asks for; null where the engine has to look at it, which also answers what is wrong. */
function operationOf(params: unknown, documents: PersistedDocuments | null): SingleOperation | null {
  if (!isRecord(params)) return null;
  const { variables, operationName } = params;
  const query = textOf(params, documents);
  if (query === null) return null;
  const plainVariables = variables === undefined || variables === null || isRecord(variables);
  const plainName = operationName === undefined || operationName === null || typeof operationName === 'string';
  if (!plainVariables || !plainName) return null;
  return { query, variables: variables ?? undefined, operationName: operationName ?? undefined };
}

/** The text of the document that is given or named. */
function textOf(params: Record<string, unknown>, documents: PersistedDocuments | null): string | null {
  const { query } = params;
  if (typeof query === 'string') return Object.hasOwn(params, 'extensions') ? null : query;
  try {
    return query === undefined ? (documents?.textOf(params) ?? null) : null;
  } catch {
    return null;
  }
}

function respondResult(res: ServerResponse, answer: ExecutionResult, mediaType: string): void {
  const { errors, ...result } = answer;
  const status = statusOf(answer, mediaType);
  const text = JSON.stringify(errors === undefined ? result : { ...result, errors: errors.map(formatError) });
  res.writeHead(status, {
    'content-type': mediaType,
    'content-length': Buffer.byteLength(text),
    ...BASE_HEADERS,
    ...retryHeaders(status),
  });
  res.end(text);
}
