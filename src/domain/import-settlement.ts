import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import {
  type DomainError,
  GrantRefusedError,
  InvalidInputError,
  NotFoundError,
  RefusedByProviderError,
} from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import type { Spooled } from '../spool/spool.js';
import { VaultOpenError } from '../vault/errors.js';
import { ZoomAccessTokenRejectedError, ZoomClientRejectedError, ZoomGrantInvalidError } from '../zoom/errors.js';
import type { ZoomIdentity } from '../zoom/zoom.js';
import { callAsApp, type AppClient } from './app-secret.js';
import type { Deps } from './deps.js';
import { lockForGrant, refuseIdentity } from './grant-admission.js';
import { storeGrant, supersedeOthers } from './grant.js';
import { recordTransitions } from './health-event.js';
import { closeIncident, openIncident } from './incident.js';
import { openImport, type PendingImport, sealImport } from './pending-import.js';
import { persist } from './persist.js';
import { asDomainError, isRefusal } from './provider-failure.js';
import { revokePending } from './revocation.js';
import { holdTenant, queueRevocation } from './revocation-queue.js';

/** A token this close to its end is renewed before it is used to ask whom it speaks for. */
const EXPIRY_MARGIN_SECONDS = 30;

export type ImportApp = AppClient & { kind: ProviderAppKind };

export async function findImportApp(db: Sql, appId: string): Promise<ImportApp | undefined> {
  const [app] = await db.query<ImportApp>(sql`
    SELECT id, kind, environment, client_id AS "clientId",
      secret_version AS "secretVersion", sealed_client_secret AS "sealedClientSecret",
      CASE WHEN former_client_secret_retires_at > now() THEN sealed_former_client_secret END
        AS "sealedFormerClientSecret"
    FROM provider_app WHERE id = ${appId}::uuid`);
  return app;
}

/**
 * Spends a refresh token and resolves when what came for it is on this machine's disk. All that is needed for that is in
 * hand before the request is sent.
 *
 * @throws {ZoomError} as `Zoom.refresh`.
 */
export async function renewForImport(
  deps: Deps,
  app: AppClient,
  { refreshToken, ...owner }: Omit<PendingImport, 'issuedAt' | 'tokens'> & { refreshToken: Secret },
): Promise<{ pending: PendingImport; spooled: Spooled }> {
  const sealer = await deps.vault.sealer(deps.db, owner.tenantId);
  const keep = await deps.spool.prepare();
  const [clock] = await deps.db.query<{ now: Date }>(sql`SELECT clock_timestamp() AS now`);
  if (clock === undefined) throw new Error('The database did not tell the time.');
  try {
    const answer = await callAsApp(deps, app, (client) => deps.zoom.refresh(client, refreshToken));
    // RFC 6749 §6: without a new refresh token the former one stays good.
    const tokens = { ...answer, refreshToken: answer.refreshToken ?? refreshToken };
    const pending = { ...owner, issuedAt: clock.now, tokens };
    return { pending, spooled: await keep(sealImport(sealer, pending)) };
  } catch (error) {
    if (error instanceof ZoomClientRejectedError) await openIncident(deps, app.id);
    throw error;
  }
}

export type ImportOutcome = { grantId: string } | { refusal: DomainError };

/**
 * Asks the provider whom renewed tokens speak for, and stores or refuses them. Tokens that are refused are revoked, since
 * nobody else has them. May be repeated: what was stored by an earlier attempt, or replaced since, stays as it is.
 *
 * @throws {ZoomError} the provider cannot tell now; and what the database throws. The import is unfinished then.
 */
export async function settleImport(
  deps: Deps,
  app: ImportApp,
  pending: PendingImport,
  patience: { patienceMs: number },
): Promise<ImportOutcome> {
  const { accessToken, apiUrl } = pending.tokens;
  let identity: ZoomIdentity;
  try {
    identity = await deps.zoom.currentUser({ environment: app.environment, apiUrl, accessToken });
  } catch (error) {
    if (!isRefusal(error)) throw error;
    // What the provider does not take any more is dead, and revoking it might end what took its place.
    const isDead = error instanceof ZoomAccessTokenRejectedError;
    if (!isDead) await persist(deps, patience, (tx) => surrender(deps, tx, pending));
    void revokePending(deps);
    return { refusal: asDomainError(error) as DomainError };
  }
  const outcome = await persist(deps, patience, (tx) => store(deps, tx, { app, pending, identity }));
  deps.feed.publish(HEALTH_TOPIC);
  void revokePending(deps);
  await closeIncident(deps, app.id);
  return outcome;
}

const surrender = (deps: Deps, tx: Sql, { tokens, issuedAt, ...owner }: PendingImport): Promise<void> =>
  queueRevocation(deps, tx, owner, {
    ...tokens,
    expiresAt: new Date(issuedAt.getTime() + tokens.expiresInSeconds * 1_000),
  });

async function store(
  deps: Deps,
  tx: Sql,
  { app, pending, identity }: { app: ImportApp; pending: PendingImport; identity: ZoomIdentity },
): Promise<ImportOutcome> {
  const { tenantId, appId, externalUserId } = pending;
  if (!(await holdTenant(tx, tenantId))) {
    await surrender(deps, tx, pending);
    return { refusal: new NotFoundError('No such tenant exists.') };
  }
  const subject = externalUserId ?? identity.accountId;
  await lockForGrant(tx, { tenantId, appId, subject, providerUserId: identity.userId });
  const newer = await findNewer(tx, pending, { subject, providerUserId: identity.userId });
  if (newer !== null) return newer;
  const refusal = await refuse(tx, { app, pending, identity });
  if (refusal !== null) {
    // That the tokens worked says that older ones of this provider user do not, and these end now.
    await surrender(deps, tx, pending);
    await recordTransitions(tx, await supersedeOthers(tx, appId, identity.userId, null));
    return { refusal };
  }
  const [age] = await tx.query<{ seconds: number }>(sql`
    SELECT extract(epoch FROM now() - ${pending.issuedAt}::timestamptz)::float8 AS seconds`);
  return storeGrant(deps, tx, {
    kind: externalUserId === null ? 'INSTALLATION' : 'USER_CONNECTION',
    tenantId,
    app: { id: appId, kind: app.kind },
    subject,
    externalUserId,
    identity,
    tokens: pending.tokens,
    ageSeconds: age?.seconds ?? 0,
  });
}

/**
 * A grant of the same provider user that was stored after the tokens were renewed: by an earlier attempt at this import,
 * whose answer was lost, or by a consent, which has killed the tokens.
 */
async function findNewer(
  tx: Sql,
  { tenantId, appId, issuedAt }: PendingImport,
  { subject, providerUserId }: { subject: string; providerUserId: string },
): Promise<ImportOutcome | null> {
  const [newer] = await tx.query<{ id: string; isOurs: boolean }>(sql`
    SELECT id, tenant_id = ${tenantId}::uuid AND subject = ${subject} AS "isOurs" FROM provider_grant
    WHERE app_id = ${appId}::uuid AND provider_user_id = ${providerUserId} AND authorized_at >= ${issuedAt}::timestamptz
    ORDER BY "isOurs" DESC LIMIT 1`);
  if (newer === undefined) return null;
  return newer.isOurs ? { grantId: newer.id } : { refusal: new RefusedByProviderError() };
}

async function refuse(
  tx: Sql,
  { app, pending, identity }: { app: ImportApp; pending: PendingImport; identity: ZoomIdentity },
): Promise<DomainError | null> {
  if (pending.claimedUserId !== null && pending.claimedUserId !== identity.userId) {
    return new InvalidInputError('The two tokens speak for two Zoom users.', ['input', 'accessToken']);
  }
  const { tenantId, appId, externalUserId } = pending;
  if (externalUserId === null) return null;
  const { environment } = app;
  const admission = { tenantId, appId, environment, externalUserId, allowIdentityChange: false };
  const failure = await refuseIdentity(tx, admission, identity);
  return failure === null ? null : new GrantRefusedError(failure);
}

/**
 * Goes on with an import that was interrupted after its tokens had been renewed, and ends or postpones its entry. Never
 * rejects.
 */
export async function resumeImport(deps: Deps, spooled: Spooled): Promise<void> {
  let held = spooled;
  try {
    let pending = await openImport(deps, spooled.entry);
    const app = await findImportApp(deps.db, pending.appId);
    // Without the app nobody can use the tokens, nor revoke them.
    if (app === undefined) return held.settle();
    if (await hasExpired(deps.db, pending)) {
      const { refreshToken } = pending.tokens;
      const renewed = await renewForImport(deps, app, { ...ownerOf(pending), refreshToken });
      held.settle();
      ({ pending, spooled: held } = renewed);
    }
    const outcome = await settleImport(deps, app, pending, { patienceMs: 0 });
    held.settle();
    logImport(deps, pending, outcome);
  } catch (error) {
    const { tenantId } = spooled.entry;
    deps.log.error('an import could not be finished', { tenantId, job: 'replay-spool' }, error);
    // What does not open now never will, and what the provider refuses to renew is dead.
    if (error instanceof VaultOpenError || error instanceof ZoomGrantInvalidError) held.settle();
    else held.postpone();
  }
}

const ownerOf = ({ id, tenantId, appId, externalUserId, claimedUserId }: PendingImport) => ({
  id,
  tenantId,
  appId,
  externalUserId,
  claimedUserId,
});

async function hasExpired(db: Sql, { issuedAt, tokens }: PendingImport): Promise<boolean> {
  const [row] = await db.query<{ expired: boolean }>(sql`
    SELECT ${issuedAt}::timestamptz + make_interval(secs => ${tokens.expiresInSeconds - EXPIRY_MARGIN_SECONDS}) <= now()
      AS expired`);
  return row?.expired ?? false;
}

/** Says what became of an import; never what it held. */
export function logImport(deps: Pick<Deps, 'log'>, pending: PendingImport, outcome: ImportOutcome): void {
  const { tenantId, appId } = pending;
  if ('grantId' in outcome) {
    deps.log.info('tokens obtained elsewhere were imported', { tenantId, appId, grantId: outcome.grantId });
    return;
  }
  const { refusal } = outcome;
  const reason = refusal instanceof GrantRefusedError ? refusal.failure : refusal.name;
  deps.log.info('tokens obtained elsewhere were refused', { tenantId, appId, reason });
}
