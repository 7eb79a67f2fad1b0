import sql from 'sql-template-tag';
import { InvalidInputError, NotFoundError, RefusedByProviderError } from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import {
  ZoomClientRejectedError,
  ZoomGrantInvalidError,
  ZoomRequestRefusedError,
  ZoomScopeMissingError,
} from '../zoom/errors.js';
import type { TokenSet, ZoomIdentity } from '../zoom/zoom.js';
import { callAsApp, type AppClient } from './app-secret.js';
import type { Deps } from './deps.js';
import { storeGrant } from './grant.js';
import { closeIncident, openIncident } from './incident.js';
import { persist } from './persist.js';
import { asDomainError } from './provider-failure.js';
import { requireTenant } from './tenant.js';

const STORE_PATIENCE_MS = 20_000;

/** The provider names accounts by printable identifiers; anything else cannot be one. */
const ACCOUNT_ID = /^[\x21-\x7e]{1,200}$/;

/**
 * Installs a server-to-server app: there is no consent screen, so the first token is minted at once and proves the
 * credentials and the account id, and is used once, which shows that it works. Connecting the same account again replaces
 * its token.
 *
 * @returns the installation's id.
 * @throws {RefusedByProviderError} the provider takes the credentials but not the account, or not the credentials.
 */
export async function connectServerToServer(
  deps: Deps,
  input: { tenantId: string; appId: string; providerAccountId: string },
): Promise<string> {
  if (!ACCOUNT_ID.test(input.providerAccountId)) {
    throw new InvalidInputError("Give the account id that Zoom shows with the app's credentials.", [
      'input',
      'providerAccountId',
    ]);
  }
  const tenant = await requireTenant(deps.db, input.tenantId);
  const [app] = await deps.db.query<AppClient & { kind: ProviderAppKind }>(sql`
    SELECT id, kind, environment, client_id AS "clientId",
      secret_version AS "secretVersion", sealed_client_secret AS "sealedClientSecret",
      CASE WHEN former_client_secret_retires_at > now() THEN sealed_former_client_secret END
        AS "sealedFormerClientSecret"
    FROM provider_app WHERE id = ${input.appId}::uuid`);
  if (app === undefined) throw new NotFoundError('No such provider app exists.');
  if (app.kind !== 'SERVER_TO_SERVER') {
    const begin = app.kind === 'ADMIN_MANAGED' ? 'beginInstallation' : 'beginAuthorization';
    const hint = `Only a server-to-server app connects without consent; use ${begin}.`;
    throw new InvalidInputError(hint, ['input', 'appId']);
  }
  const startedAt = performance.now();
  let tokens: TokenSet;
  let identity: ZoomIdentity | null;
  try {
    tokens = await callAsApp(deps, app, (client) => deps.zoom.mintAccountToken(client, input.providerAccountId));
    identity = await readIdentity(deps, app, tokens);
  } catch (error) {
    if (error instanceof ZoomClientRejectedError) await openIncident(deps, app.id);
    throw asDomainError(error);
  }
  if (identity !== null && identity.accountId !== input.providerAccountId) throw new RefusedByProviderError();
  const ageSeconds = (performance.now() - startedAt) / 1_000;
  const { grantId } = await persist(deps, { patienceMs: STORE_PATIENCE_MS }, (tx) =>
    storeGrant(deps, tx, {
      kind: 'INSTALLATION',
      tenantId: tenant.id,
      app,
      subject: input.providerAccountId,
      externalUserId: null,
      identity: identity ?? { accountId: input.providerAccountId },
      tokens,
      ageSeconds,
    }),
  );
  deps.feed.publish(HEALTH_TOPIC);
  await closeIncident(deps, app.id);
  return grantId;
}

/**
 * Who the token speaks for; null where the app has no scope to ask, or the account has no such user. Then the first call
 * that it has a scope for shows that the token is taken.
 */
async function readIdentity(deps: Deps, app: AppClient, tokens: TokenSet): Promise<ZoomIdentity | null> {
  try {
    const { environment } = app;
    return await deps.zoom.currentUser({ environment, apiUrl: tokens.apiUrl, accessToken: tokens.accessToken });
  } catch (error) {
    const unanswerable =
      error instanceof ZoomScopeMissingError ||
      error instanceof ZoomGrantInvalidError ||
      error instanceof ZoomRequestRefusedError;
    if (!unanswerable) throw error;
    await tryToken(deps, app, tokens);
    return null;
  }
}

/** @throws {ZoomError} unless the token was taken, or no call is known that it may make. */
async function tryToken(deps: Deps, { environment }: AppClient, tokens: TokenSet): Promise<void> {
  try {
    const { apiUrl, accessToken, scopes } = tokens;
    await deps.zoom.readAccount({ environment, apiUrl, accessToken, scopes });
  } catch (error) {
    // Zoom looks at the token first: whatever else it finds wrong, the token was taken.
    if (!(error instanceof ZoomRequestRefusedError || error instanceof ZoomScopeMissingError)) throw error;
  }
}
