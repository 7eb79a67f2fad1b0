import { ProviderUnavailableError, RefusedByProviderError } from '../errors.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomClientRejectedError,
  ZoomError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomRequestRefusedError,
  ZoomScopeMissingError,
  ZoomUnavailableError,
} from '../zoom/errors.js';

const RETRY_AFTER_SECONDS = 5;

/** Whether the provider understood and said no: asking the same again will not help. */
export const isRefusal = (error: unknown): boolean =>
  error instanceof ZoomGrantInvalidError ||
  error instanceof ZoomRequestRefusedError ||
  error instanceof ZoomClientRejectedError ||
  error instanceof ZoomAccessTokenRejectedError ||
  error instanceof ZoomScopeMissingError;

/**
 * What a failed call to the provider means for whoever asked for it; other errors are returned as they are.
 *
 * @param unavailable what to say where waiting helps; null: the usual words.
 */
export function asDomainError(error: unknown, unavailable: string | null = null): unknown {
  if (!(error instanceof ZoomError)) return error;
  if (error instanceof ZoomScopeMissingError) {
    return new RefusedByProviderError('The tokens lack the scope to read whom they speak for, such as user:read:user.');
  }
  if (isRefusal(error)) return new RefusedByProviderError();
  const limited = error instanceof ZoomRateLimitedError;
  const wait = limited || error instanceof ZoomUnavailableError ? error.retryAfterSeconds : null;
  return new ProviderUnavailableError(
    limited ? 'RATE_LIMITED' : 'PROVIDER_UNAVAILABLE',
    wait ?? RETRY_AFTER_SECONDS,
    unavailable ?? undefined,
  );
}
