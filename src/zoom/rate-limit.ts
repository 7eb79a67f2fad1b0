/** What an answer tells about the limit that its account is under. Zoom sends this at times and promises it nowhere. */
export interface RateLimit {
  per: 'second' | 'day';
  /** Requests allowed, and those left of them; null where it does not say. */
  limit: number | null;
  remaining: number | null;
}

type Headers = Record<string, string | string[] | undefined>;

/**
 * Reads `X-RateLimit-Type`, `-Limit` and `-Remaining`; null without a type that is known.
 *
 * @see https://developers.zoom.us/docs/api/rate-limits/ (read November 2026; the headers are from its older versions)
 */
export function readRateLimit(headers: Headers): RateLimit | null {
  const type = headers['x-ratelimit-type'];
  if (type !== 'QPS' && type !== 'Daily-limit') return null;
  return {
    per: type === 'QPS' ? 'second' : 'day',
    limit: countOf(headers['x-ratelimit-limit']),
    remaining: countOf(headers['x-ratelimit-remaining']),
  };
}

const countOf = (value: string | string[] | undefined): number | null =>
  typeof value === 'string' && /^\d{1,9}$/.test(value) ? Number(value) : null;
