import { isIP } from 'node:net';
import { Agent, buildConnector, request } from 'undici';
import type { Clock } from '../clock.js';
import { AddressNotAllowedError, createAddressGuard } from './address-guard.js';
import { readRetryAfter } from './retry-after.js';

/** Standard Webhooks asks for 15 to 30 s. */
export const DEADLINE_MS = 15_000;
const CONNECT_TIMEOUT_MS = 5_000;
/** What an answer says is not read; this much of it is taken off the wire, so that the connection can be used again. */
const MAX_ANSWER_BYTES = 16 * 1024;
const KEEP_ALIVE_MS = 10_000;
const MAX_RETRY_AFTER_SECONDS = 86_400;

/** What came of one attempt. */
export type SendOutcome =
  | { kind: 'answered'; httpStatus: number; retryAfterSeconds: number | null }
  /** Nothing, or no whole head of an answer, within the deadline. */
  | { kind: 'timed-out' }
  | { kind: 'connection-failed' }
  /** The address may not be sent to; nothing was sent. */
  | { kind: 'address-not-allowed' };

/** Sends webhooks to addresses that others have chosen. */
export interface WebhookSender {
  /** Why nothing would ever be sent there, as far as the address itself tells; null: it may be tried. */
  refusalOf(url: URL): 'INSECURE' | 'PRIVATE' | null;
  /**
   * Sends once and takes whatever is answered, redirects included, which are not followed. Names are resolved and
   * checked for each new connection. Never rejects.
   *
   * @param message `headers` and `body` as they are to be sent.
   */
  send(url: URL, message: { headers: Record<string, string>; body: string }): Promise<SendOutcome>;
  /** Resolves when what is under way has ended. */
  close(): Promise<void>;
}

export interface WebhookSenderOptions {
  clock: Clock;
  /** Ranges of addresses (CIDR) that are not public and may be sent to all the same. */
  allowPrivate: readonly string[];
  /** Whether http is refused. */
  httpsOnly: boolean;
  deadlineMs?: number;
}

/** An address in a URL stands in brackets where it is an IPv6 one. */
const hostOf = (hostname: string): string => hostname.replace(/^\[(.*)\]$/, '$1');

export function createWebhookSender(options: WebhookSenderOptions): WebhookSender {
  const { clock, allowPrivate, httpsOnly, deadlineMs = DEADLINE_MS } = options;
  const guard = createAddressGuard(allowPrivate);
  const connectOnly = buildConnector({ timeout: CONNECT_TIMEOUT_MS, lookup: guard.lookup });
  const connect: buildConnector.connector = (target, callback) => {
    // A number is connected to without being looked up.
    const host = hostOf(target.hostname);
    if (isIP(host) !== 0 && !guard.permits(host)) return callback(new AddressNotAllowedError(), null);
    return connectOnly(target, callback);
  };
  const agent = new Agent({
    connect,
    pipelining: 1,
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAliveMaxTimeout: KEEP_ALIVE_MS,
    headersTimeout: deadlineMs,
    bodyTimeout: deadlineMs,
  });

  const refusalOf: WebhookSender['refusalOf'] = (url) => {
    if (url.protocol !== 'https:' && (httpsOnly || url.protocol !== 'http:')) return 'INSECURE';
    const host = hostOf(url.hostname);
    return isIP(host) !== 0 && !guard.permits(host) ? 'PRIVATE' : null;
  };

  async function attempt(url: URL, message: { headers: Record<string, string>; body: string }, signal: AbortSignal) {
    const { statusCode, headers, body } = await request(url, {
      dispatcher: agent,
      method: 'POST',
      headers: { ...message.headers, 'accept-encoding': 'identity', 'user-agent': 'latchkey' },
      body: message.body,
      signal,
    });
    // The head decides. What follows is thrown away, and may break off.
    body.dump({ limit: MAX_ANSWER_BYTES, signal }).catch(() => undefined);
    const retryAfterSeconds = readRetryAfter(headers['retry-after'], {
      now: clock.now(),
      maxSeconds: MAX_RETRY_AFTER_SECONDS,
    });
    return { kind: 'answered', httpStatus: statusCode, retryAfterSeconds } as const;
  }

  const send: WebhookSender['send'] = async (url, message) => {
    if (refusalOf(url) !== null) return { kind: 'address-not-allowed' };
    const signal = AbortSignal.timeout(deadlineMs);
    // While it waits to be connected, a request does not heed its signal.
    const timedOut = new Promise<SendOutcome>((resolve) => {
      signal.addEventListener('abort', () => resolve({ kind: 'timed-out' }), { once: true });
    });
    const sent = attempt(url, message, signal).catch((error: unknown): SendOutcome => outcomeOf(error, signal));
    return Promise.race([sent, timedOut]);
  };

  return { refusalOf, send, close: () => agent.close() };
}

/** The error itself goes no further: what it says may quote the address or the answer. */
function outcomeOf(error: unknown, signal: AbortSignal): SendOutcome {
  if (error instanceof AddressNotAllowedError) return { kind: 'address-not-allowed' };
  const { code } = error as NodeJS.ErrnoException;
  const isLate = signal.aborted || code === 'UND_ERR_HEADERS_TIMEOUT' || code === 'UND_ERR_CONNECT_TIMEOUT';
  return { kind: isLate ? 'timed-out' : 'connection-failed' };
}
