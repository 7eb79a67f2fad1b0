import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Secret } from '../secret.js';
import { createApiToken } from './api-token.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import type { FrontendAction, Principal } from './principal.js';
import { checkReturnAddress } from './return-address.js';
import { requireExternalId, requireTenant } from './tenant.js';

/** Longest life of a session that may only look on and revoke. */
const MAX_TTL_SECONDS = 3_600;
/** Longest life of one that may connect: as long as one trip may take. */
const MAX_CONNECT_TTL_SECONDS = 600;

export interface FrontendSessionInput {
  tenantId: string;
  userId: string | null;
  allow: readonly FrontendAction[];
  ttlSeconds: number;
  returnTo: string | null;
}

function checkInput({ allow, userId, ttlSeconds }: FrontendSessionInput): void {
  if (allow.length === 0) throw new InvalidInputError('Allow at least one action.', ['input', 'allow']);
  if (userId !== null) requireExternalId(userId, ['input', 'userId']);
  if (allow.includes('CONNECT_USER') && userId === null) {
    throw new InvalidInputError('Name the user that the session connects.', ['input', 'userId']);
  }
  const connects = allow.includes('CONNECT_USER') || allow.includes('CONNECT_INSTALLATION');
  const most = connects ? MAX_CONNECT_TTL_SECONDS : MAX_TTL_SECONDS;
  if (ttlSeconds < 1 || ttlSeconds > most) {
    throw new InvalidInputError(`Give 1 to ${most} seconds.`, ['input', 'ttlSeconds']);
  }
}

/**
 * Makes what a browser may hold: a token for one tenant, some actions, a short time, and the origins that the tenant
 * allows now. The token is in the answer and nowhere else; only its hash is stored.
 *
 * @throws {InvalidInputError} it would live too long, do nothing, or return to elsewhere.
 * @throws {NotFoundError} there is no such tenant.
 */
export async function createFrontendSession(
  deps: Pick<Deps, 'db' | 'settings'>,
  creator: Principal,
  input: FrontendSessionInput,
): Promise<{ id: string; token: Secret; expiresAt: Date }> {
  checkInput(input);
  const tenant = await requireTenant(deps.db, input.tenantId);
  const returnTo = input.returnTo === null ? null : checkReturnAddress(input.returnTo, tenant.allowedOrigins);
  const id = randomUUID();
  const { token, hash } = createApiToken('FRONTEND_SESSION', id, deps.settings.publicUrl);
  const [made] = await deps.db.transaction((tx) => {
    noteAudit(tx, { tenantId: tenant.id, subject: `FrontendSession:${id}` });
    return tx.query<{ expiresAt: Date }>(sql`
      INSERT INTO frontend_session (id, token_hash, tenant_id, external_user_id, actions, origins, return_to,
        server_key_id, expires_at)
      VALUES (${id}::uuid, ${hash}, ${tenant.id}::uuid, ${input.userId},
        ${[...new Set(input.allow)]}::"FrontendAction"[], ${tenant.allowedOrigins}::text[], ${returnTo},
        ${creator.id}::uuid, now() + make_interval(secs => ${input.ttlSeconds}))
      RETURNING expires_at AS "expiresAt"`);
  });
  if (made === undefined) throw new Error('The session was not stored.');
  return { id, token, expiresAt: made.expiresAt };
}

/**
 * Ends a frontend session. Its streams end, in every process within five seconds.
 *
 * @param tenantId the only tenant whose sessions may be ended; null: any.
 * @throws {NotFoundError} there is no such session, or it is over.
 */
export async function revokeFrontendSession(
  deps: Pick<Deps, 'db'>,
  { id, tenantId }: { id: string; tenantId: string | null },
): Promise<string> {
  return deps.db.transaction(async (tx) => {
    const [removed] = await tx.query(sql`
      DELETE FROM frontend_session
      WHERE id = ${id}::uuid AND (${tenantId}::uuid IS NULL OR tenant_id = ${tenantId}::uuid) RETURNING id`);
    if (removed === undefined) throw new NotFoundError('No such frontend session exists.');
    return id;
  });
}
