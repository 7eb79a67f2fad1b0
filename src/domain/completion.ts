import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { authorizationTopic, HEALTH_TOPIC } from '../feed/feed.js';
import type { AuthorizationFailure, GrantKind, ProviderAppKind } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomClientRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomRequestRefusedError,
  ZoomScopeMissingError,
} from '../zoom/errors.js';
import type { TokenSet, ZoomIdentity } from '../zoom/zoom.js';
import { callAsApp, type AppClient } from './app-secret.js';
import { codePlace, verifierPlace } from './authorization.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { lockForGrant, refuseIdentity } from './grant-admission.js';
import { storeGrant, supersedeOthers } from './grant.js';
import { recordTransitions } from './health-event.js';
import { closeIncident, openIncident } from './incident.js';
import { persist } from './persist.js';
import type { Principal } from './principal.js';
import { hashToken } from './random-token.js';
import { revokePending } from './revocation.js';
import { holdTenant, queueRevocation } from './revocation-queue.js';

/** How long storing tokens is tried before they are given up. */
const STORE_PATIENCE_MS = 20_000;

interface SpentSession extends AppClient {
  sessionId: string;
  tenantId: string;
  appId: string;
  appKind: ProviderAppKind;
  grantKind: GrantKind;
  externalUserId: string;
  frontendSessionId: string | null;
  allowIdentityChange: boolean;
  redirectUri: string;
  sealedCode: Sealed;
  sealedCodeVerifier: Sealed;
}

/**
 * Ends a consent trip: shows that the one who began is the one who consented, and only then redeems the code.
 *
 * The connect code is spent whatever the outcome. A refusal leaves the session FAILED with its reason; an authorization
 * code that was not redeemed is dropped, tokens that were obtained and refused are revoked at the provider.
 *
 * @param principal who completes: the frontend session that began, or a server key.
 * @param input `userId`: the user who is signed in to the product now, as the server key's holder knows.
 * @returns the session's id.
 * @throws {NotFoundError} the connect code is unknown, spent or expired.
 */
export async function completeAuthorization(
  deps: Deps,
  principal: Principal,
  input: { connectCode: string; userId: string | null },
): Promise<string> {
  if (principal.kind === 'SERVER_KEY' && input.userId === null) {
    throw new InvalidInputError('Name the user who is signed in to your product.', ['input', 'userId']);
  }
  const session = await spendConnectCode(deps, input.connectCode, principal.tenantId);
  if (!isInitiator(session, principal, input.userId)) return fail(deps, session, 'INITIATOR_MISMATCH');
  const startedAt = performance.now();
  let tokens: TokenSet;
  let identity: ZoomIdentity;
  try {
    tokens = await redeem(deps, session);
  } catch (error) {
    if (error instanceof ZoomClientRejectedError) await openIncident(deps, session.appId);
    return fail(deps, session, failureOf(error));
  }
  try {
    const { environment } = session;
    identity = await deps.zoom.currentUser({ environment, apiUrl: tokens.apiUrl, accessToken: tokens.accessToken });
  } catch (error) {
    await persist(deps, { patienceMs: STORE_PATIENCE_MS }, (tx) =>
      queueRevocation(deps, tx, session, withExpiry(deps, tokens)),
    );
    void revokePending(deps);
    return fail(deps, session, failureOf(error));
  }
  const ageSeconds = (performance.now() - startedAt) / 1_000;
  return settle(deps, session, { tokens, identity, ageSeconds });
}

/**
 * Whether the one who completes is the one who began: the same frontend session, or the backend, which knows who is
 * signed in to the product.
 */
const isInitiator = (session: SpentSession, principal: Principal, userId: string | null): boolean =>
  principal.kind === 'FRONTEND_SESSION'
    ? session.frontendSessionId === principal.id && (userId ?? session.externalUserId) === session.externalUserId
    : session.externalUserId === userId;

/** @param tenantId the only tenant whose codes can be spent; null: any. */
async function spendConnectCode(deps: Deps, connectCode: string, tenantId: string | null): Promise<SpentSession> {
  const hash = hashToken(connectCode);
  return deps.db.transaction(async (tx) => {
    const [session] = await tx.query<SpentSession>(sql`
    UPDATE authorization_session s SET connect_code_hash = NULL,
      expires_at = greatest(s.expires_at, now() + interval '1 minute')
    FROM provider_app a
    WHERE a.id = s.app_id AND s.connect_code_hash = ${hash}
      AND (${tenantId}::uuid IS NULL OR s.tenant_id = ${tenantId}::uuid) AND s.status = 'AWAITING_COMPLETION' AND s.expires_at > now()
    RETURNING s.id AS "sessionId", s.tenant_id AS "tenantId", s.app_id AS "appId", a.kind AS "appKind",
      s.grant_kind AS "grantKind", s.external_user_id AS "externalUserId",
      s.frontend_session_id AS "frontendSessionId",
      s.allow_identity_change AS "allowIdentityChange", s.redirect_uri AS "redirectUri", s.sealed_code AS "sealedCode",
      s.sealed_code_verifier AS "sealedCodeVerifier", a.id, a.environment, a.client_id AS "clientId",
      a.secret_version AS "secretVersion", a.sealed_client_secret AS "sealedClientSecret",
      CASE WHEN a.former_client_secret_retires_at > now() THEN a.sealed_former_client_secret END
        AS "sealedFormerClientSecret"`);
    if (session === undefined) throw new NotFoundError('The connect code is unknown, spent or expired.');
    noteAudit(tx, { tenantId: session.tenantId, subject: `AuthorizationSession:${session.sessionId}` });
    return session;
  });
}

async function redeem(deps: Deps, session: SpentSession): Promise<TokenSet> {
  const { tenantId, sessionId, redirectUri } = session;
  const code = await deps.vault.open(deps.db, codePlace(tenantId, sessionId), session.sealedCode);
  const codeVerifier = await deps.vault.open(deps.db, verifierPlace(tenantId, sessionId), session.sealedCodeVerifier);
  return callAsApp(deps, session, (client) => deps.zoom.exchangeCode(client, { code, codeVerifier, redirectUri }));
}

function failureOf(error: unknown): AuthorizationFailure {
  const refused =
    error instanceof ZoomGrantInvalidError ||
    error instanceof ZoomRequestRefusedError ||
    error instanceof ZoomClientRejectedError ||
    error instanceof ZoomAccessTokenRejectedError ||
    error instanceof ZoomScopeMissingError;
  if (refused) return 'CODE_REJECTED';
  if (error instanceof ZoomError) return 'PROVIDER_UNAVAILABLE';
  throw error;
}

const withExpiry = (deps: Deps, tokens: TokenSet) => ({
  ...tokens,
  expiresAt: new Date(deps.clock.now().getTime() + tokens.expiresInSeconds * 1_000),
});

async function fail(deps: Deps, session: SpentSession, failure: AuthorizationFailure): Promise<string> {
  await deps.db.transaction(async (tx) => {
    await tx.query(sql`
      UPDATE authorization_session SET status = 'FAILED', failure = ${failure}::"AuthorizationFailure",
        sealed_code = NULL, sealed_code_verifier = NULL
      WHERE id = ${session.sessionId}::uuid`);
    noteFailure(tx, session, failure);
  });
  deps.feed.publish(authorizationTopic(session.sessionId));
  deps.log.info('an authorization was not completed', {
    authorizationSessionId: session.sessionId,
    tenantId: session.tenantId,
    reason: failure,
  });
  return session.sessionId;
}

const noteFailure = (tx: Sql, { tenantId, sessionId }: SpentSession, reason: AuthorizationFailure): void =>
  noteAudit(tx, { tenantId, action: 'authorization.failed', subject: `AuthorizationSession:${sessionId}`, reason });

/** Checks whom the tokens speak for and stores or refuses them, in one transaction with the session's outcome. */
async function settle(
  deps: Deps,
  session: SpentSession,
  granted: { tokens: TokenSet; identity: ZoomIdentity; ageSeconds: number },
): Promise<string> {
  const { tenantId, sessionId, appId } = session;
  const { tokens, identity } = granted;
  const isInstallation = session.grantKind === 'INSTALLATION';
  const isTenantThere = await persist(deps, { patienceMs: STORE_PATIENCE_MS }, async (tx) => {
    const [open] = await tx.query(sql`
      SELECT id FROM authorization_session WHERE id = ${sessionId}::uuid AND status = 'AWAITING_COMPLETION' FOR UPDATE`);
    if (!(await holdTenant(tx, tenantId))) {
      // The tenant was deleted meanwhile: the tokens are live at the provider, and nobody here is to have them.
      await queueRevocation(deps, tx, session, withExpiry(deps, tokens));
      return false;
    }
    // An earlier attempt of ours committed and its answer was lost.
    if (open === undefined) return true;
    const subject = isInstallation ? identity.accountId : session.externalUserId;
    await lockForGrant(tx, { tenantId, appId, subject, providerUserId: identity.userId });
    const refusal = isInstallation ? null : await refuseIdentity(tx, session, identity);
    if (refusal !== null) {
      // The consent has killed the older tokens of this provider user all the same.
      await queueRevocation(deps, tx, session, withExpiry(deps, tokens));
      await recordTransitions(tx, await supersedeOthers(tx, appId, identity.userId, null));
      await tx.query(sql`
        UPDATE authorization_session SET status = 'FAILED', failure = ${refusal}::"AuthorizationFailure",
          sealed_code = NULL, sealed_code_verifier = NULL
        WHERE id = ${sessionId}::uuid`);
      noteFailure(tx, session, refusal);
      return true;
    }
    const { grantId } = await storeGrant(deps, tx, {
      kind: session.grantKind,
      tenantId,
      app: { id: appId, kind: session.appKind },
      subject,
      externalUserId: isInstallation ? null : session.externalUserId,
      ...granted,
    });
    await tx.query(sql`
      UPDATE authorization_session SET status = 'COMPLETED', grant_id = ${grantId}::uuid, sealed_code = NULL,
        sealed_code_verifier = NULL
      WHERE id = ${sessionId}::uuid`);
    return true;
  });
  deps.feed.publish(HEALTH_TOPIC);
  deps.feed.publish(authorizationTopic(sessionId));
  void revokePending(deps);
  await closeIncident(deps, appId);
  if (!isTenantThere) throw new NotFoundError('No such tenant exists.');
  return sessionId;
}
