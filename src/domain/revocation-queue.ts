import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { Secret } from '../secret.js';
import type { Sealed } from '../vault/vault.js';
import type { Deps } from './deps.js';

const place = (tenantId: string, id: string) => ({
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
  const { sealed, keyVersion } = await deps.vault.seal(tx, place(owner.tenantId, id), token);
  await tx.query(sql`
    INSERT INTO provider_revocation (id, tenant_id, app_id, grant_id, sealed_token, key_version, next_attempt_at)
    VALUES (${id}::uuid, ${owner.tenantId}::uuid, ${owner.appId}::uuid, ${owner.grantId ?? null}::uuid, ${sealed},
      ${keyVersion}, now())`);
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

/** The token to name to the provider: an expired access token might be taken for an unknown one and leave the grant alive. */
export async function openQueuedToken(
  deps: Pick<Deps, 'db' | 'vault' | 'clock'>,
  revocation: { id: string; tenantId: string; sealedToken: Sealed },
): Promise<Secret> {
  const opened = await deps.vault.open(deps.db, place(revocation.tenantId, revocation.id), revocation.sealedToken);
  const tokens = JSON.parse(opened.reveal()) as { access: string; accessExpiresAt: number; refresh: string | null };
  const expired = deps.clock.now().getTime() >= tokens.accessExpiresAt;
  return new Secret(expired ? (tokens.refresh ?? tokens.access) : tokens.access);
}
