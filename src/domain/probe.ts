import sql from 'sql-template-tag';
import { DomainError } from '../errors.js';
import type { Deps } from './deps.js';
import { checkGrant } from './grant-check.js';
import type { Refresher } from './refresh.js';

/** Probes that one process has under way at once. */
const BATCH = 16;

/**
 * Asks the provider about connections whose turn it is: what ended there is found also where no webhook tells.
 *
 * The turn is moved on before anything is asked, so several processes share the work, and one that dies costs a turn.
 * A token that has expired says nothing; its refresh will.
 *
 * @returns whether more may be due.
 */
export async function probeDue(deps: Deps & { refresher: Refresher }): Promise<boolean> {
  const { probeIntervalSeconds } = deps.settings;
  if (probeIntervalSeconds === null) return false;
  const due = await deps.db.query<{ grantId: string; wanted: boolean }>(sql`
    UPDATE credential c SET next_probe_at = now() + make_interval(secs => ${probeIntervalSeconds} * (0.75 + random() / 2))
    FROM provider_grant g
    WHERE g.id = c.grant_id AND c.grant_id IN (
      SELECT grant_id FROM credential WHERE next_probe_at <= now()
      ORDER BY next_probe_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
    RETURNING c.grant_id AS "grantId",
      c.expires_at > now() AND g.health_status IN ('HEALTHY', 'DEGRADED') AS wanted`);
  await Promise.all(due.filter(({ wanted }) => wanted).map(({ grantId }) => probe(deps, grantId)));
  return due.length === BATCH;
}

async function probe(deps: Deps & { refresher: Refresher }, grantId: string): Promise<void> {
  try {
    await checkGrant(deps, grantId);
  } catch (error) {
    // Ended meanwhile, or the provider could not be asked: the next turn comes.
    if (error instanceof DomainError) deps.log.debug('a probe found nothing out', { grantId, errorName: error.name });
    else deps.log.error('a probe failed', { grantId, job: 'probe-due' }, error);
  }
}
