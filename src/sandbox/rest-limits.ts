import { json, type Reply } from './http.js';
import type { RateLabel } from './rest.js';
import { nowMs, type World } from './world.js';

/** Requests that an account made in the second and the day that run. */
interface Count {
  second: number;
  inSecond: number;
  day: number;
  inDay: number;
}

const DAY_MS = 86_400_000;

/** In memory: a sandbox that starts again begins a new second. */
const counts = new WeakMap<World, Map<string, Count>>();

/**
 * Counts a request against the limits of its account, which all apps share, and says how they stand.
 *
 * @returns the headers to send with the answer, and the refusal to send instead of one.
 * @see https://developers.zoom.us/docs/api/rate-limits/
 */
export function takeTurn(
  world: World,
  accountId: string,
  label: RateLabel,
): { headers: Record<string, string>; refusal: Reply | null } {
  const { lightPerSecond, mediumPerSecond, requestsPerDay, rateLimitHeaders } = world.state.knobs;
  const perSecond = label === 'Light' ? lightPerSecond : mediumPerSecond;
  const count = countOf(world, `${accountId}/${label}`);
  const isDayOver = requestsPerDay !== null && count.inDay >= requestsPerDay;
  const isSecondOver = perSecond !== null && count.inSecond >= perSecond;
  if (!isDayOver && !isSecondOver) {
    count.inSecond += 1;
    count.inDay += 1;
  }
  // The limit that is nearer is told; without any, what kind of call it was.
  const isDaily = isDayOver || (requestsPerDay !== null && perSecond === null);
  const [limit, used] = isDaily ? [requestsPerDay, count.inDay] : [perSecond, count.inSecond];
  const headers: Record<string, string> = rateLimitHeaders
    ? {
        'x-ratelimit-category': label,
        'x-ratelimit-type': isDaily ? 'Daily-limit' : 'QPS',
        ...(limit === null
          ? {}
          : { 'x-ratelimit-limit': String(limit), 'x-ratelimit-remaining': String(Math.max(0, limit - used)) }),
      }
    : {};
  if (isDayOver) {
    const again = new Date((count.day + 1) * DAY_MS).toISOString();
    const message =
      'You have reached the maximum daily rate limit for this API. Refer to the response header for details on when you can make another request.';
    const reply = json(429, { code: 429, message }, 'daily-limit');
    return { headers: { ...headers, 'retry-after': again }, refusal: reply };
  }
  if (!isSecondOver) return { headers, refusal: null };
  const message = 'You have reached the maximum per-second rate limit for this API. Try again later.';
  return { headers, refusal: json(429, { code: 429, message }, 'second-limit') };
}

function countOf(world: World, key: string): Count {
  let all = counts.get(world);
  if (all === undefined) counts.set(world, (all = new Map()));
  const now = nowMs(world);
  const [second, day] = [Math.floor(now / 1_000), Math.floor(now / DAY_MS)];
  const count = all.get(key) ?? { second, inSecond: 0, day, inDay: 0 };
  if (count.second !== second) Object.assign(count, { second, inSecond: 0 });
  if (count.day !== day) Object.assign(count, { day, inDay: 0 });
  all.set(key, count);
  return count;
}
