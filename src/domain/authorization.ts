import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, LimitExceededError, NotFoundError } from '../errors.js';
import type { GrantKind, ProviderAppKind, ProviderEnvironment } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import { createCodeVerifier, codeChallengeOf } from '../zoom/pkce.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import type { Principal } from './principal.js';
import { redirectUriOf } from './provider-app.js';
import { createRandomToken, hashToken } from './random-token.js';
import { checkReturnAddress } from './return-address.js';
import { requireExternalId, requireTenant } from './tenant.js';

/** The kind of app whose consent makes a grant of a kind. */
const APP_KIND: Record<GrantKind, ProviderAppKind> = { INSTALLATION: 'ADMIN_MANAGED', USER_CONNECTION: 'USER_MANAGED' };

/** What to do with an app of this kind instead. */
const HINTS: Record<ProviderAppKind, string> = {
  USER_MANAGED: 'An installation needs an admin-managed app; with a user-managed one use beginAuthorization.',
  ADMIN_MANAGED: 'A user authorizes a user-managed app; with an admin-managed one use beginInstallation.',
  SERVER_TO_SERVER: 'A server-to-server app has no consent screen; use connectServerToServer.',
};

export interface BeginInput {
  grantKind: GrantKind;
  tenantId: string;
  userId: string;
  appId: string | null;
  returnTo: string | null;
  allowIdentityChange: boolean;
}

async function chooseApp(tx: Sql, input: BeginInput): Promise<{ id: string; key: string }> {
  const path = ['input', 'appId'];
  const kind = APP_KIND[input.grantKind];
  if (input.appId !== null) {
    const [app] = await tx.query<{ id: string; key: string; kind: ProviderAppKind }>(sql`
      SELECT id, key, kind FROM provider_app WHERE id = ${input.appId}::uuid`);
    if (app === undefined) throw new NotFoundError('No such provider app exists.');
    if (app.kind === kind) return app;
    throw new InvalidInputError(HINTS[app.kind], path);
  }
  const apps = await tx.query<{ id: string; key: string }>(sql`
    SELECT id, key FROM provider_app WHERE kind = ${kind}::"ProviderAppKind" ORDER BY created_at LIMIT 2`);
  const [only, second] = apps;
  if (only === undefined) throw new InvalidInputError(`No app of kind ${kind} is registered.`, path);
  if (second !== undefined) throw new InvalidInputError('Several apps could serve; name one.', path);
  return only;
}

/** A browser begins for its own user only, and comes back to where it was told. */
function bindToSession({ externalUserId, returnTo }: Principal, input: BeginInput): BeginInput {
  if (externalUserId !== null && input.userId !== externalUserId) {
    throw new InvalidInputError('The frontend session acts for another user.', ['input', 'userId']);
  }
  if (returnTo !== null && input.returnTo !== null && input.returnTo !== returnTo) {
    throw new InvalidInputError('The frontend session returns to another address.', ['input', 'returnTo']);
  }
  return { ...input, returnTo: input.returnTo ?? returnTo };
}

/**
 * Makes a session for one trip through the provider's consent screen. Nothing is asked of the provider yet.
 *
 * @param principal who begins. A frontend session is remembered: no other may complete.
 * @returns its id; the browser begins at `/oauth/start/{id}`.
 * @throws {LimitExceededError} the tenant or the frontend session has too many open sessions; they close by themselves.
 */
export async function beginAuthorizationSession(deps: Deps, principal: Principal, given: BeginInput): Promise<string> {
  requireExternalId(given.userId, ['input', 'userId']);
  const tenant = await requireTenant(deps.db, given.tenantId);
  const input = bindToSession(principal, given);
  const returnTo = input.returnTo === null ? null : checkReturnAddress(input.returnTo, tenant.allowedOrigins);
  const app = await chooseApp(deps.db, input);
  const { maxOpenSessions, maxTripsPerFrontendSession, sessionSeconds, publicUrl } = deps.settings;
  const frontendSessionId = principal.kind === 'FRONTEND_SESSION' ? principal.id : null;
  const id = randomUUID();
  await deps.db.transaction(async (tx) => {
    const [row] = await tx.query(sql`
    INSERT INTO authorization_session (id, tenant_id, app_id, grant_kind, external_user_id, return_to,
      frontend_session_id, allow_identity_change, redirect_uri, status, expires_at)
    SELECT ${id}::uuid, ${tenant.id}::uuid, ${app.id}::uuid, ${input.grantKind}::"GrantKind", ${input.userId}, ${returnTo},
      ${frontendSessionId}::uuid, ${input.allowIdentityChange}, ${redirectUriOf(publicUrl, app.key)}, 'PENDING',
      now() + make_interval(secs => ${sessionSeconds})
    WHERE (SELECT count(*) FROM authorization_session
      WHERE tenant_id = ${tenant.id}::uuid AND status = 'PENDING' AND expires_at > now()) < ${maxOpenSessions}
      AND (${frontendSessionId}::uuid IS NULL OR (SELECT count(*) FROM authorization_session
        WHERE tenant_id = ${tenant.id}::uuid AND frontend_session_id = ${frontendSessionId}::uuid
          AND status = 'PENDING' AND expires_at > now()) < ${maxTripsPerFrontendSession})
    RETURNING id`);
    if (row === undefined) {
      throw new LimitExceededError('Too many authorization sessions are open.', sessionSeconds);
    }
    noteAudit(tx, { tenantId: tenant.id, subject: `AuthorizationSession:${id}` });
  });
  return id;
}

/** Where the browser goes from the start page, and the value of the cookie that binds it to the trip. */
export interface StartedTrip {
  authorizationUrl: URL;
  browserToken: Secret;
  /** How long both are good for. */
  expiresInSeconds: number;
}

/**
 * Sends a browser on its way to the provider: makes the state, the code verifier and the browser's token, and stores
 * hashes of what comes back and the sealed verifier. Opening the start page again replaces them: the browser that
 * opened it last is the one that may return.
 *
 * @returns null when there is no such session, or it is no longer pending.
 */
export async function startTrip(deps: Deps, sessionId: string): Promise<StartedTrip | null> {
  const [session] = await deps.db.query<{
    tenantId: string;
    redirectUri: string;
    clientId: string;
    environment: ProviderEnvironment;
    expiresInSeconds: number;
  }>(sql`
    SELECT s.tenant_id AS "tenantId", s.redirect_uri AS "redirectUri", a.client_id AS "clientId", a.environment,
      ceil(extract(epoch FROM s.expires_at - now()))::int AS "expiresInSeconds"
    FROM authorization_session s JOIN provider_app a ON a.id = s.app_id
    WHERE s.id = ${sessionId}::uuid AND s.status = 'PENDING' AND s.expires_at > now()`);
  if (session === undefined) return null;
  const state = createRandomToken();
  const browserToken = createRandomToken();
  const codeVerifier = createCodeVerifier();
  const { sealed } = await deps.vault.seal(deps.db, verifierPlace(session.tenantId, sessionId), codeVerifier);
  const [stored] = await deps.db.query(sql`
    UPDATE authorization_session SET state_hash = ${hashToken(state.reveal())},
      browser_hash = ${hashToken(browserToken.reveal())}, sealed_code_verifier = ${sealed}
    WHERE id = ${sessionId}::uuid AND status = 'PENDING' AND expires_at > now() RETURNING id`);
  if (stored === undefined) return null;
  const authorizationUrl = deps.zoom.authorizationUrl({
    environment: session.environment,
    clientId: session.clientId,
    redirectUri: session.redirectUri,
    state,
    codeChallenge: codeChallengeOf(codeVerifier),
  });
  return { authorizationUrl, browserToken, expiresInSeconds: session.expiresInSeconds };
}

export const verifierPlace = (tenantId: string, sessionId: string) => ({
  tenantId,
  table: 'authorization_session',
  column: 'sealed_code_verifier',
  recordId: sessionId,
  version: 1,
});

export const codePlace = (tenantId: string, sessionId: string) => ({
  tenantId,
  table: 'authorization_session',
  column: 'sealed_code',
  recordId: sessionId,
  version: 1,
});
