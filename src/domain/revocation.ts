import sql from 'sql-template-tag';
import type { Sql, SqlStatement } from '../database/database.js';
import type { Sealed } from '../vault/vault.js';
import { ZoomError } from '../zoom/errors.js';
import { callAsApp, type AppClient } from './app-secret.js';
import type { Deps } from './deps.js';
import { openQueuedToken } from './revocation-queue.js';

const FIRST_RETRY_SECONDS = 5;
const LONGEST_RETRY_SECONDS = 3_600;
/** Longer than the provider deadline: another process takes a revocation up only when its owner has died. */
const CLAIM_SECONDS = 60;
const BATCH = 20;

interface PendingRevocation extends AppClient {
  revocationId: string;
  tenantId: string | null;
  sealedToken: Sealed;
  attempts: number;
}

/** Carries out the revocations that are due; one that fails is tried again later, until the provider confirms it. */
export async function revokePending(deps: Deps): Promise<void> {
  try {
    const due = await deps.db.query<PendingRevocation>(sql`
      UPDATE provider_revocation r
      SET attempts = r.attempts + 1, next_attempt_at = now() + make_interval(secs => ${CLAIM_SECONDS})
      FROM provider_app a
      WHERE a.id = r.app_id AND r.id IN (
        SELECT id FROM provider_revocation WHERE next_attempt_at <= now()
        ORDER BY next_attempt_at LIMIT ${BATCH} FOR UPDATE SKIP LOCKED)
      RETURNING r.id AS "revocationId", r.tenant_id AS "tenantId", r.sealed_token AS "sealedToken", r.attempts, a.id,
        a.environment, a.client_id AS "clientId", a.secret_version AS "secretVersion",
        a.sealed_client_secret AS "sealedClientSecret",
        CASE WHEN a.former_client_secret_retires_at > now() THEN a.sealed_former_client_secret END
          AS "sealedFormerClientSecret"`);
    await Promise.all(due.map((revocation) => carryOut(deps, revocation)));
  } catch (error) {
    deps.log.error('revocations could not be carried out; trying again later', { job: 'revoke-pending' }, error);
  }
}

async function carryOut(deps: Deps, revocation: PendingRevocation): Promise<void> {
  const { revocationId, tenantId, attempts } = revocation;
  try {
    const token = await openQueuedToken(deps, { id: revocationId, tenantId, sealedToken: revocation.sealedToken });
    await callAsApp(deps, revocation, (client) => deps.zoom.revoke(client, token));
    await confirm(deps, revocationId);
  } catch (error) {
    const ceiling = Math.min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** Math.min(attempts, 12));
    await deps.db.query(sql`
      UPDATE provider_revocation SET next_attempt_at = now() + make_interval(secs => ${Math.random() * ceiling + 1})
      WHERE id = ${revocationId}::uuid`);
    deps.log.warn('a revocation is not confirmed yet', {
      appId: revocation.id,
      ...(tenantId === null ? {} : { tenantId }),
      attempt: attempts,
      ...(error instanceof ZoomError ? { errorName: error.name } : {}),
    });
  }
}

/**
 * Forgets a token that the provider has confirmed, and confirms the grant's receipts with its last one. Under the
 * grant's lock, or that of the receipts where the grant is gone: of two tokens that are confirmed at once each would
 * otherwise leave the receipts to the other.
 */
async function confirm(deps: Pick<Deps, 'db'>, revocationId: string): Promise<void> {
  await deps.db.transaction(async (tx) => {
    const [grant] = await tx.query<{ id: string }>(sql`
      SELECT g.id FROM provider_grant g JOIN provider_revocation r ON r.grant_id = g.id
      WHERE r.id = ${revocationId}::uuid FOR UPDATE OF g`);
    await tx.query(sql`
      SELECT t.id FROM revocation_receipt t JOIN provider_revocation r ON r.former_grant_id = t.former_grant_id
      WHERE r.id = ${revocationId}::uuid ORDER BY t.id FOR UPDATE OF t`);
    const [token] = await tx.query<{ formerGrantId: string | null }>(sql`
      DELETE FROM provider_revocation WHERE id = ${revocationId}::uuid RETURNING former_grant_id AS "formerGrantId"`);
    if (grant !== undefined) await confirmReceipts(tx, sql`grant_id`, grant.id);
    if (token?.formerGrantId) await confirmReceipts(tx, sql`former_grant_id`, token.formerGrantId);
  });
}

async function confirmReceipts(tx: Sql, column: SqlStatement, grantId: string): Promise<void> {
  await tx.query(sql`
    UPDATE revocation_receipt SET confirmed_at = now()
    WHERE ${column} = ${grantId}::uuid AND ended_at IS NOT NULL AND confirmed_at IS NULL
      AND NOT EXISTS (SELECT 1 FROM provider_revocation WHERE ${column} = ${grantId}::uuid)`);
}
