import sql from 'sql-template-tag';
import {
  DomainError,
  GrantNotFoundError,
  MeetingNotFoundError,
  MissingScopesError,
  ReauthorizationRequiredError,
} from '../errors.js';
import type { Secret } from '../secret.js';
import { ZoomMeetingUnknownError } from '../zoom/errors.js';
import type { ZoomCaller } from '../zoom/meetings.js';
import type { CredentialDeps } from './credential.js';
import { callWithGrant } from './grant-call.js';
import { isLive } from './health.js';
import { dropMeeting } from './meeting-directory.js';
import { findHostGrants, type HostGrant, type MeetingQuery, normalMeetingId, reachOf } from './meeting-host.js';
import { allows, type MeetingCall, scopeFor } from './meeting-scope.js';
import { findUserGrants } from './user-grant.js';

/** A token that the provider mints for one purpose. It is handed on and never stored. */
export interface ProviderToken {
  token: Secret;
  /** Null where neither the answer nor the token tells. */
  expiresAt: Date | null;
  /** The grant whose credential it was minted with. */
  grantId: string;
  /** The tenant's row. */
  tenantId: string;
  /** Of an access token: the version of the credential. */
  version?: number;
}

/** Grants that are tried one after the other where one cannot serve. */
const MAX_TRIED = 3;
/** Either mints the access key of a user. */
const ZAK_CALLS = ['ownZakToken', 'userToken'] as const;

/**
 * The token that lets a bot record a meeting locally, minted with the credential of its host or of the host's account.
 *
 * @throws {GrantNotFoundError} the tenant that is named has no connection at all.
 * @throws {MeetingNotFoundError} nothing is known of the meeting, or the provider has none of this number.
 * @throws {RefusedByProviderError} local recording is switched off, or the host's plan lacks it.
 * @throws {DomainError} else as `callWithGrant`.
 */
export async function localRecordingToken(deps: CredentialDeps, query: MeetingQuery): Promise<ProviderToken> {
  const meetingId = normalMeetingId(query.meetingId);
  const grants = await findHostGrants(deps, query, ['localRecordingToken']);
  if (meetingId === null || grants.length === 0) throw await nothingFound(deps, query);
  try {
    return await firstThatServes(grants, async (grant) => {
      const scope = requireScope(grant, 'localRecordingToken');
      const { token, expiresInSeconds } = await callWithGrant(deps, grant, scope, (caller) =>
        deps.zoom.meetings.localRecordingToken(caller, meetingId),
      );
      const expiresAt = new Date(deps.clock.now().getTime() + expiresInSeconds * 1_000);
      return { token, expiresAt, grantId: grant.grantId, tenantId: grant.tenantId };
    });
  } catch (error) {
    if (!(error instanceof ZoomMeetingUnknownError)) throw error;
    const grantIds = grants.map(({ grantId }) => grantId);
    await dropMeeting(deps.db, grantIds, meetingId);
    throw new MeetingNotFoundError();
  }
}

async function nothingFound(deps: CredentialDeps, { tenantId, onlyTenantId }: MeetingQuery): Promise<DomainError> {
  if (tenantId === null || tenantId.includes('\0')) return new MeetingNotFoundError();
  const [grant] = await deps.db.query(sql`
    SELECT 1 FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id
    WHERE t.external_id = ${tenantId} AND (${onlyTenantId}::uuid IS NULL OR t.id = ${onlyTenantId}::uuid) LIMIT 1`);
  return grant === undefined ? new GrantNotFoundError() : new MeetingNotFoundError();
}

/** A user of the product, in one tenant. */
export interface UserQuery {
  tenantId: string;
  /** The product's identifier of the user. */
  userId: string;
  /** As in `MeetingQuery`. */
  onlyTenantId: string | null;
}

/**
 * The access key with which a bot starts or joins meetings as a user: minted with the user's own credential, or with
 * that of an installation in the user's account where the user's own lacks the scope.
 *
 * @throws {GrantNotFoundError} the user has no connection.
 * @throws {DomainError} else as `callWithGrant`.
 */
export const zakToken = async (deps: CredentialDeps, query: UserQuery): Promise<ProviderToken> =>
  zakTokenWith(deps, await findUserGrants(deps, query, ZAK_CALLS));

/** As `zakToken`, with the first of `grants` that serves. */
export const zakTokenWith = (deps: CredentialDeps, grants: readonly HostGrant[]): Promise<ProviderToken> =>
  tokenForUser(deps, grants, ZAK_CALLS, (grant) => {
    const { meetings } = deps.zoom;
    if (reachOf(grant) === 'account') {
      return (caller) => meetings.userToken(caller, { userId: grant.hostUserId, type: 'zak' });
    }
    if (allows(grant.scopes, 'ownZakToken', 'own')) return (caller) => meetings.ownZakToken(caller);
    return (caller) => meetings.userToken(caller, { userId: 'me', type: 'zak' });
  });

/**
 * The token with which a bot joins one meeting on behalf of a user who is in it.
 *
 * @throws {MeetingNotFoundError} the number is none, or the provider has no such meeting.
 * @throws {DomainError} else as `zakToken`.
 */
export async function onBehalfOfToken(
  deps: CredentialDeps,
  query: UserQuery & { meetingId: string },
): Promise<ProviderToken> {
  if (normalMeetingId(query.meetingId) === null) throw new MeetingNotFoundError();
  return onBehalfOfTokenWith(deps, await findUserGrants(deps, query, ['userToken']), query.meetingId);
}

/** As `onBehalfOfToken`, with the first of `grants` that serves. */
export async function onBehalfOfTokenWith(
  deps: CredentialDeps,
  grants: readonly HostGrant[],
  meetingNumber: string,
): Promise<ProviderToken> {
  const meetingId = normalMeetingId(meetingNumber);
  if (meetingId === null) throw new MeetingNotFoundError();
  try {
    return await tokenForUser(deps, grants, ['userToken'], (grant) => {
      const userId = reachOf(grant) === 'account' ? grant.hostUserId : 'me';
      return (caller) => deps.zoom.meetings.userToken(caller, { userId, type: 'onbehalf', meetingId });
    });
  } catch (error) {
    throw error instanceof ZoomMeetingUnknownError ? new MeetingNotFoundError() : error;
  }
}

function tokenForUser(
  deps: CredentialDeps,
  grants: readonly HostGrant[],
  calls: readonly MeetingCall[],
  callFor: (grant: HostGrant) => (caller: ZoomCaller) => Promise<Secret>,
): Promise<ProviderToken> {
  return firstThatServes(grants, async (grant) => {
    const scope = requireScope(grant, ...calls);
    const token = await callWithGrant(deps, grant, scope, callFor(grant));
    return { token, expiresAt: expiryOf(token), grantId: grant.grantId, tenantId: grant.tenantId };
  });
}

/**
 * Tries grants in their order, until one serves or the provider says that the meeting does not exist, which no other
 * grant would change. Otherwise the first one's failure counts: it is the one that should have served.
 */
export async function firstThatServes(
  grants: readonly HostGrant[],
  mint: (grant: HostGrant) => Promise<ProviderToken>,
): Promise<ProviderToken> {
  let failure: DomainError | null = null;
  for (const grant of grants.slice(0, MAX_TRIED)) {
    try {
      if (!isLive(grant.healthStatus)) throw new ReauthorizationRequiredError(grant.grantId, grant.healthReason);
      return await mint(grant);
    } catch (error) {
      if (!(error instanceof DomainError)) throw error;
      failure ??= error;
    }
  }
  throw failure ?? new GrantNotFoundError();
}

/** @returns the scope to name where the provider does not find it in the token after all. */
function requireScope(grant: HostGrant, ...calls: readonly MeetingCall[]): string {
  const reach = reachOf(grant);
  const [first] = calls.filter((call) => scopeFor(call, reach) !== '');
  const scope = first === undefined ? '' : scopeFor(first, reach);
  if (!calls.some((call) => allows(grant.scopes, call, reach))) throw new MissingScopesError(grant.grantId, [scope]);
  return scope;
}

/** The `exp` claim of a token that is a JWT (RFC 7519 §4.1.4). Nothing is verified: it is the provider's to trust. */
function expiryOf(token: Secret): Date | null {
  const [, claims = ''] = token.reveal().split('.');
  try {
    const { exp } = JSON.parse(Buffer.from(claims, 'base64url').toString('utf8')) as { exp?: unknown };
    const at = typeof exp === 'number' ? new Date(exp * 1_000) : null;
    return at === null || Number.isNaN(at.getTime()) ? null : at;
  } catch {
    // Not a JWT: the token is opaque, and the parser's message would quote it.
    return null;
  }
}
