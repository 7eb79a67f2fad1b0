import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { Secret } from '../secret.js';
import { VaultOpenError } from '../vault/errors.js';
import type { Sealed } from '../vault/vault.js';
import type { Deps } from './deps.js';

const HAND_OVER_BATCH = 100;

const place = (tenantId: string | null, id: string) => ({
  tenantId,
  table: 'provider_revocation',
  column: 'sealed_token',
  recordId: id,
  version: 1,
});

/** Tokens that are to end at the provider. Either of the two ends the grant. */
export interface TokensToRevoke {
  accessToken: Secret;
  refreshToken: Secret | null;
  /** When the access token expires. */
  expiresAt: Date;
}

/**
 * Stores, in the caller's transaction, that tokens are to be revoked at the provider. Call `revokePending` after it.
 *
 * Tokens of a tenant that is being deleted, or is gone, are sealed with the system key: the tenant's is about to be
 * destroyed, and the provider has still to be told. Where the app is gone nobody could tell it, and nothing is stored.
 *
 * @param owner `grantId`: whose receipts wait for it; left out for tokens that no grant was made of.
 */
export async function queueRevocation(
  deps: Pick<Deps, 'vault'>,
  tx: Sql,
  owner: { tenantId: string; appId: string; grantId?: string },
  tokens: TokensToRevoke,
): Promise<void> {
  const id = randomUUID();
  const token = new Secret(
    JSON.stringify({
      access: tokens.accessToken.reveal(),
      accessExpiresAt: tokens.expiresAt.getTime(),
      refresh: tokens.refreshToken?.reveal() ?? null,
    }),
  );
  const tenantId = (await holdTenant(tx, owner.tenantId)) ? owner.tenantId : null;
  const grantId = owner.grantId ?? null;
  const { sealed, keyVersion } = await deps.vault.seal(tx, place(tenantId, id), token);
  await tx.query(sql`
    INSERT INTO provider_revocation (id, tenant_id, app_id, grant_id, former_grant_id, sealed_token, key_version,
      next_attempt_at)
    SELECT ${id}::uuid, ${tenantId}::uuid, a.id, g.id, CASE WHEN g.id IS NULL THEN ${grantId}::uuid END, ${sealed}::bytea,
      ${keyVersion}::int, now()
    FROM provider_app a LEFT JOIN provider_grant g ON g.id = ${grantId}::uuid WHERE a.id = ${owner.appId}::uuid`);
}

/**
 * Whether a tenant is there and is not being deleted. If so it stays until the transaction ends: a deletion that is asked
 * for meanwhile begins after it.
 */
export async function holdTenant(tx: Sql, tenantId: string): Promise<boolean> {
  const [tenant] = await tx.query(sql`
    SELECT id FROM tenant WHERE id = ${tenantId}::uuid AND closed_at IS NULL FOR KEY SHARE`);
  return tenant !== undefined;
}

/**
 * Seals the queued tokens of a tenant that is being deleted with the system key, a batch of them.
 *
 * @returns whether there may be more.
 */
export async function handOverQueued(deps: Pick<Deps, 'vault' | 'log'>, tx: Sql, tenantId: string): Promise<boolean> {
  const rows = await tx.query<{ id: string; sealed: Sealed }>(sql`
    SELECT id, sealed_token AS sealed FROM provider_revocation
    WHERE tenant_id = ${tenantId}::uuid ORDER BY id LIMIT ${HAND_OVER_BATCH} FOR UPDATE`);
  for (const { id, sealed } of rows) {
    try {
      const token = await deps.vault.open(tx, place(tenantId, id), sealed);
      const anew = await deps.vault.seal(tx, place(null, id), token);
      await tx.query(sql`
        UPDATE provider_revocation SET tenant_id = NULL, sealed_token = ${anew.sealed}, key_version = ${anew.keyVersion}
        WHERE id = ${id}::uuid`);
    } catch (error) {
      if (!(error instanceof VaultOpenError)) throw error;
      deps.log.error('a token that was to be revoked cannot be opened and is dropped', { tenantId });
      await tx.query(sql`DELETE FROM provider_revocation WHERE id = ${id}::uuid`);
    }
  }
  return rows.length === HAND_OVER_BATCH;
}

/**
 * A token of a disconnected grant has turned up after its last one was confirmed: its receipt waits for this one, too.
 * In the transaction that queues the token, under the grant's lock.
 */
export async function reopenReceipt(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`
    UPDATE revocation_receipt SET confirmed_at = NULL
    WHERE id = (
      SELECT r.id FROM revocation_receipt r JOIN provider_grant g ON g.id = r.grant_id
      WHERE r.grant_id = ${grantId}::uuid AND r.ended_at IS NOT NULL AND g.health_reason = 'DISCONNECTED'
      ORDER BY r.ended_at DESC LIMIT 1)`);
}

/** As `reopenReceipt`, for a grant that was removed with its tenant meanwhile. */
export async function reopenFormerReceipt(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`
    UPDATE revocation_receipt SET confirmed_at = NULL
    WHERE id = (
      SELECT id FROM revocation_receipt WHERE former_grant_id = ${grantId}::uuid AND ended_at IS NOT NULL
      ORDER BY ended_at DESC LIMIT 1)`);
}

/** The token to name to the provider: an expired access token might be taken for an unknown one and leave the grant alive. */
export async function openQueuedToken(
  deps: Pick<Deps, 'db' | 'vault' | 'clock'>,
  revocation: { id: string; tenantId: string | null; sealedToken: Sealed },
): Promise<Secret> {
  const opened = await deps.vault.open(deps.db, place(revocation.tenantId, revocation.id), revocation.sealedToken);
  const tokens = JSON.parse(opened.reveal()) as { access: string; accessExpiresAt: number; refresh: string | null };
  const expired = deps.clock.now().getTime() >= tokens.accessExpiresAt;
  return new Secret(expired ? (tokens.refresh ?? tokens.access) : tokens.access);
}
