import sql from 'sql-template-tag';
import type { Deps } from './deps.js';

/** Below this nobody needs to know: a retry or a pause of a few seconds is part of the work. */
const WORTH_TELLING_SECONDS = 60;

/** How far the refreshes of one app are behind. */
export interface RefreshLag {
  appId: string;
  /** How long the credential that waits longest has been due. */
  seconds: number;
  /** Its refreshes wait for the provider to take the app's own credentials again. */
  hasIncident: boolean;
}

/** Apps with something due, by the database's clock. One look at an index for each app. */
export function readLag(deps: Pick<Deps, 'db'>): Promise<RefreshLag[]> {
  return deps.db.query<RefreshLag>(sql`
    SELECT a.id AS "appId", extract(epoch FROM now() - due.next_refresh_at)::float8 AS seconds,
      a.incident_reason IS NOT NULL AS "hasIncident"
    FROM provider_app a CROSS JOIN LATERAL (
      SELECT next_refresh_at FROM credential WHERE app_id = a.id AND next_refresh_at <= now()
      ORDER BY next_refresh_at LIMIT 1
    ) due`);
}

/** Tells the operator when scheduled refreshes do not keep up. */
export async function watchLag(deps: Pick<Deps, 'db' | 'log'>): Promise<void> {
  for (const { appId, seconds } of await readLag(deps)) {
    if (seconds < WORTH_TELLING_SECONDS) continue;
    deps.log.warn('refreshes of a provider app are behind', { appId, durationMs: Math.round(seconds * 1_000) });
  }
}
