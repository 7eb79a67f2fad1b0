import { setTimeout } from 'node:timers/promises';
import { readCounts, type Variant } from './refresh-round.js';

export interface StormSample {
  seconds: number;
  /** Grants not yet renewed. */
  remaining: number;
  /** How long the credential that waits longest has been due; 0: none is. */
  lagSeconds: number;
}

export interface Storm {
  grants: number;
  lifeLeftSeconds: number;
  /** From the moment all were due until the last was stored. */
  seconds: number;
  /** Renewed after their tokens had expired, or not at all. */
  expired: number;
  twice: number;
  samples: StormSample[];
}

/** Makes every grant due at one moment, `lifeLeftSeconds` before its token expires, and waits until none is. */
export async function runStorm(variant: Variant, lifeLeftSeconds: number): Promise<Storm> {
  const { db, url } = variant;
  const before = await readCounts(url);
  const due = await db.query(
    `UPDATE credential SET next_refresh_at = now(), expires_at = now() + make_interval(secs => $1)`,
    [lifeLeftSeconds],
  );
  const grants = due.rowCount ?? 0;
  // The moment is the statement's: while it ran nobody could see what it made due.
  const { rows: begun } = await db.query<{ at: Date }>(
    'SELECT max(next_refresh_at) AS at FROM credential WHERE next_refresh_at <= now()',
  );
  const at = begun[0]?.at ?? new Date();
  const samples: StormSample[] = [];
  for (let lag = 1, next = performance.now(); lag > 0; next += 1_000) {
    await setTimeout(Math.max(0, next - performance.now()));
    const { rows } = await db.query<{ seconds: number; lag: number | null }>(
      `SELECT extract(epoch FROM clock_timestamp() - $1::timestamptz)::float8 AS seconds,
        (SELECT extract(epoch FROM clock_timestamp() - next_refresh_at)::float8 FROM credential
          WHERE app_id = (SELECT id FROM provider_app) AND next_refresh_at <= now()
          ORDER BY next_refresh_at LIMIT 1) AS lag`,
      [at],
    );
    lag = rows[0]?.lag ?? 0;
    const { count } = await readCounts(url);
    const remaining = lag === 0 ? 0 : Math.max(0, grants - (count - before.count));
    samples.push({ seconds: rows[0]?.seconds ?? 0, remaining, lagSeconds: lag });
  }
  const { rows } = await db.query<{ expired: string; seconds: number }>(
    `SELECT count(*) FILTER (WHERE last_refreshed_at IS NULL OR last_refreshed_at < $1
        OR last_refreshed_at >= $1::timestamptz + make_interval(secs => $2)) AS expired,
      extract(epoch FROM max(last_refreshed_at) - $1::timestamptz)::float8 AS seconds FROM credential`,
    [at, lifeLeftSeconds],
  );
  return {
    grants,
    lifeLeftSeconds,
    seconds: rows[0]?.seconds ?? 0,
    expired: Number(rows[0]?.expired),
    twice: (await readCounts(url)).twice - before.twice,
    samples,
  };
}
