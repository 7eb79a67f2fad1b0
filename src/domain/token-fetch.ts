import { GrantNotFoundError, MeetingNotFoundError, ProviderUnavailableError } from '../errors.js';
import { type CredentialDeps } from './credential.js';
import { credentialOf } from './grant-call.js';
import { findHostGrants, HOST_CALLS, type HostGrant } from './meeting-host.js';
import {
  firstThatServes,
  localRecordingToken,
  onBehalfOfTokenWith,
  type ProviderToken,
  zakTokenWith,
} from './provider-token.js';
import type { TokenTarget } from './signed-url.js';
import { findGrant } from './user-grant.js';

/** What vendors who fetch a token expect of it at least: they use it for as long without asking again. */
const MIN_TTL_SECONDS = 120;
const RETRY_SECONDS = 5;

/**
 * The token that a target names, for somebody who may have it.
 *
 * @param scope whose it may be: one tenant by its row, or null for all; `tenantId` narrows further, by the product's name.
 * @throws {DomainError} as `credential` and `provider-token` say; an access token that ends within two minutes and
 * cannot be renewed is ProviderUnavailableError.
 */
export async function fetchToken(
  deps: CredentialDeps,
  target: TokenTarget,
  scope: { onlyTenantId: string | null; tenantId: string | null },
): Promise<ProviderToken> {
  const { kind } = target;
  if (target.of === 'meetings') {
    const query = { ...scope, meetingId: target.id };
    if (kind === 'local-recording') return localRecordingToken(deps, query);
    if (kind !== 'access') throw new MeetingNotFoundError();
    const grants = await findHostGrants(deps, query, HOST_CALLS);
    if (grants.length === 0) throw new MeetingNotFoundError();
    return firstThatServes(grants, (grant) => accessTokenOf(deps, grant));
  }
  const grant = await findGrant(deps, target.id, scope.onlyTenantId);
  if (scope.tenantId !== null && scope.tenantId !== grant.externalTenantId) throw new GrantNotFoundError();
  switch (kind) {
    case 'access':
      return accessTokenOf(deps, grant);
    case 'zak':
      return zakTokenWith(deps, [grant]);
    case 'on-behalf-of':
      return onBehalfOfTokenWith(deps, [grant], target.meetingId ?? '');
    case 'local-recording':
      throw new MeetingNotFoundError();
  }
}

async function accessTokenOf(deps: CredentialDeps, grant: HostGrant): Promise<ProviderToken> {
  const { accessToken, expiresAt, warning, grantId, tenantId, version } = await credentialOf(
    deps,
    grant,
    MIN_TTL_SECONDS,
  );
  if (expiresAt.getTime() - deps.clock.now().getTime() < MIN_TTL_SECONDS * 1_000) {
    throw new ProviderUnavailableError(warning ?? 'PROVIDER_UNAVAILABLE', RETRY_SECONDS);
  }
  return { token: accessToken, expiresAt, grantId, tenantId, version };
}
