import { GrantRefusedError, InvalidInputError, NotFoundError } from '../errors.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import { ZoomAccessTokenRejectedError } from '../zoom/errors.js';
import type { ZoomIdentity } from '../zoom/zoom.js';
import type { Deps } from './deps.js';
import { refuseIdentity } from './grant-admission.js';
import {
  findImportApp,
  type ImportApp,
  type ImportOutcome,
  logImport,
  renewForImport,
  settleImport,
} from './import-settlement.js';
import { newImportId } from './pending-import.js';
import { asDomainError } from './provider-failure.js';
import { requireExternalId, requireTenant } from './tenant.js';

/** How long a caller waits for the database; what is not stored by then is stored from the spool. */
const STORE_PATIENCE_MS = 20_000;

/** Zoom's tokens have about 700 characters. */
const TOKEN = /^[\x21-\x7e]{1,8192}$/;

const TO_BE_CONTINUED =
  'Zoom renewed the tokens and then stopped answering. The import goes on by itself; do not repeat it.';

export interface ImportInput {
  tenantId: string;
  /** Null: an installation. */
  userId: string | null;
  appId: string;
  accessToken: Secret | null;
  refreshToken: Secret;
}

/**
 * Takes over tokens that were obtained elsewhere. The refresh token is spent once, which proves it and makes it ours
 * alone; then the provider is asked whom the new tokens speak for, and they are admitted as after a consent trip.
 *
 * An access token that still works tells beforehand who that is, so that a refusal leaves the tokens as they were.
 * After the refresh there is no way back: what the provider handed out is on this machine's disk before anything else
 * happens, an import that is interrupted goes on from there, and tokens that are refused are revoked.
 *
 * @returns the grant's id, which stays the same when its subject was connected before.
 * @throws {GrantRefusedError} another account than the tenant's, or another person than is connected.
 * @throws {RefusedByProviderError} the provider does not take the tokens, or not the app.
 * @throws {ProviderUnavailableError} its message tells whether to repeat the call.
 */
export async function importGrant(deps: Deps, input: ImportInput): Promise<string> {
  checkInput(input);
  const { id: tenantId } = await requireTenant(deps.db, input.tenantId);
  const app = await findImportApp(deps.db, input.appId);
  if (app === undefined) throw new NotFoundError('No such provider app exists.');
  checkKind(app.kind, input);
  const claimed = input.accessToken === null ? null : await askAhead(deps, app, input.accessToken);
  if (claimed !== null) await checkAhead(deps, app, { tenantId, userId: input.userId }, claimed);
  const outcome = await takeOver(deps, app, {
    id: newImportId(),
    tenantId,
    appId: app.id,
    externalUserId: input.userId,
    claimedUserId: claimed?.userId ?? null,
    refreshToken: input.refreshToken,
  });
  if ('refusal' in outcome) throw outcome.refusal;
  return outcome.grantId;
}

function checkInput({ userId, accessToken, refreshToken }: ImportInput): void {
  if (userId !== null) requireExternalId(userId, ['input', 'userId']);
  for (const [name, token] of Object.entries({ accessToken, refreshToken })) {
    if (token === null || TOKEN.test(token.reveal())) continue;
    throw new InvalidInputError('A token of Zoom is printable ASCII without spaces.', ['input', name]);
  }
}

/** Names what was probably meant, where the kind of the app does not go with the rest of the input. */
function checkKind(kind: ProviderAppKind, { userId }: ImportInput): void {
  if (kind === 'SERVER_TO_SERVER') {
    const hint = 'A server-to-server app has no tokens to import; use connectServerToServer.';
    throw new InvalidInputError(hint, ['input', 'appId']);
  }
  if (kind === 'ADMIN_MANAGED' && userId !== null) {
    const hint = 'A user authorizes a user-managed app; leave out userId to import an installation.';
    throw new InvalidInputError(hint, ['input', 'appId']);
  }
  if (kind === 'USER_MANAGED' && userId === null) {
    const hint = 'An installation needs an admin-managed app; give userId to import the connection of a user.';
    throw new InvalidInputError(hint, ['input', 'appId']);
  }
}

/** Whom the access token speaks for; null where it has expired, which proves nothing about the refresh token. */
async function askAhead(deps: Deps, app: ImportApp, accessToken: Secret): Promise<ZoomIdentity | null> {
  try {
    // Which REST host the tokens are for only a token answer tells.
    return await deps.zoom.currentUser({ environment: app.environment, apiUrl: '', accessToken });
  } catch (error) {
    if (error instanceof ZoomAccessTokenRejectedError) return null;
    throw asDomainError(error);
  }
}

/** Refuses while nothing is spent; checked again under locks once the tokens are renewed. */
async function checkAhead(
  deps: Deps,
  app: ImportApp,
  { tenantId, userId }: { tenantId: string; userId: string | null },
  identity: ZoomIdentity,
): Promise<void> {
  if (userId === null) return;
  const { id: appId, environment } = app;
  const admission = { tenantId, appId, environment, externalUserId: userId, allowIdentityChange: false };
  const failure = await refuseIdentity(deps.db, admission, identity);
  if (failure !== null) throw new GrantRefusedError(failure);
}

async function takeOver(
  deps: Deps,
  app: ImportApp,
  request: Parameters<typeof renewForImport>[2],
): Promise<ImportOutcome> {
  const { pending, spooled } = await renewForImport(deps, app, request).catch((error: unknown) => {
    throw asDomainError(error);
  });
  try {
    const outcome = await settleImport(deps, app, pending, { patienceMs: STORE_PATIENCE_MS });
    spooled.settle();
    logImport(deps, pending, outcome);
    return outcome;
  } catch (error) {
    spooled.postpone();
    throw asDomainError(error, TO_BE_CONTINUED);
  }
}
