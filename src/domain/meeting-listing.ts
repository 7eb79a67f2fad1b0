import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { GrantKind, ProviderEnvironment } from '../generated/prisma/enums.js';
import { forgetOtherHosts, writePersonalMeeting } from './meeting-directory.js';
import { bringListingForward, planNextLook, takeAccounts, type AccountKey } from './provider-account.js';

/** What stands in `host_user_id` of the listing of an account's users. */
export const ALL_USERS = '';

/** Longer than one page takes, the renewal of its token included. */
const LEASE_SECONDS = 90;
/** The provider forgets a page after 15 minutes; one that is about to be forgotten is not asked for. */
const PAGE_SECONDS = 14 * 60;

/** One page that this process may ask for now. Its times are cut to the millisecond, as columns hold it, not rounded. */
export interface ClaimedListing extends AccountKey {
  grantId: string;
  tenantId: string;
  /** Whose meetings; `ALL_USERS` for the users of the account. */
  hostUserId: string;
  pageToken: string | null;
  /** When the round began. */
  startedAt: Date;
  /** When the page is asked for, by the database. */
  askedAt: Date;
  /** Compared when the page is stored: whoever took the listing up later has moved it on. */
  leaseUntil: Date;
  failures: number;
  kind: GrantKind;
  environment: ProviderEnvironment;
  /** Identifiers of the product's: what the credential is asked for by. */
  externalTenantId: string;
  externalUserId: string | null;
}

/**
 * Plans what is listed for a grant that was just connected, at once, and notes its user's personal meeting number: the
 * meetings of the one user of a user connection, all users of the account of an installation. What another provider
 * user had left with the grant is removed. In the caller's transaction.
 */
export async function planListing(
  tx: Sql,
  grant: { grantId: string; tenantId: string; appId: string; kind: GrantKind },
  identity: { accountId: string; userId?: string; personalMeetingId?: string | null },
): Promise<void> {
  const { grantId, tenantId } = grant;
  const hostUserId = grant.kind === 'INSTALLATION' ? ALL_USERS : (identity.userId ?? ALL_USERS);
  if (grant.kind === 'USER_CONNECTION') {
    await forgetOtherHosts(tx, grantId, hostUserId);
    await tx.query(sql`
      DELETE FROM meeting_listing WHERE grant_id = ${grantId}::uuid AND host_user_id <> ${hostUserId}`);
    if (hostUserId === ALL_USERS) return;
  }
  const [row] = await tx.query<{ environment: ProviderEnvironment; now: Date }>(sql`
    INSERT INTO meeting_listing (grant_id, host_user_id, tenant_id, environment, provider_account_id, due_at)
    SELECT ${grantId}::uuid, ${hostUserId}, ${tenantId}::uuid, environment, ${identity.accountId}, now()
    FROM provider_app WHERE id = ${grant.appId}::uuid
    ON CONFLICT (grant_id, host_user_id) DO UPDATE SET provider_account_id = excluded.provider_account_id,
      due_at = excluded.due_at, started_at = NULL, page_token = NULL, failures = 0
    RETURNING environment, date_trunc('milliseconds', now()) AS now`);
  if (row === undefined) throw new Error('The listing was not planned.');
  await bringListingForward(tx, { environment: row.environment, providerAccountId: identity.accountId }, 0);
  if (identity.userId === undefined || !identity.personalMeetingId) return;
  await writePersonalMeeting(
    tx,
    { grantId, tenantId, hostUserId: identity.userId },
    identity.personalMeetingId,
    row.now,
  );
}

/**
 * Takes up to `limit` pages, each of another account, the longest overdue first; accounts that another process is at
 * are left to it. An account's next page is not taken before `spacingSeconds` have passed, by any process. What is
 * taken and not settled is due again when its lease runs out, and goes on where it was.
 */
export function claimListings(
  db: { transaction<T>(run: (tx: Sql) => Promise<T>): Promise<T> },
  { limit, spacingSeconds }: { limit: number; spacingSeconds: number },
): Promise<ClaimedListing[]> {
  return db.transaction(async (tx) => {
    const accounts = await takeAccounts(tx, limit);
    if (accounts.length === 0) return [];
    const asked = sql`unnest(${accounts.map(({ environment }) => environment)}::"ProviderEnvironment"[],
      ${accounts.map(({ providerAccountId }) => providerAccountId)}::text[]) AS account(environment, id)`;
    const claimed = await tx.query<ClaimedListing>(sql`
      UPDATE meeting_listing l SET due_at = now() + make_interval(secs => ${LEASE_SECONDS}),
        started_at = CASE WHEN l.page_token_expires_at > now() THEN l.started_at
          ELSE date_trunc('milliseconds', now()) END,
        page_token = CASE WHEN l.page_token_expires_at > now() THEN l.page_token END,
        page_token_expires_at = CASE WHEN l.page_token_expires_at > now() THEN l.page_token_expires_at END
      FROM ${asked}
      CROSS JOIN LATERAL (
        SELECT grant_id, host_user_id FROM meeting_listing due
        WHERE due.environment = account.environment AND due.provider_account_id = account.id AND due.due_at <= now()
        ORDER BY due.due_at LIMIT 1
      ) next
      JOIN provider_grant g ON g.id = next.grant_id JOIN tenant t ON t.id = g.tenant_id
      WHERE l.grant_id = next.grant_id AND l.host_user_id = next.host_user_id
      RETURNING l.grant_id AS "grantId", l.tenant_id AS "tenantId", l.host_user_id AS "hostUserId", l.environment,
        l.provider_account_id AS "providerAccountId", l.page_token AS "pageToken", l.started_at AS "startedAt",
        date_trunc('milliseconds', now()) AS "askedAt", l.due_at AS "leaseUntil", l.failures, g.kind,
        t.external_id AS "externalTenantId", g.external_user_id AS "externalUserId"`);
    await planNextLook(tx, accounts, spacingSeconds);
    return claimed;
  });
}

/** What a claimed listing is settled with. */
export type ListingOutcome =
  /** A page was read; null: it was the last one. `inSeconds`: when the next page, or the next round, is due. */
  | { kind: 'read'; nextPageToken: string | null; inSeconds: number }
  /** Nothing was read. `restart`: the round begins anew, else it goes on where it was. */
  | { kind: 'failed'; restart: boolean; inSeconds: number };

/**
 * Settles a listing that this process still holds; call it first in the transaction that stores what was read.
 *
 * @returns false when another process has taken it up, or the grant was connected anew, meanwhile: then store nothing.
 */
export async function settleListing(tx: Sql, listing: ClaimedListing, outcome: ListingOutcome): Promise<boolean> {
  const due = sql`now() + make_interval(secs => ${outcome.inSeconds}::float8)`;
  const token = outcome.kind === 'read' ? outcome.nextPageToken : null;
  const change =
    outcome.kind === 'failed'
      ? sql`failures = failures + 1, page_token = CASE WHEN ${outcome.restart} THEN NULL ELSE page_token END,
          page_token_expires_at = CASE WHEN ${outcome.restart} THEN NULL ELSE page_token_expires_at END`
      : sql`failures = 0, page_token = ${token}, started_at = CASE WHEN ${token}::text IS NULL THEN NULL ELSE started_at END,
          page_token_expires_at = CASE WHEN ${token}::text IS NOT NULL
            THEN now() + make_interval(secs => ${PAGE_SECONDS}) END`;
  const [settled] = await tx.query(sql`
    UPDATE meeting_listing SET due_at = ${due}, ${change}
    WHERE grant_id = ${listing.grantId}::uuid AND host_user_id = ${listing.hostUserId}
      AND due_at = ${listing.leaseUntil} RETURNING grant_id`);
  if (settled === undefined) return false;
  await bringListingForward(tx, listing, outcome.inSeconds);
  return true;
}

/**
 * Users of the account that a page has shown: the meetings of those who are new are listed from now on, one after the
 * other at the account's spacing.
 */
export async function addHosts(
  tx: Sql,
  listing: ClaimedListing,
  userIds: readonly string[],
  spacingSeconds: number,
): Promise<void> {
  await tx.query(sql`
    INSERT INTO meeting_listing (grant_id, host_user_id, tenant_id, environment, provider_account_id, due_at, seen_at)
    SELECT ${listing.grantId}::uuid, user_id, ${listing.tenantId}::uuid,
      ${listing.environment}::"ProviderEnvironment", ${listing.providerAccountId},
      now() + make_interval(secs => ${spacingSeconds}::float8 * row_number() OVER (ORDER BY random())), ${listing.askedAt}
    FROM (SELECT DISTINCT unnest(${userIds}::text[]) AS user_id) found ORDER BY user_id
    ON CONFLICT (grant_id, host_user_id) DO UPDATE SET seen_at = excluded.seen_at`);
  await bringListingForward(tx, listing, spacingSeconds);
}

/** Of the hosts of a grant, those that a whole round over the users of the account has not shown. */
export const unseenHosts = (listing: Pick<ClaimedListing, 'grantId' | 'startedAt'>) => sql`
  SELECT host_user_id FROM meeting_listing
  WHERE grant_id = ${listing.grantId}::uuid AND host_user_id <> ${ALL_USERS} AND seen_at < ${listing.startedAt}`;

/** Ends the listings of hosts that `unseenHosts` names. */
export async function dropUnseenHosts(tx: Sql, listing: Pick<ClaimedListing, 'grantId' | 'startedAt'>): Promise<void> {
  await tx.query(sql`
    DELETE FROM meeting_listing
    WHERE grant_id = ${listing.grantId}::uuid AND host_user_id IN (${unseenHosts(listing)})`);
}

/** Ends the listing of one host, or with null all listings of a grant. */
export async function dropListings(tx: Sql, grantId: string, hostUserId: string | null = null): Promise<void> {
  await tx.query(sql`
    DELETE FROM meeting_listing
    WHERE grant_id = ${grantId}::uuid AND (${hostUserId}::text IS NULL OR host_user_id = ${hostUserId})`);
}
