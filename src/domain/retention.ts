import sql from 'sql-template-tag';
import type { Deps } from './deps.js';
import { expireEvents } from './health-event.js';

const SESSION_DAYS = 7;
/** As long as somebody may still ask why a session was refused. */
const FRONTEND_SESSION_DAYS = 1;
/** Above the hours over which the provider repeats a delivery. */
const WEBHOOK_DAYS = 7;
/** By then the provider has let an unused token expire, so there is nothing left to revoke. */
const REFRESH_TOKEN_DAYS = 90;

/**
 * Removes what has served its time: secrets of trips that were not finished as soon as they are over, the trips
 * themselves and the memory of delivered webhooks after a week, frontend sessions a day after their end, health
 * events after the days of the setting.
 */
export async function purgeExpired(deps: Pick<Deps, 'db' | 'settings'>): Promise<void> {
  await deps.db.query(sql`
    UPDATE authorization_session SET sealed_code = NULL, sealed_code_verifier = NULL, state_hash = NULL,
      browser_hash = NULL, connect_code_hash = NULL
    WHERE status IN ('PENDING', 'AWAITING_COMPLETION') AND expires_at < now() - interval '1 minute'
      AND (sealed_code IS NOT NULL OR sealed_code_verifier IS NOT NULL)`);
  await deps.db.query(sql`
    DELETE FROM authorization_session WHERE expires_at < now() - make_interval(days => ${SESSION_DAYS})`);
  await deps.db.query(sql`
    DELETE FROM frontend_session WHERE expires_at < now() - make_interval(days => ${FRONTEND_SESSION_DAYS})`);
  await deps.db.query(sql`
    DELETE FROM provider_revocation WHERE created_at < now() - make_interval(days => ${REFRESH_TOKEN_DAYS})`);
  await deps.db.query(sql`
    DELETE FROM webhook_event WHERE received_at < now() - make_interval(days => ${WEBHOOK_DAYS})`);
  await expireEvents(deps.db, deps.settings.eventRetentionDays);
}
