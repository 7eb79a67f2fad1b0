import sql from 'sql-template-tag';
import type { Deps } from './deps.js';

/** From here on an operator should know. */
const WORTH_TELLING_SECONDS = 2;

/**
 * How far this process's clock is ahead of the database's; negative when it is behind. What the question itself took is
 * taken off, so a slow answer is not mistaken for a wrong clock.
 */
export async function readClockOffset({ db, clock }: Pick<Deps, 'db' | 'clock'>): Promise<number> {
  const askedMs = clock.now().getTime();
  const [row] = await db.query<{ nowMs: number }>(sql`
    SELECT extract(epoch FROM clock_timestamp())::float8 * 1000 AS "nowMs"`);
  const answeredMs = clock.now().getTime();
  if (row === undefined) throw new Error('The database has no time.');
  const { nowMs } = row;
  if (nowMs > answeredMs) return (answeredMs - nowMs) / 1_000;
  return nowMs < askedMs ? (askedMs - nowMs) / 1_000 : 0;
}

/** Tells the operator when the clocks of this process and the database differ. */
export async function watchClock(deps: Pick<Deps, 'db' | 'clock' | 'log'>): Promise<void> {
  const seconds = await readClockOffset(deps);
  if (Math.abs(seconds) <= WORTH_TELLING_SECONDS) return;
  deps.log.warn('the clock of this process and that of the database differ', {
    durationMs: Math.round(seconds * 1_000),
  });
}
