const HTTP_DATE = /^(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} GMT$/;

/**
 * Seconds to wait, 0 to `maxSeconds`: from whole seconds or an HTTP-date (RFC 9110 §10.2.3). A date in the past is 0;
 * anything else is null.
 */
export function readRetryAfter(
  value: string | string[] | undefined,
  { now, maxSeconds }: { now: Date; maxSeconds: number },
): number | null {
  if (typeof value !== 'string') return null;
  const text = value.trim();
  const seconds = /^\d{1,15}$/.test(text)
    ? Number(text)
    : HTTP_DATE.test(text)
      ? Math.ceil((Date.parse(text) - now.getTime()) / 1_000)
      : Number.NaN;
  return Number.isNaN(seconds) ? null : Math.min(Math.max(seconds, 0), maxSeconds);
}
