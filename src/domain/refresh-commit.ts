import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { traceRefresh } from '../diagnostics.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { ProviderEnvironment, RefreshState } from '../generated/prisma/enums.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomScopeMissingError,
} from '../zoom/errors.js';
import type { Deps } from './deps.js';
import { lockGrant, putOnTrial } from './grant.js';
import { isLive, nextHealth } from './health.js';
import { recordTransitions } from './health-event.js';
import { persist } from './persist.js';
import { asTable, openTokens, RENEW, type Renewal, type RenewedRow } from './renewal.js';
import { revokePending } from './revocation.js';
import { queueRevocation, reopenFormerReceipt, reopenReceipt } from './revocation-queue.js';
import { missingScopes } from './scope.js';

/**
 * What became of a renewal.
 *
 * - `stored`: the credential holds it, or held it already.
 * - `dropped`: somebody ended or replaced the grant; it is worth nothing.
 * - `gone`: the grant was removed, with its tenant; if the caller has the tokens, the provider is to be told.
 * - `undecided`: another attempt with the token before it is under way; ask again when that has ended.
 */
export type CommitOutcome = 'stored' | 'dropped' | 'gone' | 'undecided';

const MAX_BATCH = 100;

/**
 * Stores renewals of healthy grants together: those that come while a transaction runs share the next one.
 *
 * @returns a function that resolves with whether the credential took the row: then it is committed. It rejects when it
 * could not be stored for `patienceMs`, or sooner once `hurry` aborts.
 */
export function createRenewalWriter(
  deps: Pick<Deps, 'db' | 'clock' | 'log'>,
  options: { patienceMs: number; hurry: AbortSignal },
): (row: RenewedRow) => Promise<boolean> {
  const gathering: { row: RenewedRow; resolve: (taken: boolean) => void; reject: (error: unknown) => void }[] = [];
  let writing = false;

  async function write(batch: typeof gathering): Promise<void> {
    const rows = batch.map(({ row }) => row).toSorted((a, b) => (a.grantId < b.grantId ? -1 : 1));
    try {
      const taken = await persist(deps, options, (tx) => storeHealthy(tx, rows));
      for (const { row, resolve } of batch) resolve(taken.has(row.grantId));
    } catch (error) {
      for (const { reject } of batch) reject(error);
    }
  }

  async function writeAll(): Promise<void> {
    writing = true;
    while (gathering.length > 0) await write(gathering.splice(0, MAX_BATCH));
    writing = false;
  }

  return (row) =>
    new Promise((resolve, reject) => {
      gathering.push({ row, resolve, reject });
      if (!writing) void writeAll();
    });
}

/**
 * Stores what changes nothing but the credential, in one statement. The fence alone decides: whoever ends or replaces a
 * grant raises it or removes the row, and waits for this statement or makes it find nothing. Locks no grant.
 */
async function storeHealthy(tx: Sql, rows: readonly RenewedRow[]): Promise<Set<string>> {
  const stored = await tx.query<{ grantId: string }>(sql`
    UPDATE credential c SET ${RENEW}
    FROM ${asTable(rows)}, provider_grant g
    WHERE c.grant_id = new.grant_id AND c.fence = new.fence AND c.version = new.version
      AND g.id = c.grant_id AND g.health_status = 'HEALTHY'
    RETURNING c.grant_id AS "grantId"`);
  for (const row of rows) traceRefresh('committing', row);
  return new Set(stored.map(({ grantId }) => grantId));
}

interface Holder {
  appId: string;
  environment: ProviderEnvironment;
  requiredScopes: string[];
  version: number | null;
  state: RefreshState | null;
  /** Somebody may be asking the provider right now. */
  isLeased: boolean;
}

/**
 * Stores one renewal whatever has become of its grant meanwhile.
 *
 * Only under its own fence are tokens taken as they are. If another attempt was made since with the token before them,
 * and was refused or not answered, these may still be the live ones: they are tried at the provider, and taken if they
 * work.
 *
 * Here as everywhere the grant is locked before its credential, so that ending a grant while it is refreshed waits
 * instead of deadlocking.
 *
 * @throws what the database throws; the renewal is not lost by that.
 */
export async function settleRenewal(
  deps: Deps,
  row: RenewedRow,
  patience: { patienceMs: number; hurry?: AbortSignal },
): Promise<CommitOutcome> {
  const found = await persist(deps, patience, (tx) => storeUnderFence(deps, tx, row));
  if (found === 'stored') deps.feed.publish(HEALTH_TOPIC);
  if (found === 'ended') void revokePending(deps);
  if (found !== 'stored') {
    deps.log.warn('a late answer to a refresh was fenced off', { grantId: row.grantId, tenantId: row.tenantId });
  }
  if (found === 'ended') return 'dropped';
  return found === 'lost' ? adopt(deps, row, patience) : found;
}

async function storeUnderFence(deps: Deps, tx: Sql, row: RenewedRow): Promise<CommitOutcome | 'ended' | 'lost'> {
  const grant = await lockGrant(tx, row.grantId);
  const holder = await findHolder(tx, row.grantId);
  if (grant === undefined || holder === undefined) return 'gone';
  const [taken] = await tx.query(sql`
    UPDATE credential c SET ${RENEW}, scopes = ${row.scopes}::text[] FROM ${asTable([row])}
    WHERE c.grant_id = new.grant_id AND c.fence = new.fence AND c.version = new.version RETURNING c.grant_id`);
  traceRefresh('committing', row);
  if (taken !== undefined) {
    await recordWork(tx, grant, holder, row.scopes);
    return 'stored';
  }
  // Disconnected while the provider was renewing: what it handed out must not outlive the grant.
  if (grant.health.status === 'REVOKED') {
    const tokens = await openTokens(deps.vault, tx, row);
    await queueRevocation(deps, tx, { tenantId: row.tenantId, appId: holder.appId, grantId: grant.id }, tokens);
    await reopenReceipt(tx, grant.id);
    return 'ended';
  }
  if (holder.version !== row.version) return 'dropped';
  if (grant.health.reason === 'ROTATION_LOST') return 'lost';
  if (holder.state === 'IDLE') return 'dropped';
  return holder.isLeased ? 'undecided' : 'lost';
}

/**
 * Hands tokens over to be revoked whose grant was removed while the provider renewed it. Nobody has them but the caller:
 * the key that their row was sealed with is destroyed.
 */
export async function surrenderOrphan(
  deps: Deps,
  { grantId, tenantId, issuedAt, tokens }: Renewal,
  appId: string,
  patience: { patienceMs: number; hurry?: AbortSignal },
): Promise<void> {
  const expiresAt = new Date(issuedAt.getTime() + tokens.expiresInSeconds * 1_000);
  await persist(deps, patience, async (tx) => {
    await queueRevocation(deps, tx, { tenantId, appId, grantId }, { ...tokens, expiresAt });
    await reopenFormerReceipt(tx, grantId);
  });
  void revokePending(deps);
}

async function findHolder(tx: Sql, grantId: string): Promise<Holder | undefined> {
  // Read under the grant's lock: the app may have come to require more since the lease was taken.
  const [holder] = await tx.query<Holder>(sql`
    SELECT a.id AS "appId", a.environment, a.required_scopes AS "requiredScopes", c.version, c.refresh_state AS state,
      coalesce(c.lease_until > now(), false) AS "isLeased"
    FROM provider_grant g JOIN provider_app a ON a.id = g.app_id LEFT JOIN credential c ON c.grant_id = g.id
    WHERE g.id = ${grantId}::uuid`);
  return holder;
}

type LockedGrant = NonNullable<Awaited<ReturnType<typeof lockGrant>>>;

/** The tokens are good: what is known of the grant's scopes and health follows. */
async function recordWork(tx: Sql, grant: LockedGrant, holder: Holder, granted: readonly string[]): Promise<void> {
  const missing = missingScopes(holder.requiredScopes, granted);
  await tx.query(sql`
    UPDATE provider_grant SET granted_scopes = ${granted}::text[], missing_scopes = ${missing}::text[]
    WHERE id = ${grant.id}::uuid`);
  const next = isLive(grant.health.status)
    ? nextHealth(grant.health, { kind: 'worked', by: 'refresh', missingScopes: missing })
    : nextHealth(grant.health, { kind: 'revived', missingScopes: missing });
  await recordTransitions(tx, [{ grantId: grant.id, tenantId: grant.tenantId, previous: grant.health, next }]);
}

/**
 * The rotation was taken for lost, or is in doubt and nobody is at it, and here it is. The provider is asked whether the
 * tokens still work: it may have ended the whole grant when the older token came once more. An access token that has
 * expired meanwhile proves nothing: the refresh token beside it is put on trial.
 */
async function adopt(
  deps: Deps,
  row: RenewedRow,
  patience: { patienceMs: number; hurry?: AbortSignal },
): Promise<CommitOutcome> {
  const { apiUrl, scopes } = row;
  const { accessToken } = await openTokens(deps.vault, deps.db, row);
  const holder = await findHolder(deps.db, row.grantId);
  if (holder === undefined) return 'dropped';
  const expired = await hasExpired(deps.db, row);
  try {
    if (!expired) await deps.zoom.currentUser({ environment: holder.environment, apiUrl, accessToken });
  } catch (error) {
    if (error instanceof ZoomAccessTokenRejectedError || error instanceof ZoomGrantInvalidError) return 'dropped';
    // The token was taken; it only may not read the profile.
    if (error instanceof ZoomError && !(error instanceof ZoomScopeMissingError)) return 'undecided';
    if (!(error instanceof ZoomError)) throw error;
  }
  const outcome = await persist(deps, patience, async (tx): Promise<CommitOutcome> => {
    const grant = await lockGrant(tx, row.grantId);
    if (grant === undefined || !(isLive(grant.health.status) || grant.health.reason === 'ROTATION_LOST')) {
      return 'dropped';
    }
    const [taken] = await tx.query(sql`
      UPDATE credential c SET ${RENEW}, scopes = ${scopes}::text[], fence = c.fence + 1 FROM ${asTable([row])}
      WHERE c.grant_id = new.grant_id AND c.version = new.version AND (c.lease_until IS NULL OR c.lease_until <= now())
      RETURNING c.grant_id`);
    if (taken === undefined) {
      // Somebody has begun to ask with the token before these: if that is refused, these may be the ones that live.
      const now = await findHolder(tx, row.grantId);
      return now?.version === row.version && now.isLeased ? 'undecided' : 'dropped';
    }
    if (!expired) await recordWork(tx, grant, holder, scopes);
    else if (!isLive(grant.health.status)) await putOnTrial(tx, row.grantId);
    return 'stored';
  });
  if (outcome !== 'stored') return outcome;
  deps.log.info('tokens that were taken for lost have been found', {
    grantId: row.grantId,
    tenantId: row.tenantId,
  });
  deps.feed.publish(HEALTH_TOPIC);
  return 'stored';
}

async function hasExpired(db: Sql, { issuedAt, lifeSeconds }: RenewedRow): Promise<boolean> {
  const [row] = await db.query<{ expired: boolean }>(sql`
    SELECT ${issuedAt}::timestamptz + make_interval(secs => ${lifeSeconds}) <= now() AS expired`);
  return row?.expired ?? false;
}
