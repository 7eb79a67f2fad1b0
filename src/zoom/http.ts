import { Agent, type Dispatcher } from 'undici';
import type { Clock } from '../clock.js';
import { addToSpan, inSpan } from '../diagnostics.js';
import { ZoomRateLimitedError, ZoomResponseInvalidError, ZoomUnavailableError, type ZoomError } from './errors.js';
import { readBody, type Body } from './body.js';
import { pathTemplate } from './path-template.js';
import { readRateLimit, type RateLimit } from './rate-limit.js';
import { parseRetryAfter } from './retry-after.js';

// Generous for a healthy Zoom, and each alone well within the deadline of 15 s that bounds them together.
const CONNECT_TIMEOUT_MS = 3_000;
const HEADERS_TIMEOUT_MS = 10_000;
const BODY_TIMEOUT_MS = 5_000;

const GATEWAY_STATUSES: ReadonlySet<number> = new Set([408, 502, 504]);

/** An honest answer is a few KiB; more than this is not one, and is not held in memory. */
const MAX_BODY_BYTES = 64 * 1024;

/**
 * How much of its deadline a request may spend before it meets a connected socket. Sent later than that, it would
 * likely be abandoned on its way, and an abandoned refresh can cost the grant; unsent, it costs nothing.
 */
const MAX_WAIT_SHARE = 1 / 3;

export interface HttpRequest {
  method: 'GET' | 'POST';
  url: URL;
  headers: Record<string, string>;
  body: string | null;
  /** Longest answer that is read; 64 KiB unless told. */
  maxAnswerBytes?: number;
}

export interface HttpAnswer {
  /** 200 to 599: informational answers are skipped. */
  status: number;
  retryAfterSeconds: number | null;
  rateLimit: RateLimit | null;
  body: Body;
}

export interface Http {
  /**
   * Sends `request` once, follows no redirect, and resolves with whatever was answered, failures included.
   *
   * @throws {ZoomUnavailableError} no whole answer arrived in time. `not-sent` means that no byte was written, and that
   * none will be, for instance after waiting a third of the deadline for a connection; from the moment the request is handed to a connected socket the stage is `unanswered`, also when the
   * headers of an answer arrived and its body broke off.
   */
  send(request: HttpRequest): Promise<HttpAnswer>;
  /** Resolves when the requests under way have ended. */
  close(): Promise<void>;
}

/**
 * @param connections sockets to each origin at most: when Zoom hangs, further requests wait for one, as long as
 * `MAX_WAIT_SHARE` lets them.
 */
export function createHttp({
  deadlineMs,
  connections,
  clock,
}: {
  deadlineMs: number;
  connections: number;
  clock: Clock;
}): Http {
  const agent = new Agent({
    connect: { timeout: CONNECT_TIMEOUT_MS },
    headersTimeout: HEADERS_TIMEOUT_MS,
    bodyTimeout: BODY_TIMEOUT_MS,
    connections,
    pipelining: 1,
  });
  return {
    send: async (request) => {
      const { method, url } = request;
      // Who is asked, and never what: queries, bodies and headers hold secrets.
      const facts = () => ({ method, host: url.hostname, path: pathTemplate(url.pathname) });
      const work = async () => {
        const answer = await dispatchOnce(agent, request, deadlineMs, clock);
        addToSpan({ status: answer.status });
        return answer;
      };
      return inSpan('provider', work, facts);
    },
    close: () => agent.close(),
  };
}

/**
 * Uses the dispatcher itself, not `undici.request`: only here is it told when a request meets its socket, and
 * `request` does not heed its signal while it waits for a connection.
 */
function dispatchOnce(agent: Agent, request: HttpRequest, deadlineMs: number, clock: Clock): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    let stage: 'not-sent' | 'unanswered' = 'not-sent';
    let settled = false;
    let controller: Dispatcher.DispatchController | undefined;
    let status = 0;
    let headers: Record<string, string | string[] | undefined> = {};
    let chunks: Buffer[] = [];
    let bytes = 0;

    const settle = (): boolean => {
      if (settled) return false;
      settled = true;
      clearTimeout(patience);
      clearTimeout(deadline);
      return true;
    };
    const fail = (): void => {
      if (!settle()) return;
      reject(new ZoomUnavailableError(stage));
      controller?.abort(new Error('abandoned'));
    };
    const finish = (content: Uint8Array | null): void => {
      if (!settle()) return;
      const retryAfterSeconds = parseRetryAfter(headers['retry-after'], clock.now());
      resolve({ status, retryAfterSeconds, rateLimit: readRateLimit(headers), body: readBody(headers, content) });
    };
    const patience = setTimeout(() => {
      if (stage === 'not-sent') fail();
    }, deadlineMs * MAX_WAIT_SHARE);
    const deadline = setTimeout(fail, deadlineMs);

    agent.dispatch(
      {
        origin: request.url.origin,
        path: request.url.pathname + request.url.search,
        method: request.method,
        // Compressed answers are refused, so that a small answer cannot unfold into a large one.
        headers: {
          accept: 'application/json',
          'accept-encoding': 'identity',
          'user-agent': 'latchkey',
          ...request.headers,
        },
        body: request.body,
      },
      {
        onRequestStart(started) {
          // Nothing is written yet. Too late, or a second try by the dispatcher: then nothing shall be.
          if (settled || stage !== 'not-sent') {
            started.abort(new Error('abandoned'));
            return;
          }
          controller = started;
          stage = 'unanswered';
        },
        onResponseStart(_controller, statusCode, answered) {
          // Called for informational answers too; the final one comes last.
          status = statusCode;
          headers = answered;
        },
        onResponseData(started, chunk) {
          bytes += chunk.byteLength;
          if (bytes <= (request.maxAnswerBytes ?? MAX_BODY_BYTES)) {
            chunks.push(chunk);
            return;
          }
          chunks = [];
          finish(null);
          started.abort(new Error('abandoned'));
        },
        onResponseEnd() {
          finish(Buffer.concat(chunks));
        },
        // The error is not kept: what it says may quote the answer.
        onResponseError() {
          fail();
        },
      },
    );
  });
}

/** What a status means at every endpoint of Zoom's; null for those that only the endpoint can judge. */
export function commonFailure(answer: HttpAnswer): ZoomError | null {
  const { status, retryAfterSeconds } = answer;
  if (status === 429) return new ZoomRateLimitedError(retryAfterSeconds);
  // Said by something in front of Zoom that waited for it: what stood behind may have done the work.
  if (GATEWAY_STATUSES.has(status)) return new ZoomUnavailableError('unanswered', retryAfterSeconds);
  if (status >= 500) return new ZoomUnavailableError('answered', retryAfterSeconds);
  // No endpoint of Zoom's redirects. Whatever does may stand behind Zoom, so the request may have been carried out.
  if (status >= 300 && status < 400) return new ZoomResponseInvalidError('redirect');
  return null;
}

export function isSuccess(answer: HttpAnswer): boolean {
  return answer.status >= 200 && answer.status < 300;
}
