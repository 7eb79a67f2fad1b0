import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { PERMISSIONS, type Principal } from '../graphql/context.js';
import type { Secret } from '../secret.js';

/** Why a caller is not let in. */
export type Refusal = 'UNAUTHENTICATED' | 'SERVER_KEY_IN_BROWSER';

export type Authentication = { principal: Principal } | { refusal: Refusal };

export type Authenticate = (authorization: string | undefined, headers: IncomingHttpHeaders) => Authentication;

const digest = (value: string) => createHash('sha256').update(value).digest();

const ADMIN: Principal = {
  kind: 'SERVER_KEY',
  permissions: PERMISSIONS,
  tenantId: null,
  externalUserId: null,
  expiresAt: null,
};

/**
 * What only browsers send, and always send with a request that a page makes. `Sec-Fetch-Mode` is not among it: other
 * clients send it, too.
 */
const isBrowser = (headers: IncomingHttpHeaders): boolean =>
  headers.origin !== undefined ||
  headers['sec-fetch-site'] !== undefined ||
  headers['sec-fetch-dest'] !== undefined ||
  headers.cookie !== undefined;

/**
 * Says who is calling, before anything else of a request is looked at.
 *
 * A server key that comes from a browser is refused although it is right: there it can be read by whoever can read the
 * page.
 *
 * @param ownOrigin the origin whose pages are this server's own, where GraphiQL runs in development; null: no exception.
 */
export function createAuthenticate({
  adminKey,
  ownOrigin,
}: {
  adminKey: Secret;
  ownOrigin: string | null;
}): Authenticate {
  const adminDigest = digest(adminKey.reveal());
  return (authorization, headers) => {
    const key = /^Bearer +(\S+)$/i.exec(authorization ?? '')?.[1];
    // Digests have one length whatever was sent, and comparing them takes one time.
    if (key === undefined || !timingSafeEqual(digest(key), adminDigest)) return { refusal: 'UNAUTHENTICATED' };
    const isOwnPage = ownOrigin !== null && headers.origin === ownOrigin && headers['sec-fetch-site'] === 'same-origin';
    if (isBrowser(headers) && !isOwnPage) return { refusal: 'SERVER_KEY_IN_BROWSER' };
    return { principal: ADMIN };
  };
}

/** What a refused caller is told, over HTTP. */
export const REFUSALS: Record<Refusal, { status: number; message: string }> = {
  UNAUTHENTICATED: { status: 401, message: 'Send a valid server key as "Authorization: Bearer <key>".' },
  SERVER_KEY_IN_BROWSER: { status: 403, message: 'A server key must not be used from a browser.' },
};
