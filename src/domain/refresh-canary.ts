import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import type { Refresher } from './refresh.js';

/** After so many that were refused the others are not risked without an operator. */
const MAX_REFUSED = 3;
const RETRY_SECONDS = 20;
/** How long the probes of an app's access tokens go first. */
const PROBES_FIRST_SECONDS = 30;

/** Of the app `app_id`, the connection that was refreshed last: its token is the likeliest to be good still. */
const candidate = (appId: ReturnType<typeof sql>) => sql`
  SELECT c.grant_id FROM credential c JOIN provider_grant g ON g.id = c.grant_id
  WHERE c.app_id = ${appId} AND c.sealed_refresh_token IS NOT NULL AND g.health_status IN ('HEALTHY', 'DEGRADED')
  ORDER BY c.issued_at DESC LIMIT 1`;

/**
 * Has the refreshes of every app wait for one that goes first. A restored refresh token may be replaced already; if it is,
 * sending the others would not help, and may end what another deployment holds.
 *
 * @returns how many apps wait.
 */
export async function placeCanaries(tx: Sql): Promise<number> {
  await tx.query(sql`DELETE FROM refresh_canary`);
  const placed = await tx.query(sql`
    INSERT INTO refresh_canary (app_id, grant_id)
    SELECT a.id, chosen.grant_id FROM provider_app a CROSS JOIN LATERAL (${candidate(sql`a.id`)}) chosen
    RETURNING app_id`);
  return placed.length;
}

/** Lets the refreshes of all apps go, whatever became of those that went first. @returns how many waited. */
export async function releaseCanaries(db: Pick<Database, 'transaction'>): Promise<number> {
  return db.transaction(async (tx) => {
    const { length: count } = await tx.query(sql`DELETE FROM refresh_canary RETURNING app_id`);
    noteAudit(tx, { action: 'deployment.refreshes_released', count });
    return count;
  });
}

interface Canary {
  appId: string;
  grantId: string;
  tenantId: string | null;
  version: number | null;
}

/**
 * Sends the refreshes that go first, and lets an app's others follow one that worked. One that Zoom refuses is followed
 * by another, three at most. The turn is taken before anything is sent, so processes share the work.
 */
export async function tryCanaries(deps: Deps & { refresher: Refresher }): Promise<void> {
  const probes =
    deps.settings.probeIntervalSeconds === null
      ? sql`FALSE`
      : sql`EXISTS (SELECT 1 FROM credential p WHERE p.app_id = k.app_id AND p.next_probe_at <= now()
          AND p.expires_at > now()) AND k.created_at > now() - make_interval(secs => ${PROBES_FIRST_SECONDS})`;
  const due = await deps.db.query<Canary>(sql`
    UPDATE refresh_canary k SET retry_at = now() + make_interval(secs => ${RETRY_SECONDS})
    FROM refresh_canary o LEFT JOIN credential c ON c.grant_id = o.grant_id
    WHERE o.app_id = k.app_id AND k.grant_id IS NOT NULL AND k.retry_at <= now() AND NOT (${probes})
    RETURNING k.app_id AS "appId", k.grant_id AS "grantId", c.tenant_id AS "tenantId", c.version`);
  await Promise.all(due.map((canary) => tryOne(deps, canary)));
}

async function tryOne(deps: Deps & { refresher: Refresher }, canary: Canary): Promise<void> {
  const { appId, grantId, tenantId, version } = canary;
  if (tenantId !== null && version !== null) {
    await deps.refresher.refresh({ grantId, tenantId, version }, { force: true });
  }
  const [worked] = await deps.db.query(sql`
    DELETE FROM refresh_canary k USING credential c
    WHERE k.app_id = ${appId}::uuid AND c.grant_id = k.grant_id AND c.last_refreshed_at > k.created_at
    RETURNING k.app_id`);
  if (worked !== undefined) {
    deps.log.info('the first refresh after the restore worked; those of the app follow', { appId, grantId });
    return;
  }
  const [next] = await deps.db.query<{ grantId: string | null; refused: number }>(sql`
    UPDATE refresh_canary k SET refused = refused + 1, retry_at = now(),
      grant_id = CASE WHEN refused + 1 < ${MAX_REFUSED} THEN (${candidate(sql`k.app_id`)}) END
    WHERE k.app_id = ${appId}::uuid AND k.grant_id = ${grantId}::uuid AND NOT EXISTS (
      SELECT 1 FROM credential c JOIN provider_grant g ON g.id = c.grant_id
      WHERE c.grant_id = k.grant_id AND g.health_status IN ('HEALTHY', 'DEGRADED'))
    RETURNING k.grant_id AS "grantId", k.refused`);
  if (next === undefined || next.grantId !== null) return;
  if (next.refused < MAX_REFUSED) {
    await deps.db.query(sql`DELETE FROM refresh_canary WHERE app_id = ${appId}::uuid AND grant_id IS NULL`);
    return;
  }
  deps.log.error('refreshes of a provider app are held: the first ones after the restore were refused', {
    appId,
    count: next.refused,
  });
}
