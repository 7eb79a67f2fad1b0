import { createHmac, timingSafeEqual } from 'node:crypto';
import type { Secret } from '../secret.js';
import { isMembers, parseObject, type Members } from './body.js';

/** A header as it came. An array is one that was repeated, which Zoom does not do. */
type HeaderValue = string | readonly string[] | null | undefined;

export type WebhookVerdict =
  /** `secret` is the one that verified: during a rotation the answer to a URL validation has to use the same. */
  { result: 'ok'; secret: Secret } | { result: 'bad-signature' } | { result: 'stale-timestamp' };

/**
 * Whether Zoom signed exactly these bytes, and lately. Pure; looks at the body before anything parses it.
 *
 * `stale-timestamp` is said only of a right signature, so it points to a skewed clock or a replay, not to a forger.
 *
 * @param signature `x-zm-signature`: `v0=` and the HMAC-SHA256, in lower-case hex, of `v0:{timestamp}:{body}`.
 * @param timestamp `x-zm-request-timestamp`: seconds since 1970; 12 digits and more are read as milliseconds.
 * @param secrets the app's webhook secrets that are still good. Empty ones are passed over: anyone could sign with them.
 * @param toleranceSeconds how far `timestamp` may be from `now`, in either direction, inclusive.
 * @see https://developers.zoom.us/docs/api/webhooks/#verify-with-zooms-header
 */
export function verifyWebhook({
  rawBody,
  signature,
  timestamp,
  secrets,
  now,
  toleranceSeconds = 300,
}: {
  rawBody: Uint8Array;
  signature: HeaderValue;
  timestamp: HeaderValue;
  secrets: readonly Secret[];
  now: Date;
  toleranceSeconds?: number;
}): WebhookVerdict {
  if (typeof signature !== 'string' || typeof timestamp !== 'string') return { result: 'bad-signature' };
  const digest = /^v0=([0-9a-f]{64})$/.exec(signature)?.[1];
  if (digest === undefined || !/^\d{1,15}$/.test(timestamp)) return { result: 'bad-signature' };

  const claimed = Buffer.from(digest, 'hex');
  let verified: Secret | undefined;
  for (const secret of secrets) {
    if (secret.reveal() === '') continue;
    const expected = createHmac('sha256', secret.reveal()).update(`v0:${timestamp}:`).update(rawBody).digest();
    // Every secret is tried, so that the time taken does not tell which one signed.
    if (timingSafeEqual(expected, claimed)) verified ??= secret;
  }
  if (verified === undefined) return { result: 'bad-signature' };

  const signedAt = Number(timestamp) * (timestamp.length >= 12 ? 1 : 1_000);
  const isStale = Math.abs(now.getTime() - signedAt) > toleranceSeconds * 1_000;
  return isStale ? { result: 'stale-timestamp' } : { result: 'ok', secret: verified };
}

/**
 * The answer to `endpoint.url_validation`, or null for a token that must not be answered.
 *
 * The answer is an HMAC under the very secret that signs webhooks, so it could serve as a signature: `v0:{time}:{body}`
 * as token would be answered with the signature of that body. A token therefore has no colon in it. Call this only for
 * a request that itself passed `verifyWebhook`, with the secret that passed it.
 *
 * @param plainToken `payload.plainToken` as it came.
 */
export function answerUrlValidation(
  plainToken: unknown,
  secret: Secret,
): { plainToken: string; encryptedToken: string } | null {
  if (typeof plainToken !== 'string' || !/^[A-Za-z0-9_-]{8,128}$/.test(plainToken)) return null;
  return { plainToken, encryptedToken: createHmac('sha256', secret.reveal()).update(plainToken).digest('hex') };
}

export interface ZoomWebhookEvent {
  /** Zoom's name for it, such as `app_deauthorized`. */
  event: string;
  /** When it happened by Zoom's clock, to the millisecond or, in one of Zoom's forms, the second. Null if not told. */
  eventTs: Date | null;
  payload: Members;
}

/**
 * Reads a verified body. Null for anything but a JSON object with an `event` name and a `payload` object.
 *
 * Zoom puts `event_ts` at the top or inside the payload, as milliseconds or as `YYYY-MM-DD HH:mm:ss` in UTC; the one
 * at the top counts if it can be read.
 */
export function parseWebhook(rawBody: Uint8Array): ZoomWebhookEvent | null {
  const body = parseObject(rawBody);
  if ('fault' in body) return null;
  const { event, event_ts: eventTs, payload } = body.members;
  if (typeof event !== 'string' || event === '' || !isMembers(payload)) return null;
  return { event, eventTs: readTime(eventTs) ?? readTime(payload['event_ts']), payload };
}

const DATE_TIME = /^(\d{4}-\d{2}-\d{2})[T ](\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?)(Z|[+-]\d{2}:\d{2})?$/;

/** Milliseconds since 1970, or a date and time: in UTC unless it names its zone. Null if it is neither. */
export function readTime(value: unknown): Date | null {
  let ms = Number.NaN;
  if (typeof value === 'number' && value > 0) ms = value;
  if (typeof value === 'string') {
    const [, date, time, zone = 'Z'] = DATE_TIME.exec(value) ?? [];
    if (date !== undefined) ms = Date.parse(`${date}T${time}${zone}`);
  }
  const at = new Date(ms);
  return Number.isNaN(at.getTime()) ? null : at;
}
