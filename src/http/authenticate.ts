import { timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';
import { type ApiToken, parseApiToken } from '../domain/api-token.js';
import type { PrincipalDirectory } from '../domain/principal-directory.js';
import { ADMIN, type Principal } from '../domain/principal.js';
import { hashToken } from '../domain/random-token.js';
import type { KeyUse } from '../domain/server-key.js';
import type { Secret } from '../secret.js';
import type { AddressOf } from './address.js';
import type { FailedAttempts } from './failed-attempts.js';

/** Why a caller is not let in. */
export type Refusal = 'UNAUTHENTICATED' | 'TOO_MANY_ATTEMPTS' | 'SERVER_KEY_IN_BROWSER' | 'ORIGIN_NOT_ALLOWED';

export interface Refused {
  refusal: Refusal;
  retryAfterSeconds?: number;
}

export type Authentication = { principal: Principal } | Refused;

/** @throws whatever the database reports, where it must be asked and cannot. */
export type Authenticate = (
  authorization: string | undefined,
  from: { headers: IncomingHttpHeaders; address: string | undefined },
) => Promise<Authentication> | Authentication;

/** What of a request says where it comes from. */
export const sourceOf = ({ headers, socket }: IncomingMessage): Parameters<Authenticate>[1] => ({
  headers,
  address: socket.remoteAddress,
});

/**
 * What only browsers send, and always send with a request that a page makes. `Sec-Fetch-Mode` is not among it: other
 * clients send it, too.
 */
const isBrowser = (headers: IncomingHttpHeaders): boolean =>
  headers.origin !== undefined ||
  headers['sec-fetch-site'] !== undefined ||
  headers['sec-fetch-dest'] !== undefined ||
  headers.cookie !== undefined;

/** A session is bound to its origins; one that has none is for what is no browser. */
const isAtHome = ({ origins }: Principal, origin: string | undefined): boolean =>
  origin === undefined ? origins.length === 0 : origins.includes(origin);

/**
 * Says who is calling, before anything else of a request is looked at.
 *
 * A server key that comes from a browser is refused although it is right: there it can be read by whoever can read the
 * page. A frontend session is refused elsewhere than on a page of its origins.
 *
 * @param ownOrigin the origin whose pages are this server's own, where GraphiQL runs in development; null: no exception.
 */
export function createAuthenticate(options: {
  adminKey: Secret;
  ownOrigin: string | null;
  principals: PrincipalDirectory;
  keyUse: KeyUse;
  failedAttempts: FailedAttempts;
  addressOf: AddressOf;
}): Authenticate {
  const { ownOrigin, principals, keyUse, failedAttempts, addressOf } = options;
  const adminHash = hashToken(options.adminKey.reveal());

  // Hashes have one length whatever was sent, and comparing them takes one time.
  const identify = (key: string, token: ApiToken | null): Promise<Principal | null> | Principal | null => {
    if (token !== null) return principals.find(token);
    return timingSafeEqual(hashToken(key), adminHash) ? ADMIN : null;
  };

  /** The id in a well-formed key counts, too: it is what somebody would guess at from many addresses. */
  async function refuse(address: string | undefined, token: ApiToken | null): Promise<Authentication> {
    const names = [...(address === undefined ? [] : [address]), ...(token === null ? [] : [token.id])];
    const retryAfterSeconds = await failedAttempts.note(names);
    return retryAfterSeconds === null
      ? { refusal: 'UNAUTHENTICATED' }
      : { refusal: 'TOO_MANY_ATTEMPTS', retryAfterSeconds };
  }

  function judge(principal: Principal, headers: IncomingHttpHeaders): Authentication {
    if (principal.kind === 'FRONTEND_SESSION') {
      return isAtHome(principal, headers.origin) ? { principal } : { refusal: 'ORIGIN_NOT_ALLOWED' };
    }
    const isOwnPage = ownOrigin !== null && headers.origin === ownOrigin && headers['sec-fetch-site'] === 'same-origin';
    if (isBrowser(headers) && !isOwnPage) return { refusal: 'SERVER_KEY_IN_BROWSER' };
    if (principal.id !== null) keyUse.note(principal.id);
    return { principal };
  }

  // Without a promise where none is needed: every request comes by here.
  return (authorization, from) => {
    const key = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
    if (key === undefined) return refuse(addressOf(from), null);
    const token = parseApiToken(key);
    const answer = (principal: Principal | null) =>
      principal === null ? refuse(addressOf(from), token) : judge(principal, from.headers);
    const found = identify(key, token);
    return found instanceof Promise ? found.then(answer) : answer(found);
  };
}

/** What a refused caller is told, over HTTP. */
export const REFUSALS: Record<Refusal, { status: number; message: string }> = {
  UNAUTHENTICATED: { status: 401, message: 'Send a valid server key as "Authorization: Bearer <key>".' },
  TOO_MANY_ATTEMPTS: { status: 429, message: 'Too many attempts with wrong keys. Try again later.' },
  SERVER_KEY_IN_BROWSER: { status: 403, message: 'A server key must not be used from a browser.' },
  ORIGIN_NOT_ALLOWED: { status: 403, message: 'The frontend session must not be used from this origin.' },
};

export const refusalHeaders = ({ refusal, retryAfterSeconds }: Refused): Record<string, string> => ({
  ...(REFUSALS[refusal].status === 401 ? { 'www-authenticate': 'Bearer' } : {}),
  ...(retryAfterSeconds === undefined ? {} : { 'retry-after': String(retryAfterSeconds) }),
});
