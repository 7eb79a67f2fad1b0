import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { NotFoundError } from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { GrantKind } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import { ZoomError } from '../zoom/errors.js';
import { callAsApp, type AppClient } from './app-secret.js';
import type { Deps } from './deps.js';
import { destroyCredential, lockGrant, surrenderTokens } from './grant.js';
import { nextHealth } from './health.js';
import { recordTransitions, type Transition } from './health-event.js';
import { openQueuedToken } from './revocation-queue.js';

const FIRST_RETRY_SECONDS = 5;
const LONGEST_RETRY_SECONDS = 3_600;
/** Longer than the provider deadline: another process takes a revocation up only when its owner has died. */
const CLAIM_SECONDS = 60;
const BATCH = 20;

/**
 * Ends one grant on our side within the caller's transaction: its tokens are moved to the revocations that wait for the
 * provider, the credential is destroyed, a running refresh finds nothing to commit to.
 *
 * @returns the transition to record; empty where it had ended before.
 */
async function disconnect(deps: Pick<Deps, 'vault'>, tx: Sql, grantId: string): Promise<Transition[]> {
  const grant = await lockGrant(tx, grantId);
  if (grant === undefined || grant.health.status === 'REVOKED') return [];
  await surrenderTokens(deps, tx, grant);
  await destroyCredential(tx, grantId);
  const next = nextHealth(grant.health, { kind: 'ended', reason: 'DISCONNECTED' });
  return [{ grantId, tenantId: grant.tenantId, previous: grant.health, next }];
}

/**
 * Ends a grant at once on our side and, as soon as it answers, at the provider.
 *
 * @param input `includeUsers`: for an installation, also the user connections in the same provider account.
 * @throws {NotFoundError} there is no grant of this kind with this id.
 */
export async function revokeGrant(
  deps: Deps,
  input: { id: string; kind: GrantKind; includeUsers: boolean },
): Promise<string> {
  await deps.db.transaction(async (tx) => {
    const [grant] = await tx.query<{ tenantId: string; accountId: string }>(sql`
      SELECT tenant_id AS "tenantId", provider_account_id AS "accountId" FROM provider_grant
      WHERE id = ${input.id}::uuid AND kind = ${input.kind}::"GrantKind"`);
    if (grant === undefined) throw new NotFoundError('No such connection exists.');
    const users = input.includeUsers
      ? await tx.query<{ id: string }>(sql`
          SELECT id FROM provider_grant
          WHERE tenant_id = ${grant.tenantId}::uuid AND kind = 'USER_CONNECTION'
            AND provider_account_id = ${grant.accountId} ORDER BY id`)
      : [];
    const transitions: Transition[] = [];
    for (const id of [input.id, ...users.map((user) => user.id)]) transitions.push(...(await disconnect(deps, tx, id)));
    await recordTransitions(tx, transitions);
  });
  deps.feed.publish(HEALTH_TOPIC);
  void revokePending(deps);
  return input.id;
}

interface PendingRevocation extends AppClient {
  revocationId: string;
  tenantId: string;
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
    await deps.db.query(sql`DELETE FROM provider_revocation WHERE id = ${revocationId}::uuid`);
  } catch (error) {
    const ceiling = Math.min(LONGEST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** Math.min(attempts, 12));
    await deps.db.query(sql`
      UPDATE provider_revocation SET next_attempt_at = now() + make_interval(secs => ${Math.random() * ceiling + 1})
      WHERE id = ${revocationId}::uuid`);
    deps.log.warn('a revocation is not confirmed yet', {
      appId: revocation.id,
      tenantId,
      attempt: attempts,
      ...(error instanceof ZoomError ? { errorName: error.name } : {}),
    });
  }
}
