import sql from 'sql-template-tag';
import type { Deps } from './deps.js';

/** While an incident is open, one refresh per interval finds out whether it is over. */
export const INCIDENT_PROBE_SECONDS = 30;

/**
 * Opens the incident of an app whose own credentials the provider refuses: its refreshes pause, and no grant is marked,
 * because nothing was said about any grant. Never rejects: what it is a remark on must go on.
 */
export const openIncident = (deps: Pick<Deps, 'db' | 'log'>, appId: string): Promise<void> =>
  remark(deps, appId, () => open(deps, appId));

/** The app's credentials were taken again. Never rejects. */
export const closeIncident = (deps: Pick<Deps, 'db' | 'log'>, appId: string): Promise<void> =>
  remark(deps, appId, () => close(deps, appId));

async function remark(deps: Pick<Deps, 'log'>, appId: string, write: () => Promise<void>): Promise<void> {
  try {
    await write();
  } catch (error) {
    deps.log.error('an incident of a provider app could not be recorded', { appId }, error);
  }
}

async function open(deps: Pick<Deps, 'db' | 'log'>, appId: string): Promise<void> {
  // Of several that find the same out, the first to lock the row sees it without an incident.
  const [opened] = await deps.db.query<{ isFirst: boolean }>(sql`
    WITH before AS (SELECT id, incident_reason IS NULL AS is_first FROM provider_app WHERE id = ${appId}::uuid FOR UPDATE)
    UPDATE provider_app a SET incident_reason = 'APP_REJECTED', incident_since = coalesce(a.incident_since, now()),
      incident_retry_at = now() + make_interval(secs => ${INCIDENT_PROBE_SECONDS})
    FROM before WHERE a.id = before.id RETURNING before.is_first AS "isFirst"`);
  if (opened?.isFirst) {
    deps.log.error('Zoom refuses the credentials of a provider app', { appId, reason: 'APP_REJECTED' });
  }
}

async function close(deps: Pick<Deps, 'db' | 'log'>, appId: string): Promise<void> {
  const closed = await deps.db.query(sql`
    UPDATE provider_app SET incident_reason = NULL, incident_since = NULL, incident_retry_at = NULL
    WHERE id = ${appId}::uuid AND incident_reason IS NOT NULL RETURNING id`);
  if (closed.length === 0) return;
  // What waited for the incident is due.
  await deps.db.query(sql`
    UPDATE credential SET retry_at = NULL, next_refresh_at = now()
    WHERE app_id = ${appId}::uuid AND failure_reason = 'APP_REJECTED' AND next_refresh_at IS NOT NULL`);
  deps.log.info('Zoom takes the credentials of a provider app again', { appId, reason: 'RECOVERED' });
}

/**
 * Whether a refresh of the app may be tried: always without an incident, otherwise for one caller per interval.
 *
 * @returns seconds to wait, 0 to go ahead.
 */
export async function waitForIncident(deps: Pick<Deps, 'db'>, appId: string): Promise<number> {
  const [claimed] = await deps.db.query(sql`
    UPDATE provider_app SET incident_retry_at = now() + make_interval(secs => ${INCIDENT_PROBE_SECONDS})
    WHERE id = ${appId}::uuid AND incident_reason IS NOT NULL AND incident_retry_at <= now() RETURNING id`);
  if (claimed !== undefined) return 0;
  const [app] = await deps.db.query<{ seconds: number | null }>(sql`
    SELECT CASE WHEN incident_reason IS NOT NULL
      THEN ceil(extract(epoch FROM incident_retry_at - now()))::int END AS seconds
    FROM provider_app WHERE id = ${appId}::uuid`);
  return Math.max(0, app?.seconds ?? 0);
}
