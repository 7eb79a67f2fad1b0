import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { NotFoundError } from '../errors.js';
import type { GrantKind, ProviderAppKind } from '../generated/prisma/enums.js';
import type { Sealed, Sealer } from '../vault/vault.js';
import type { TokenSet, ZoomIdentity } from '../zoom/zoom.js';
import type { Deps } from './deps.js';
import { healthOf, nextHealth, type HealthState } from './health.js';
import { healthFrom, recordTransitions, type HealthColumns, type Transition } from './health-event.js';
import { forgetMeetings } from './meeting-directory.js';
import { dropListings, planListing } from './meeting-listing.js';
import { probeDelaySeconds, refreshDelaySeconds } from './refresh-delay.js';
import { holdTenant, queueRevocation } from './revocation-queue.js';
import { missingScopes } from './scope.js';

/**
 * The provider's documented idle limit of a refresh token.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth/ (read November 2026)
 */
export const REFRESH_TOKEN_DAYS = 90;

export const credentialPlace = (
  grant: { id: string; tenantId: string },
  column: 'sealed_access_token' | 'sealed_refresh_token',
  version: number,
) => ({ tenantId: grant.tenantId, table: 'credential', column, recordId: grant.id, version });

/** Seals the tokens of one version of a credential. */
export function sealTokens(
  sealer: Sealer,
  grant: { id: string; tenantId: string },
  version: number,
  tokens: Pick<TokenSet, 'accessToken' | 'refreshToken'>,
) {
  const { accessToken, refreshToken } = tokens;
  return {
    access: sealer.seal(credentialPlace(grant, 'sealed_access_token', version), accessToken),
    refresh:
      refreshToken === null ? null : sealer.seal(credentialPlace(grant, 'sealed_refresh_token', version), refreshToken),
    keyVersion: sealer.keyVersion,
  };
}

/** What a completed consent is stored from. */
export interface GrantToStore {
  kind: GrantKind;
  tenantId: string;
  app: { id: string; kind: ProviderAppKind };
  subject: string;
  externalUserId: string | null;
  identity: Pick<ZoomIdentity, 'accountId'> & Partial<ZoomIdentity>;
  tokens: TokenSet;
  /** Seconds since the provider was asked for the tokens; their life began then. */
  ageSeconds: number;
}

interface GrantRow extends HealthColumns {
  id: string;
  tenantId: string;
}

/**
 * Stores a grant and its credential, replacing what the same subject had, marks older grants of the same provider user
 * SUPERSEDED, and records the events. All in the caller's transaction; publish `HEALTH_TOPIC` after it.
 *
 * @returns the grant's id, which stays the same when a subject connects again.
 * @throws {NotFoundError} the tenant is gone, or being deleted.
 */
export async function storeGrant(
  deps: Pick<Deps, 'vault' | 'settings'>,
  tx: Sql,
  input: GrantToStore,
): Promise<{ grantId: string }> {
  const { identity } = input;
  if (!(await holdTenant(tx, input.tenantId))) throw new NotFoundError('No such tenant exists.');
  // A change of what the app requires waits for this, or is seen by it.
  const [row] = await tx.query<{ requiredScopes: string[] }>(sql`
    SELECT required_scopes AS "requiredScopes" FROM provider_app WHERE id = ${input.app.id}::uuid FOR SHARE`);
  const app = { ...input.app, requiredScopes: row?.requiredScopes ?? [] };
  // RFC 6749 §5.1: an answer that names no scopes grants what was asked for.
  const scopes = input.tokens.scopes.length > 0 ? input.tokens.scopes : [...app.requiredScopes];
  const tokens = { ...input.tokens, scopes };
  const missing = missingScopes(app.requiredScopes, scopes);
  const [existing] = await tx.query<GrantRow & { providerUserId: string | null }>(sql`
    SELECT id, tenant_id AS "tenantId", provider_user_id AS "providerUserId", health_status AS "healthStatus",
      health_reason AS "healthReason"
    FROM provider_grant
    WHERE tenant_id = ${input.tenantId}::uuid AND app_id = ${app.id}::uuid AND subject = ${input.subject} FOR UPDATE`);
  // The same provider user's former tokens died with the new consent; another user's would live on unseen.
  if (existing !== undefined && app.kind !== 'SERVER_TO_SERVER' && existing.providerUserId !== identity.userId) {
    await surrenderTokens(deps, tx, { ...existing, health: healthFrom(existing) });
  }
  const next = nextHealth(existing === undefined ? healthOf('CONNECTED') : healthFrom(existing), {
    kind: 'consented',
    missingScopes: missing,
  });
  const [stored] = await tx.query<{ id: string }>(sql`
    INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
      provider_user_id, provider_user_email, provider_user_name, granted_scopes, missing_scopes, health_status,
      health_reason, health_since, health_checked_at, authorized_at)
    VALUES (${existing?.id ?? randomUUID()}::uuid, ${input.kind}::"GrantKind", ${input.tenantId}::uuid, ${app.id}::uuid,
      ${input.subject}, ${input.externalUserId}, ${identity.accountId}, ${identity.userId ?? null},
      ${identity.email ?? null}, ${identity.displayName ?? null}, ${tokens.scopes}::text[], ${missing}::text[],
      ${next.status}::"HealthStatus", ${next.reason}::"HealthReason", now(), now(), now())
    ON CONFLICT (tenant_id, app_id, subject) DO UPDATE SET
      provider_account_id = excluded.provider_account_id, provider_user_id = excluded.provider_user_id,
      provider_user_email = excluded.provider_user_email, provider_user_name = excluded.provider_user_name,
      provider_user_email_at = NULL, provider_user_name_at = NULL, authorized_at = excluded.authorized_at,
      granted_scopes = excluded.granted_scopes, missing_scopes = excluded.missing_scopes
    RETURNING id`);
  if (stored === undefined) throw new Error('The grant was not stored.');
  const grant = { id: stored.id, tenantId: input.tenantId };
  await storeCredential(deps, tx, { ...grant, appId: app.id }, tokens, input.ageSeconds);
  await planListing(tx, { grantId: grant.id, tenantId: grant.tenantId, appId: app.id, kind: input.kind }, identity);
  if (input.kind === 'INSTALLATION') await putUsersOnTrial(tx, input.tenantId, identity.accountId);

  const previous = existing ? healthFrom(existing) : null;
  const transitions: Transition[] = [{ grantId: grant.id, tenantId: grant.tenantId, previous, next, always: true }];
  if (app.kind !== 'SERVER_TO_SERVER' && identity.userId !== undefined) {
    transitions.push(...(await supersedeOthers(tx, app.id, identity.userId, grant.id)));
  }
  await recordTransitions(tx, transitions);
  return { grantId: grant.id };
}

async function storeCredential(
  deps: Pick<Deps, 'vault' | 'settings'>,
  tx: Sql,
  grant: { id: string; tenantId: string; appId: string },
  tokens: TokenSet,
  ageSeconds: number,
): Promise<void> {
  // The row is made or locked first, so that the version the seals are bound to is the version that is stored.
  const [current] = await tx.query<{ version: number }>(sql`
    SELECT version FROM credential WHERE grant_id = ${grant.id}::uuid FOR UPDATE`);
  const [former] = await tx.query<{ version: number }>(sql`
    SELECT former_version AS version FROM provider_grant WHERE id = ${grant.id}::uuid`);
  const version = (current?.version ?? former?.version ?? 0) + 1;
  const sealed = sealTokens(await deps.vault.sealer(tx, grant.tenantId), grant, version, tokens);
  const life = tokens.expiresInSeconds - ageSeconds;
  const delay = refreshDelaySeconds(life, deps.settings.refreshMarginSeconds);
  const probeDelay = probeDelaySeconds(delay, deps.settings.probeIntervalSeconds);
  const refreshable = tokens.refreshToken !== null;
  await tx.query(sql`
    INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, sealed_refresh_token, key_version, scopes, api_url,
      issued_at, expires_at, refresh_expires_at, next_refresh_at, next_probe_at, refresh_state, fence, failures)
    VALUES (${grant.id}::uuid, ${grant.tenantId}::uuid, ${grant.appId}::uuid, ${version}, ${sealed.access}, ${sealed.refresh}, ${sealed.keyVersion},
      ${tokens.scopes}::text[], ${tokens.apiUrl}, now() - make_interval(secs => ${ageSeconds}),
      now() + make_interval(secs => ${life}),
      CASE WHEN ${refreshable} THEN now() + make_interval(days => ${REFRESH_TOKEN_DAYS}) END,
      now() + make_interval(secs => ${delay}), now() + make_interval(secs => ${probeDelay}::float8), 'IDLE', 1, 0)
    ON CONFLICT (grant_id) DO UPDATE SET version = excluded.version,
      sealed_access_token = excluded.sealed_access_token, sealed_refresh_token = excluded.sealed_refresh_token,
      key_version = excluded.key_version, scopes = excluded.scopes, api_url = excluded.api_url,
      issued_at = excluded.issued_at, expires_at = excluded.expires_at,
      refresh_expires_at = excluded.refresh_expires_at, next_refresh_at = excluded.next_refresh_at,
      next_probe_at = excluded.next_probe_at, on_trial = false, refresh_state = 'IDLE', fence = credential.fence + 1, lease_until = NULL, failures = 0, failure_reason = NULL,
      retry_at = NULL`);
}

/**
 * The provider keeps one live grant for each app and user: a new consent kills the tokens of the older ones, whichever
 * tenant holds them. Their running refreshes are fenced off.
 *
 * @param exceptGrantId the grant that holds the new tokens; null when they were not kept.
 * @see https://developers.zoom.us/docs/integrations/oauth-error-messages/ (4741)
 */
export async function supersedeOthers(
  tx: Sql,
  appId: string,
  providerUserId: string,
  exceptGrantId: string | null,
): Promise<Transition[]> {
  const others = await tx.query<GrantRow>(sql`
    SELECT id, tenant_id AS "tenantId", health_status AS "healthStatus", health_reason AS "healthReason"
    FROM provider_grant
    WHERE app_id = ${appId}::uuid AND provider_user_id = ${providerUserId}
      AND id IS DISTINCT FROM ${exceptGrantId}::uuid AND health_status <> 'REVOKED'
      AND health_reason <> 'SUPERSEDED'
    ORDER BY id FOR UPDATE`);
  for (const { id } of others) await retireCredential(tx, id);
  return others.map((other) => ({
    grantId: other.id,
    tenantId: other.tenantId,
    previous: healthFrom(other),
    next: nextHealth(healthFrom(other), { kind: 'ended', reason: 'SUPERSEDED' }),
  }));
}

/**
 * Queues the tokens that a grant holds to be revoked at the provider, in the caller's transaction. Tokens of a
 * superseded grant are left out: they are dead, and revoking one might end the grant that took its place.
 */
export async function surrenderTokens(
  deps: Pick<Deps, 'vault'>,
  tx: Sql,
  grant: { id: string; tenantId: string; health: HealthState },
): Promise<void> {
  if (grant.health.reason === 'SUPERSEDED') return;
  const [credential] = await tx.query<{
    appId: string;
    version: number;
    sealedAccessToken: Sealed;
    sealedRefreshToken: Sealed | null;
    expiresAt: Date;
  }>(sql`
    SELECT g.app_id AS "appId", c.version, c.sealed_access_token AS "sealedAccessToken",
      c.sealed_refresh_token AS "sealedRefreshToken", c.expires_at AS "expiresAt"
    FROM credential c JOIN provider_grant g ON g.id = c.grant_id
    WHERE c.grant_id = ${grant.id}::uuid FOR UPDATE OF c`);
  if (credential === undefined) return;
  const { appId, version, sealedAccessToken, sealedRefreshToken, expiresAt } = credential;
  const open = (column: Parameters<typeof credentialPlace>[1], sealed: Sealed) =>
    deps.vault.open(tx, credentialPlace(grant, column, version), sealed);
  const accessToken = await open('sealed_access_token', sealedAccessToken);
  const refreshToken = sealedRefreshToken === null ? null : await open('sealed_refresh_token', sealedRefreshToken);
  const owner = { tenantId: grant.tenantId, appId, grantId: grant.id };
  await queueRevocation(deps, tx, owner, { accessToken, refreshToken, expiresAt });
}

/**
 * Destroys the credential of a grant that the caller has locked, and its part of the meeting directory. A refresh that is under way finds nothing to commit to,
 * also when the grant is given a new credential meanwhile.
 */
export async function destroyCredential(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`
    WITH destroyed AS (DELETE FROM credential WHERE grant_id = ${grantId}::uuid RETURNING version)
    UPDATE provider_grant SET former_version = version FROM destroyed WHERE id = ${grantId}::uuid`);
  await dropListings(tx, grantId);
  await forgetMeetings(tx, grantId);
}

/** Ends refreshing of a credential whose tokens are dead at the provider, and fences off one that is under way. */
export async function retireCredential(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`
    UPDATE credential SET fence = fence + 1, refresh_state = 'IDLE', lease_until = NULL, next_refresh_at = NULL,
      next_probe_at = NULL, on_trial = false
    WHERE grant_id = ${grantId}::uuid`);
}

/** One refresh finds out whether a grant that has ended works again; a refusal leaves it as it is. */
export async function putOnTrial(tx: Sql, grantId: string): Promise<void> {
  await tx.query(sql`
    UPDATE credential SET on_trial = true, next_refresh_at = now(), refresh_state = 'IDLE', lease_until = NULL,
      retry_at = NULL
    WHERE grant_id = ${grantId}::uuid`);
}

/**
 * An administrator has installed the app again: what ended for the users of the account because it had been disallowed
 * may be over. One refresh of each finds out; those that are still refused stay as they are.
 */
async function putUsersOnTrial(tx: Sql, tenantId: string, accountId: string): Promise<void> {
  const users = await tx.query<{ id: string }>(sql`
    SELECT id FROM provider_grant
    WHERE tenant_id = ${tenantId}::uuid AND provider_account_id = ${accountId} AND kind = 'USER_CONNECTION'
      AND health_reason IN ('DISABLED_BY_ADMIN', 'GRANT_REJECTED')`);
  for (const { id } of users) await putOnTrial(tx, id);
}

/** An installation ended at the provider: the connections of the account's users are probed now, not when it is their turn. */
export async function probeUsersOf(tx: Sql, installation: { tenantId: string; accountId: string }): Promise<void> {
  await tx.query(sql`
    UPDATE credential c SET next_probe_at = now()
    FROM provider_grant g
    WHERE g.id = c.grant_id AND g.tenant_id = ${installation.tenantId}::uuid
      AND g.provider_account_id = ${installation.accountId} AND g.kind = 'USER_CONNECTION'
      AND g.health_status IN ('HEALTHY', 'DEGRADED')`);
}

/** The health of a grant for update, or undefined where it is gone. */
export async function lockGrant(tx: Sql, grantId: string): Promise<(GrantRow & { health: HealthState }) | undefined> {
  const [row] = await tx.query<GrantRow>(sql`
    SELECT id, tenant_id AS "tenantId", health_status AS "healthStatus", health_reason AS "healthReason"
    FROM provider_grant WHERE id = ${grantId}::uuid FOR UPDATE`);
  return row === undefined ? undefined : { ...row, health: healthFrom(row) };
}
