import { createHash, createHmac, randomBytes, randomInt, randomUUID } from 'node:crypto';

/** Makes every id and secret of the sandbox, in the lengths and alphabets that Zoom uses. */
export interface Mint {
  /** 22 characters, as Zoom's account, user and client ids. */
  id(): string;
  /** 32 characters. */
  clientSecret(): string;
  /** 22 characters. */
  webhookSecret(): string;
  /** 33 characters. */
  code(): string;
  /** 11 digits. */
  meetingNumber(): number;
  /** A short opaque token, as joins for local recording take it. */
  joinToken(): string;
  /** A signed token that lets somebody start or join as a user. `exp` in epoch seconds. */
  userToken(claims: { type: string; userId: string; meetingId?: string; exp: number }): string;
  /** A signed token; see `TokenClaims`. */
  token(claims: TokenClaims): string;
}

export interface TokenClaims {
  kind: 'access' | 'refresh';
  clientId: string;
  userId: string;
  accountId: string;
  generation: number;
  /** Epoch milliseconds. */
  issuedAt: number;
  expiresAt: number;
}

/** What every minted secret contains when canaries are on; searching output for it finds leaks. */
export const CANARY = 'ZCANARY_';

const randomText = (length: number): string => randomBytes(length).toString('base64url').slice(0, length);

const encode = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');

/** Key under which a token or code is remembered. */
export const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('base64url');

/** First 12 hex digits of the SHA-256: tells two secrets apart in the ledger without giving either away. */
export const fingerprintOf = (secret: string): string => createHash('sha256').update(secret).digest('hex').slice(0, 12);

/**
 * Tokens are HS512 JWTs with the claims of Zoom's current generation (`uid` user, `aid` account, `tid` running number).
 *
 * With `canary` on, the marker is in `jti` and, because base64url would hide it there, also follows the signature: the
 * token stays a valid bearer string (RFC 6750 §2.1) but its signature no longer verifies. Clients have no key for it
 * anyway.
 *
 * @param signingKey base64
 */
export function createMint({ canary, signingKey }: { canary: boolean; signingKey: string }): Mint {
  const mark = canary ? CANARY : '';
  const key = Buffer.from(signingKey, 'base64');
  const kid = createHash('sha256').update(key).digest('hex').slice(0, 32);
  const secret = (length: number): string => mark + randomText(length - mark.length);

  const sign = (header: object, claims: object): string => {
    const signed = `${encode(header)}.${encode(claims)}`;
    return `${signed}.${createHmac('sha512', key).update(signed).digest('base64url')}${mark}`;
  };

  return {
    id: () => randomText(22),
    meetingNumber: () => 80_000_000_000 + randomInt(9_999_999_999),
    joinToken: () => secret(24),
    userToken: ({ type, userId, meetingId, exp }) =>
      sign(
        { sv: '000001', zm_skm: 'zm_o2m', alg: 'HS512' },
        {
          iss: 'web',
          clt: 0,
          typ: type,
          uid: userId,
          ...(meetingId && { mid: meetingId }),
          exp,
          jti: mark + randomUUID(),
        },
      ),
    clientSecret: () => secret(32),
    webhookSecret: () => secret(22),
    code: () => secret(33),
    token: ({ kind, clientId, userId, accountId, generation, issuedAt, expiresAt }) => {
      const iat = Math.floor(issuedAt / 1000);
      const claims = {
        ver: 9,
        auid: createHash('sha256').update(`${accountId}${userId}`).digest('hex').slice(0, 32),
        code: randomText(32),
        iss: `zm:cid:${clientId}`,
        gno: 0,
        type: kind === 'access' ? 0 : 1,
        tid: generation,
        aud: 'https://oauth.zoom.us',
        uid: userId,
        nbf: iat,
        exp: Math.floor(expiresAt / 1000),
        iat,
        aid: accountId,
        jti: mark + randomUUID(),
      };
      return sign({ sv: '000001', alg: 'HS512', v: '2.0', kid }, claims);
    },
  };
}
