/**
 * When the scheduler takes a token up: a margin before it expires, at most half of its life, and up to a fifth of the
 * margin earlier at random, so that tokens issued together are not refreshed together.
 */
export function refreshDelaySeconds(lifeSeconds: number, marginSeconds: number, random = Math.random()): number {
  const margin = Math.min(marginSeconds, lifeSeconds / 2);
  return Math.max(0, lifeSeconds - margin - random * margin * 0.2);
}

/**
 * When a connection is probed: after the interval, give or take a quarter at random; null where the next refresh comes
 * first, which tells as much.
 */
export function probeDelaySeconds(
  refreshDelay: number,
  interval: number | null,
  random = Math.random(),
): number | null {
  if (interval === null) return null;
  const delay = interval * (0.75 + random / 2);
  return delay < refreshDelay ? delay : null;
}
