import sql from 'sql-template-tag';
import type { Database } from '../database/database.js';
import { noteAudit } from './audit.js';
import {
  asJson,
  deploymentNames,
  type DeploymentNames,
  findMismatch,
  type Mismatch,
  readDeployment,
} from './deployment.js';
import { skipLostPositions } from './health-event.js';
import { placeCanaries } from './refresh-canary.js';

/** Processes renew their sign of life every few seconds; one that is silent for so long has ended. */
const ALIVE_SECONDS = 30;

/** Another deployment works on this very database, or did a moment ago. */
export class DeploymentAliveError extends Error {
  /** How long it has been silent. */
  readonly silentSeconds: number;

  constructor(silentSeconds: number) {
    super(`A deployment of this database was alive ${Math.round(silentSeconds)} s ago.`);
    this.name = 'DeploymentAliveError';
    this.silentSeconds = silentSeconds;
  }
}

export interface Adoption {
  /** False: it is this deployment's already, and nothing was changed. */
  adopted: boolean;
  /** What kept it apart until now. */
  mismatch: Mismatch | null;
  /** About when the backup was made: the last sign of life in it. Null where there is none. */
  aliveAt: Date | null;
  /** Apps whose refreshes wait for that of one connection. */
  canaries: number;
}

/**
 * Makes the database this deployment's own, in one transaction. What became of its tokens since the backup cannot be
 * known: access tokens are probed at once, of each app one refresh goes first, and cursors of events that the backup
 * lacks are told to be lost.
 *
 * @param options `restored`: also where nothing shows that it is a copy, such as a snapshot that took its origin's
 *   place. `force`: also while another deployment shows signs of life.
 * @throws {DeploymentAliveError} nothing was changed.
 */
export async function adoptDatabase(
  db: Pick<Database, 'transaction' | 'identity'>,
  names: DeploymentNames,
  { restored = false, force = false }: { restored?: boolean; force?: boolean } = {},
): Promise<Adoption> {
  const own = { ...deploymentNames(names), database: await db.identity() };
  return db.transaction(async (tx) => {
    const row = await readDeployment(tx, { lock: true });
    const mismatch = row === undefined ? null : findMismatch(row, own);
    if (row !== undefined && mismatch === null && !restored) {
      return { adopted: false, mismatch, aliveAt: null, canaries: 0 };
    }
    if (row !== undefined && row.silentSeconds < ALIVE_SECONDS && !force) {
      throw new DeploymentAliveError(row.silentSeconds);
    }
    const [former] = await tx.query<{ aliveAt: Date }>(sql`SELECT alive_at AS "aliveAt" FROM deployment WHERE id = 1`);
    await tx.query(sql`
      INSERT INTO deployment (id, deployment_id, public_url, database, alive_at, adopted_at)
      VALUES (1, ${own.deploymentId}, ${own.publicUrl}, ${asJson(own.database)}::jsonb, now(), now())
      ON CONFLICT (id) DO UPDATE SET deployment_id = excluded.deployment_id, public_url = excluded.public_url,
        database = excluded.database, alive_at = excluded.alive_at, adopted_at = excluded.adopted_at`);
    if (row !== undefined) await skipLostPositions(tx);
    await tx.query(sql`
      UPDATE credential c SET next_probe_at = now() FROM provider_grant g
      WHERE g.id = c.grant_id AND c.expires_at > now() AND g.health_status IN ('HEALTHY', 'DEGRADED')`);
    noteAudit(tx, { action: 'deployment.adopted', reason: mismatch, reference: own.deploymentId });
    return { adopted: true, mismatch, aliveAt: former?.aliveAt ?? null, canaries: await placeCanaries(tx) };
  });
}
