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

/** Stores, in the caller's transaction, that tokens are to be revoked at the provider. Call `revokePending` after it. */
export async function queueRevocation(
  deps: Pick<Deps, 'vault'>,
  tx: Sql,
  owner: { tenantId: string; appId: string },
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
    INSERT INTO provider_revocation (id, tenant_id, app_id, sealed_token, key_version, next_attempt_at)
    VALUES (${id}::uuid, ${owner.tenantId}::uuid, ${owner.appId}::uuid, ${sealed}, ${keyVersion}, now())`);
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
