import sql from 'sql-template-tag';
import type { Database, DatabaseIdentity, Sql } from '../database/database.js';
import { isOutage } from '../database/outage.js';
import type { Log } from '../log.js';

/** Who this process belongs to: as far as it is told, null where it is not. */
export interface DeploymentNames {
  /** As the setting names it. */
  deploymentId: string | null;
  publicUrl: string | null;
}

export interface DeploymentIdentity extends DeploymentNames {
  database: DatabaseIdentity | null;
}

/** Why the database is not taken for this deployment's own. */
export type Mismatch = 'other_deployment' | 'other_database';

/** Whether this process may speak to the provider for what the database holds. */
export interface Deployment {
  /** While true nothing is asked of the provider: its tokens may be another deployment's, which goes on replacing them. */
  isQuarantined(): boolean;
  /** Looks whether the database is this deployment's, and tells others that it lives. An outage changes nothing. */
  check(): Promise<void>;
}

/** How old the sign of life may become before it is renewed. */
const RENEW_SECONDS = 4;

const LOOPBACK = /^https?:\/\/(localhost|127\.0\.0\.1|\[::1\])(:\d+)?$/;

/** A public URL on loopback is everybody's, so it tells nothing. */
export const deploymentNames = (given: DeploymentNames): DeploymentNames => ({
  ...given,
  publicUrl: given.publicUrl === null || LOOPBACK.test(given.publicUrl) ? null : given.publicUrl,
});

/**
 * Whether a deployment's row speaks of the deployment and the database that look at it. What one of the two does not know
 * is not compared: a worker needs no public URL, and an id may be introduced while the former version still runs.
 */
export function findMismatch(row: DeploymentIdentity, own: DeploymentIdentity): Mismatch | null {
  const knowsIds = row.deploymentId !== null && own.deploymentId !== null;
  const [left, right] = knowsIds ? [row.deploymentId, own.deploymentId] : [row.publicUrl, own.publicUrl];
  if (left !== null && right !== null && left !== right) return 'other_deployment';
  return isSameDatabase(row.database, own.database) ? null : 'other_database';
}

function isSameDatabase(a: DatabaseIdentity | null, b: DatabaseIdentity | null): boolean {
  if (a === null || b === null) return true;
  if (a.kind === 'postgres' && b.kind === 'postgres') {
    const knowsBoth = a.systemIdentifier !== null && b.systemIdentifier !== null;
    return a.oid === b.oid && (!knowsBoth || a.systemIdentifier === b.systemIdentifier);
  }
  // A folder may be moved, and some file systems number their files anew; a copy has another place and another number.
  if (a.kind === 'embedded' && b.kind === 'embedded') return a.path === b.path || a.inode === b.inode;
  return false;
}

export interface DeploymentRow extends DeploymentIdentity {
  /** Since the last sign of life. */
  silentSeconds: number;
}

/** The one row; undefined before the first start. */
export async function readDeployment(db: Sql, { lock = false } = {}): Promise<DeploymentRow | undefined> {
  const [row] = await db.query<Omit<DeploymentRow, 'database'> & { database: string | null }>(sql`
    SELECT deployment_id AS "deploymentId", public_url AS "publicUrl", database::text AS database,
      extract(epoch FROM clock_timestamp() - alive_at)::float8 AS "silentSeconds"
    FROM deployment WHERE id = 1 ${lock ? sql`FOR UPDATE` : sql``}`);
  if (row === undefined) return undefined;
  return { ...row, database: row.database === null ? null : (JSON.parse(row.database) as DatabaseIdentity) };
}

/** Writes the row of a database that belongs to nobody yet. Of several processes that ask at once one writes. */
async function claim(db: Sql, own: DeploymentIdentity): Promise<void> {
  await db.query(sql`
    INSERT INTO deployment (id, deployment_id, public_url, database, alive_at)
    VALUES (1, ${own.deploymentId}, ${own.publicUrl}, ${asJson(own.database)}::jsonb, clock_timestamp())
    ON CONFLICT (id) DO NOTHING`);
}

/** Only where the row still names whom it was compared with: an adoption in between is not undone. */
async function renew(db: Sql, row: DeploymentRow, own: DeploymentIdentity): Promise<void> {
  await db.query(sql`
    UPDATE deployment SET alive_at = clock_timestamp(), database = coalesce(${asJson(own.database)}::jsonb, database),
      deployment_id = coalesce(${own.deploymentId}, deployment_id), public_url = coalesce(${own.publicUrl}, public_url)
    WHERE id = 1 AND deployment_id IS NOT DISTINCT FROM ${row.deploymentId}
      AND public_url IS NOT DISTINCT FROM ${row.publicUrl} AND database IS NOT DISTINCT FROM ${asJson(row.database)}::jsonb`);
}

export const asJson = (database: DatabaseIdentity | null) => (database === null ? null : JSON.stringify(database));

/**
 * Guards against the copy of a database: a dump that was restored beside production, a snapshot, a staging server that
 * was given production's data. Its refresh tokens are production's, and Zoom takes each of them once.
 *
 * The database's row names its deployment; who is not named there stays away from the provider until the row does
 * (`adoptDatabase`). Processes of one deployment share the row.
 *
 * @param beforeLeaving runs when the database was adopted, before the provider may be asked.
 */
export function createDeployment({
  db,
  log,
  names,
  beforeLeaving,
}: {
  db: Pick<Database, 'query' | 'identity'>;
  log: Log;
  names: DeploymentNames;
  beforeLeaving: () => Promise<void>;
}): Deployment {
  const { deploymentId, publicUrl } = deploymentNames(names);
  let found: Mismatch | null | 'unknown' = 'unknown';

  async function look(): Promise<Mismatch | null> {
    const own = { deploymentId, publicUrl, database: await db.identity() };
    let row = await readDeployment(db);
    if (row === undefined) {
      await claim(db, own);
      row = await readDeployment(db);
    }
    if (row === undefined) throw new Error('The deployment could not be written.');
    const mismatch = findMismatch(row, own);
    if (mismatch === null && row.silentSeconds > RENEW_SECONDS) await renew(db, row, own);
    if (mismatch !== null && mismatch !== found) {
      log.error('quarantine: nothing is asked of the provider until an operator runs "latchkey adopt"', {
        reason: mismatch,
        durationMs: Math.round(row.silentSeconds * 1_000),
      });
    }
    return mismatch;
  }

  return {
    isQuarantined: () => found !== null,
    check: async () => {
      try {
        const now = await look();
        if (now === null && found !== null && found !== 'unknown') {
          await beforeLeaving();
          log.warn('quarantine has ended: the database was adopted');
        }
        found = now;
      } catch (error) {
        // Before the first look nothing is known, so the start fails; later the last finding stands.
        if (found === 'unknown' || !isOutage(error)) throw error;
      }
    },
  };
}
