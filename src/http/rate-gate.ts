import type { IncomingMessage } from 'node:http';
import { createHash } from 'node:crypto';
import { GraphQLError } from 'graphql';
import type { RateLimits } from '../config.js';
import type { Principal } from '../domain/principal.js';
import type { Ceiling, RateLimiter, Refusal } from '../domain/rate-limit.js';
import type { AddressOf } from './address.js';
import { sourceOf } from './authenticate.js';

/** Lets requests in as far as the ceilings allow. */
export interface RateGate {
  /** For a caller who has said who it is. Server keys are let in also while the shared count cannot be kept. */
  principal(principal: Principal): Promise<Refusal | null> | Refusal | null;
  /** For a request that nobody is named for, by where it comes from. Refused while the shared count cannot be kept. */
  address(req: IncomingMessage): Promise<Refusal | null> | Refusal | null;
}

const ceiling = (name: string, perSecond: number | null): Ceiling[] =>
  perSecond === null ? [] : [{ name, perSecond }];

export function createRateGate(options: { limiter: RateLimiter; limits: RateLimits; addressOf: AddressOf }): RateGate {
  const { limiter, limits, addressOf } = options;
  /** Principals are kept for some seconds, and what was made for them as long as they. */
  const known = new WeakMap<Principal, Ceiling[]>();

  function ceilingsOf(principal: Principal): Ceiling[] {
    const { kind, id, tenantId } = principal;
    const isKey = kind === 'SERVER_KEY';
    const name = `${isKey ? 'key' : 'session'}:${id ?? 'admin'}`;
    const ceilings = ceiling(name, isKey ? limits.serverKey : limits.frontendSession);
    if (tenantId !== null) ceilings.push(...ceiling(`tenant:${tenantId}`, limits.tenant));
    known.set(principal, ceilings);
    return ceilings;
  }

  return {
    principal: (principal) => limiter.admit(known.get(principal) ?? ceilingsOf(principal), true),
    address: (req) => {
      // Stored for some seconds, and nothing but told apart.
      const hash = createHash('sha256')
        .update(addressOf(sourceOf(req)) ?? '')
        .digest('base64url')
        .slice(0, 22);
      return limiter.admit(ceiling(`address:${hash}`, limits.address), false);
    },
  };
}

const MESSAGES = {
  RATE_LIMITED: 'Too many requests. Try again later.',
  UNAVAILABLE: 'The rate limit cannot be checked at the moment. Try again.',
};

/** What a caller who is not let in is told. RFC 6585 §4 */
export function describeRefusal({ retryAfterSeconds, isUnknown }: Refusal) {
  const code = isUnknown ? 'UNAVAILABLE' : 'RATE_LIMITED';
  return {
    status: isUnknown ? 503 : 429,
    message: MESSAGES[code],
    extensions: { code, retryAfterSeconds },
    headers: { 'retry-after': String(retryAfterSeconds) },
  };
}

/** The same as the error of one operation, where the transport has no status. */
export function refusalError(refusal: Refusal): GraphQLError {
  const { message, extensions } = describeRefusal(refusal);
  return new GraphQLError(message, { extensions });
}
