import sql from 'sql-template-tag';
import { DomainError, ProviderUnavailableError } from '../errors.js';
import type { RateLimit } from '../zoom/rate-limit.js';
import { ZoomError, ZoomRateLimitedError, ZoomRequestRefusedError, ZoomScopeMissingError } from '../zoom/errors.js';
import type { ZoomPage } from '../zoom/meetings.js';
import { type Credential, type CredentialDeps, readCredential } from './credential.js';
import {
  dropHosts,
  dropUnlisted,
  writeDirectory,
  writePersonalMeeting,
  purgeGoneMeetings,
} from './meeting-directory.js';
import {
  addHosts,
  ALL_USERS,
  claimListings,
  dropListings,
  dropUnseenHosts,
  settleListing,
  unseenHosts,
  type ClaimedListing,
} from './meeting-listing.js';
import { allows } from './meeting-scope.js';
import { pauseAccount, purgeAccounts } from './provider-account.js';

/** Pages that one process reads at once, each of another account. */
const BATCH = 8;
/**
 * Time between two pages of one account. The smallest plan allows two such requests a second for all apps of the
 * account together, and a list can wait where a product's own calls cannot.
 */
const SPACING_SECONDS = 1;
/** Where an account's day is nearly used up, what is left belongs to the product. */
const DAY_RESERVE_SHARE = 0.1;
const DAY_PAUSE_SECONDS = 3_600;
const FIRST_RETRY_SECONDS = 30;
const TOKEN_MIN_TTL_SECONDS = 60;
const USER_UNKNOWN = 1001;

/**
 * Reads the pages that are due and brings the directory up to them: what webhooks did not tell is found here. Several
 * processes share the work; one that dies costs its page a lease, and the round goes on from that page.
 *
 * @returns whether more may be due.
 */
export async function reconcileMeetings(deps: CredentialDeps): Promise<boolean> {
  const intervalSeconds = deps.settings.meetingListIntervalSeconds;
  if (intervalSeconds === null) return false;
  const claimed = await claimListings(deps.db, { limit: BATCH, spacingSeconds: SPACING_SECONDS });
  await Promise.all(claimed.map((listing) => readPage(deps, listing, intervalSeconds)));
  return claimed.length > 0;
}

/** Removes what has served its time. */
export async function purgeMeetings(deps: Pick<CredentialDeps, 'db'>): Promise<void> {
  await purgeGoneMeetings(deps.db);
  await purgeAccounts(deps.db);
}

/** The interval, give or take a quarter, so that rounds which began together drift apart. */
const jittered = (seconds: number): number => seconds * (0.75 + Math.random() / 2);

async function readPage(deps: CredentialDeps, listing: ClaimedListing, intervalSeconds: number): Promise<void> {
  try {
    const credential = await readCredential(deps, {
      tenantId: listing.externalTenantId,
      userId: listing.externalUserId,
      kind: listing.kind,
      grantId: listing.grantId,
      minTtlSeconds: TOKEN_MIN_TTL_SECONDS,
      requiredScopes: [],
    });
    await (listing.hostUserId === ALL_USERS
      ? readUsers(deps, listing, credential, intervalSeconds)
      : readMeetings(deps, listing, credential, intervalSeconds));
  } catch (error) {
    await putOff(deps, listing, { error, intervalSeconds });
  }
}

/** A listing that the token may not make rests until the next round, in case the scope is added. */
const rest = (deps: CredentialDeps, listing: ClaimedListing, intervalSeconds: number) =>
  deps.db.transaction((tx) =>
    settleListing(tx, listing, { kind: 'read', nextPageToken: null, inSeconds: jittered(intervalSeconds) }),
  );

const callerOf = ({ environment }: ClaimedListing, { apiUrl, accessToken }: Credential) => ({
  environment,
  apiUrl,
  accessToken,
});

async function readUsers(
  deps: CredentialDeps,
  listing: ClaimedListing,
  credential: Credential,
  intervalSeconds: number,
): Promise<void> {
  if (!allows(credential.scopes, 'listUsers', 'account')) return void (await rest(deps, listing, intervalSeconds));
  const page = await deps.zoom.meetings.listUsers(callerOf(listing, credential), listing.pageToken);
  const { grantId, tenantId, askedAt } = listing;
  await deps.db.transaction(async (tx) => {
    if (!(await settleListing(tx, listing, outcomeOf(page, intervalSeconds)))) return;
    await addHosts(
      tx,
      listing,
      page.items.map(({ userId }) => userId),
      SPACING_SECONDS,
    );
    for (const { userId: hostUserId, personalMeetingId } of page.items) {
      if (personalMeetingId === null) continue;
      await writePersonalMeeting(tx, { grantId, tenantId, hostUserId }, personalMeetingId, askedAt);
    }
    if (page.nextPageToken === null) {
      await dropHosts(tx, grantId, unseenHosts(listing));
      await dropUnseenHosts(tx, listing);
    }
    await heedLimit(tx, listing, page.rateLimit);
  });
}

async function readMeetings(
  deps: CredentialDeps,
  listing: ClaimedListing,
  credential: Credential,
  intervalSeconds: number,
): Promise<void> {
  const { grantId, tenantId, hostUserId, askedAt, kind } = listing;
  const isOwn = kind === 'USER_CONNECTION';
  const reach = isOwn ? 'own' : 'account';
  if (!allows(credential.scopes, 'listMeetings', reach)) return void (await rest(deps, listing, intervalSeconds));
  const page = await deps.zoom.meetings.listMeetings(callerOf(listing, credential), {
    userId: isOwn ? 'me' : hostUserId,
    pageToken: listing.pageToken,
  });
  await deps.db.transaction(async (tx) => {
    if (!(await settleListing(tx, listing, outcomeOf(page, intervalSeconds)))) return;
    const news = page.items
      // A list also shows meetings that the user may start for somebody else.
      .filter((meeting) => meeting.hostUserId === hostUserId)
      .map(({ meetingId }) => ({
        grantId,
        tenantId,
        meetingId,
        hostUserId,
        isPersonal: false,
        isListed: true,
        isGone: false,
      }));
    await writeDirectory(tx, news, askedAt);
    if (page.nextPageToken === null) await dropUnlisted(tx, { grantId, hostUserId }, listing.startedAt);
    await heedLimit(tx, listing, page.rateLimit);
  });
}

const outcomeOf = ({ nextPageToken }: ZoomPage<unknown>, intervalSeconds: number) => ({
  kind: 'read' as const,
  nextPageToken,
  inSeconds: nextPageToken === null ? jittered(intervalSeconds) : SPACING_SECONDS,
});

/** Stops before the limit is reached, as far as the provider tells how near it is. */
async function heedLimit(
  tx: Parameters<typeof pauseAccount>[0],
  listing: ClaimedListing,
  rateLimit: RateLimit | null,
): Promise<void> {
  if (rateLimit === null || rateLimit.remaining === null) return;
  const { per, limit, remaining } = rateLimit;
  if (per === 'second' && remaining === 0) await pauseAccount(tx, listing, 'listing', 2 * SPACING_SECONDS);
  if (per === 'day' && limit !== null && remaining < limit * DAY_RESERVE_SHARE) {
    await pauseAccount(tx, listing, 'listing', DAY_PAUSE_SECONDS);
  }
}

/**
 * Nothing was read: the listing is due again when trying may help. A token that is refused is left to probes and
 * scheduled refreshes, which find out why: a list can wait for them.
 */
async function putOff(
  deps: CredentialDeps,
  listing: ClaimedListing,
  { error, intervalSeconds }: { error: unknown; intervalSeconds: number },
): Promise<void> {
  const { grantId, tenantId, hostUserId } = listing;
  const isKnown = error instanceof DomainError || error instanceof ZoomError;
  try {
    await deps.db.transaction(async (tx) => {
      const isUserGone = error instanceof ZoomRequestRefusedError && error.code === USER_UNKNOWN;
      if (isUserGone && listing.kind === 'INSTALLATION' && hostUserId !== ALL_USERS) {
        await dropHosts(tx, grantId, sql`SELECT ${hostUserId}::text`);
        return dropListings(tx, grantId, hostUserId);
      }
      if (error instanceof ZoomRateLimitedError) await pauseAccount(tx, listing, 'listing', error.retryAfterSeconds);
      const inSeconds = delayAfter(error, listing.failures, intervalSeconds);
      // Zoom words it in several ways that a page is no longer known; from the first page all of them are healed.
      const restart = error instanceof ZoomRequestRefusedError && listing.pageToken !== null;
      await settleListing(tx, listing, { kind: 'failed', restart, inSeconds });
    });
    if (isKnown) deps.log.info('a list of meetings could not be read', { grantId, tenantId, errorName: error.name });
  } finally {
    if (!isKnown) deps.log.error('a list of meetings failed', { grantId, job: 'reconcile-meetings' }, error);
  }
}

function delayAfter(error: unknown, failures: number, intervalSeconds: number): number {
  if (error instanceof ZoomRateLimitedError) return Math.max(error.retryAfterSeconds ?? 0, 1);
  if (error instanceof ProviderUnavailableError) return Math.max(error.retryAfterSeconds, FIRST_RETRY_SECONDS);
  // The grant has ended, or lacks the scope: being connected anew brings its turn forward.
  if (error instanceof DomainError || error instanceof ZoomScopeMissingError) return jittered(intervalSeconds);
  return jittered(Math.min(intervalSeconds, FIRST_RETRY_SECONDS * 2 ** Math.min(failures, 10)));
}
