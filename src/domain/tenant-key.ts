import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import type { RootKeyProgress } from '../vault/root-key-rotation.js';
import { type AuditNote, noteAudit } from './audit.js';
import type { Deps, DomainSettings } from './deps.js';
import { countStale, ownersToReseal, resealStale } from './reseal.js';
import { requireTenant } from './tenant.js';

/** The system's key has no operator who rotates it, so it is rotated by itself once it is so old. */
const SYSTEM_KEY_DAYS = 365;
/** Longest after a rotation that another process may seal with the version before, and commit it. */
const SEALING_SECONDS = 60;
/** By then the provider has let an unused token expire. */
const REFRESH_TOKEN_DAYS = 90;

/**
 * Gives a tenant a new version of its key. It seals from now on; what older versions sealed is sealed anew in the
 * background, and stays readable all the time.
 *
 * @returns the tenant's id.
 * @throws {NotFoundError} there is no such tenant.
 */
export async function rotateTenantKey(deps: Deps, input: { tenantId: string }): Promise<string> {
  const { id } = await requireTenant(deps.db, input.tenantId);
  const { version } = await deps.vault.rotateKey(deps.db, id);
  deps.log.info('the key of a tenant was rotated', { tenantId: id, version: String(version) });
  return id;
}

/** Ciphertexts of a tenant that are sealed with an older version of its key than this. */
export const pendingReseal = (db: Sql, tenantId: string, version: number): Promise<number> =>
  countStale(db, { tenantId, version });

/**
 * Seals what superseded key versions have sealed with the active ones, and destroys versions that nothing needs any more.
 *
 * @returns whether there may be more to do at once.
 */
export async function tendKeys(deps: Deps): Promise<boolean> {
  await rotateAgedSystemKey(deps);
  const more = await resealStale(deps);
  if (!more) await retireVersions(deps);
  return more;
}

async function rotateAgedSystemKey(deps: Deps): Promise<void> {
  const [aged] = await deps.db.query(sql`
    SELECT id FROM tenant_key
    WHERE owner = 'system' AND active AND created_at < now() - make_interval(days => ${SYSTEM_KEY_DAYS})`);
  if (aged !== undefined) await rotateSystemKey(deps);
}

/** Gives the system a new version of the key that app secrets and spool files are sealed with. */
export async function rotateSystemKey(deps: Pick<Deps, 'db' | 'vault' | 'log'>): Promise<void> {
  const db = noting(deps.db, () => ({ action: 'system_key.rotated' }));
  const { version } = await deps.vault.rotateKey(db, null);
  deps.log.info('the system key was rotated', { version: String(version) });
}

/** A database for the vault, which knows of no trail: each of its transactions notes what its result says. */
const noting = (
  { query, transaction }: Deps['db'],
  noteOf: (result: unknown) => AuditNote | null,
): Pick<Database, 'query' | 'transaction'> => ({
  query,
  transaction: (run) =>
    transaction(async (tx) => {
      const result = await run(tx);
      const note = noteOf(result);
      if (note !== null) noteAudit(tx, note);
      return result;
    }),
});

/** How long nothing may have needed a version before it is destroyed: longer than anybody can be at sealing with it. */
const graceSeconds = ({ keyRetirementSeconds, leaseSeconds, doubtSeconds }: DomainSettings): number =>
  Math.max(keyRetirementSeconds, SEALING_SECONDS + leaseSeconds + doubtSeconds);

/**
 * Destroys superseded key versions. One goes only when, for the time of grace, nothing was stored that is sealed with an
 * older version than the active one; when no refresh whose answer may lie sealed on some machine's disk dates from before
 * the rotation; and when the database, which keeps a version that a credential refers to, lets it go.
 */
async function retireVersions(deps: Deps): Promise<void> {
  const grace = graceSeconds(deps.settings);
  for (const { tenantId, version } of await ownersToReseal(deps.db)) {
    const owner = tenantId ?? 'system';
    if ((await countStale(deps.db, { tenantId, version })) > 0) {
      await deps.db.query(sql`
        UPDATE tenant_key SET unreferenced_since = NULL
        WHERE owner = ${owner} AND NOT active AND unreferenced_since IS NOT NULL`);
      continue;
    }
    await deps.db.query(sql`
      UPDATE tenant_key SET unreferenced_since = now()
      WHERE owner = ${owner} AND NOT active AND unreferenced_since IS NULL`);
    const destroyed = await deps.db.query(sql`
      DELETE FROM tenant_key k
      WHERE k.owner = ${owner} AND NOT k.active AND k.unreferenced_since < now() - make_interval(secs => ${grace})
        AND NOT EXISTS (${unansweredSince(tenantId, grace)}) RETURNING k.id`);
    if (destroyed.length === 0) continue;
    deps.vault.forgetKeys(tenantId);
    deps.log.info('superseded versions of a key were destroyed', {
      count: destroyed.length,
      ...(tenantId === null ? {} : { tenantId }),
    });
  }
}

/**
 * Credentials whose last refresh may have been answered, and the answer sealed with the version `k` and kept on a disk
 * that nobody has read since: those in doubt, and those whose rotation was lost. Every spool file is sealed with the
 * system's key, so that of any tenant counts for it.
 */
const unansweredSince = (tenantId: string | null, grace: number) => sql`
  SELECT 1 FROM credential c JOIN provider_grant g ON g.id = c.grant_id
  WHERE (${tenantId}::uuid IS NULL OR g.tenant_id = ${tenantId}::uuid) AND c.sealed_refresh_token IS NOT NULL
    AND c.issued_at <= k.superseded_at + make_interval(secs => ${grace})
    AND (c.refresh_state = 'IN_DOUBT' OR (c.refresh_state = 'REFRESHING' AND c.lease_until <= now())
      OR (g.health_reason = 'ROTATION_LOST' AND g.health_since > now() - make_interval(days => ${REFRESH_TOKEN_DAYS})))`;

/** Wraps a batch of keys with the newest root key, and tells the trail how many. @throws as `Vault.rewrapKeys` does. */
export const rewrapBatch = (deps: Pick<Deps, 'db' | 'vault'>): Promise<RootKeyProgress> =>
  deps.vault.rewrapKeys(
    noting(deps.db, (count) => (Number(count) > 0 ? { action: 'root_key.rewrapped', count: Number(count) } : null)),
  );

/** Wraps keys that an older root key wraps with the newest one. @returns whether there may be more to do at once. */
export async function rewrapKeys(deps: Pick<Deps, 'db' | 'vault' | 'log'>): Promise<boolean> {
  const { rewrapped, pending } = await rewrapBatch(deps);
  if (rewrapped > 0) {
    const message =
      pending > 0 ? 'keys were wrapped by the newest root key' : 'the newest root key wraps every key; others may go';
    deps.log.info(message, { job: 'rewrap-keys', count: rewrapped });
  }
  return rewrapped > 0 && pending > 0;
}
