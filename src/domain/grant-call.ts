import { MissingScopesError, ProviderUnavailableError, RefusedByProviderError } from '../errors.js';
import type { GrantKind, ProviderEnvironment } from '../generated/prisma/enums.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomMeetingUnknownError,
  ZoomRateLimitedError,
  ZoomRequestRefusedError,
  ZoomScopeMissingError,
} from '../zoom/errors.js';
import type { ZoomCaller } from '../zoom/meetings.js';
import { type Credential, type CredentialDeps, readCredential } from './credential.js';
import { pauseAccount, tokensPausedSeconds } from './provider-account.js';

/** Whose credential a call is made with. */
export interface CallingGrant {
  grantId: string;
  /** The tenant's row; `externalTenantId` is the product's name for it. */
  tenantId: string;
  externalTenantId: string;
  externalUserId: string | null;
  kind: GrantKind;
  environment: ProviderEnvironment;
  providerAccountId: string;
}

/** Enough for one call. */
const CALL_TTL_SECONDS = 30;
const RETRY_SECONDS = 5;

/** The grant's access token, refreshed where it does not last. @throws as `readCredential`. */
export const credentialOf = (deps: CredentialDeps, grant: CallingGrant, minTtlSeconds: number): Promise<Credential> =>
  readCredential(deps, {
    tenantId: grant.externalTenantId,
    userId: grant.externalUserId,
    kind: grant.kind,
    grantId: grant.grantId,
    minTtlSeconds,
    requiredScopes: [],
  });

/**
 * Makes one call of the provider's with a grant's credential. A token that is refused is renewed and the call made once
 * more; an account that the provider wants left alone is left alone.
 *
 * @param scope named in MissingScopesError where the provider says that one is missing.
 * @throws {ZoomMeetingUnknownError} is passed on: what it means depends on why the meeting was thought to be known.
 * @throws {RefusedByProviderError} the provider understood and said no.
 * @throws {DomainError} else as `readCredential`.
 */
export async function callWithGrant<T>(
  deps: CredentialDeps,
  grant: CallingGrant,
  scope: string,
  call: (caller: ZoomCaller) => Promise<T>,
): Promise<T> {
  const paused = await tokensPausedSeconds(deps.db, grant);
  if (paused > 0) throw new ProviderUnavailableError('RATE_LIMITED', paused);
  const attempt = async (): Promise<{ answer: T } | { refused: Credential }> => {
    const credential = await credentialOf(deps, grant, CALL_TTL_SECONDS);
    const { apiUrl, accessToken } = credential;
    try {
      return { answer: await call({ environment: grant.environment, apiUrl, accessToken }) };
    } catch (error) {
      if (error instanceof ZoomAccessTokenRejectedError || error instanceof ZoomGrantInvalidError) {
        return { refused: credential };
      }
      if (error instanceof ZoomRateLimitedError) await pauseAccount(deps.db, grant, 'tokens', error.retryAfterSeconds);
      throw translate(error, grant, scope);
    }
  };
  const first = await attempt();
  if ('answer' in first) return first.answer;
  // The refresh tells a token that merely ended from a grant that did.
  const { version } = first.refused;
  await deps.refresher.refresh({ grantId: grant.grantId, tenantId: grant.tenantId, version }, { force: true });
  const second = await attempt();
  if ('answer' in second) return second.answer;
  throw new ProviderUnavailableError('PROVIDER_UNAVAILABLE', RETRY_SECONDS);
}

function translate(error: unknown, { grantId }: CallingGrant, scope: string): unknown {
  if (!(error instanceof ZoomError) || error instanceof ZoomMeetingUnknownError) return error;
  if (error instanceof ZoomScopeMissingError) return new MissingScopesError(grantId, [scope]);
  if (error instanceof ZoomRequestRefusedError) {
    return new RefusedByProviderError(undefined, error.code === null ? null : String(error.code));
  }
  if (error instanceof ZoomRateLimitedError) {
    return new ProviderUnavailableError('RATE_LIMITED', Math.max(1, error.retryAfterSeconds ?? 1));
  }
  return new ProviderUnavailableError('PROVIDER_UNAVAILABLE', RETRY_SECONDS);
}
