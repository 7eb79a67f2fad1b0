import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { ProviderEnvironment } from '../generated/prisma/enums.js';

/** An account at the provider. */
export interface AccountKey {
  environment: ProviderEnvironment;
  providerAccountId: string;
}

/** An account whose provider names no time to wait has used up its second. */
const DEFAULT_PAUSE_SECONDS = 1;

/**
 * The provider asks for silence about lists or about tokens of an account. It counts requests per account, whichever
 * app or tenant they come from, so the pause holds for all of them and in every process.
 */
export async function pauseAccount(
  tx: Sql,
  { environment, providerAccountId }: AccountKey,
  what: 'listing' | 'tokens',
  seconds: number | null,
): Promise<void> {
  const until = sql`now() + make_interval(secs => ${Math.max(seconds ?? 0, DEFAULT_PAUSE_SECONDS)}::float8)`;
  const pausesListing = what === 'listing';
  await tx.query(sql`
    INSERT INTO provider_account AS known (environment, account_id, listing_paused_until, tokens_paused_until)
    VALUES (${environment}::"ProviderEnvironment", ${providerAccountId}, CASE WHEN ${pausesListing} THEN ${until} END,
      CASE WHEN NOT ${pausesListing} THEN ${until} END)
    ON CONFLICT (environment, account_id) DO UPDATE SET
      listing_paused_until = greatest(known.listing_paused_until, excluded.listing_paused_until),
      tokens_paused_until = greatest(known.tokens_paused_until, excluded.tokens_paused_until)`);
}

/** Seconds for which no token of the account may be asked for; 0: none. */
export async function tokensPausedSeconds(db: Sql, { environment, providerAccountId }: AccountKey): Promise<number> {
  const [row] = await db.query<{ seconds: number }>(sql`
    SELECT ceil(extract(epoch FROM tokens_paused_until - now()))::int AS seconds FROM provider_account
    WHERE environment = ${environment}::"ProviderEnvironment" AND account_id = ${providerAccountId}
      AND tokens_paused_until > now()`);
  return row?.seconds ?? 0;
}

/** Locks accounts that may be listed now, the longest waiting first; those that another process has are left to it. */
export function takeAccounts(tx: Sql, limit: number): Promise<AccountKey[]> {
  return tx.query<AccountKey>(sql`
    SELECT environment, account_id AS "providerAccountId" FROM provider_account
    WHERE next_listing_at <= now() AND (listing_paused_until IS NULL OR listing_paused_until <= now())
    ORDER BY next_listing_at LIMIT ${limit} FOR UPDATE SKIP LOCKED`);
}

/**
 * When locked accounts are looked at next: as soon as one of their listings is due, but not before `spacingSeconds`;
 * never where they have none.
 */
export async function planNextLook(tx: Sql, accounts: readonly AccountKey[], spacingSeconds: number): Promise<void> {
  await tx.query(sql`
    UPDATE provider_account a SET listing_paused_until = NULL, next_listing_at = (
      SELECT greatest(now() + make_interval(secs => ${spacingSeconds}::float8), min(l.due_at)) FROM meeting_listing l
      WHERE l.environment = a.environment AND l.provider_account_id = a.account_id HAVING count(*) > 0)
    FROM unnest(${accounts.map(({ environment }) => environment)}::"ProviderEnvironment"[],
      ${accounts.map(({ providerAccountId }) => providerAccountId)}::text[]) AS account(environment, id)
    WHERE a.environment = account.environment AND a.account_id = account.id`);
}

/** One of the account's listings is due in so many seconds, so the account is looked at by then. */
export async function bringListingForward(
  tx: Sql,
  { environment, providerAccountId }: AccountKey,
  inSeconds: number,
): Promise<void> {
  await tx.query(sql`
    INSERT INTO provider_account AS known (environment, account_id, next_listing_at)
    VALUES (${environment}::"ProviderEnvironment", ${providerAccountId},
      now() + make_interval(secs => ${inSeconds}::float8))
    ON CONFLICT (environment, account_id) DO UPDATE SET
      next_listing_at = least(known.next_listing_at, excluded.next_listing_at)`);
}

/** Removes accounts that have nothing to list and no pause. One that was just given a listing has its next look set. */
export async function purgeAccounts(tx: Sql): Promise<void> {
  await tx.query(sql`
    DELETE FROM provider_account a
    WHERE next_listing_at IS NULL
      AND coalesce(a.listing_paused_until, '-infinity') < now() AND coalesce(a.tokens_paused_until, '-infinity') < now()`);
}
