import { randomBytes } from 'node:crypto';
import { Secret } from '../secret.js';
import { hashToken } from './random-token.js';

const DIGITS = '0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz';
const SECRET_BYTES = 32;
/** Digits that 32 bytes need. */
const SECRET_LENGTH = 43;
/** Digits that the four bytes of a checksum need. */
const CHECKSUM_LENGTH = 6;

const PREFIXES = { SERVER_KEY: 'lksk', FRONTEND_SESSION: 'lkfs' } as const;
const FORM = new RegExp(
  `^(lksk|lkfs)_(live|test)_([0-9a-f]{32})_([0-9A-Za-z]{${SECRET_LENGTH}})_([0-9A-Za-z]{${CHECKSUM_LENGTH}})$`,
);

export type ApiTokenKind = keyof typeof PREFIXES;

/** What a server key or a session token says about itself. Nothing of it is proven before `hash` was compared. */
export interface ApiToken {
  kind: ApiTokenKind;
  /** The row that the hash must be compared with. */
  id: string;
  /** SHA-256 of the whole token: it has too much entropy for a guess, so no slow hash is needed. */
  hash: Buffer;
}

/** The last `length` digits of a number. */
function base62(value: bigint, length: number): string {
  let text = '';
  for (let rest = value; text.length < length; rest /= 62n) text = DIGITS.charAt(Number(rest % 62n)) + text;
  return text;
}

/** Told with each request, so without the slower arithmetic of large numbers. */
function checksum(body: string): string {
  let text = '';
  for (let rest = hashToken(body).readUInt32BE(); text.length < CHECKSUM_LENGTH; rest = Math.floor(rest / 62)) {
    text = DIGITS.charAt(rest % 62) + text;
  }
  return text;
}

/**
 * Makes a server key or a session token for the row `id`: `lksk_live_<id>_<secret>_<checksum>`. The prefix lets scanners
 * of source code find one, and the checksum tells a mistyped one without a look into the database.
 *
 * @param publicUrl a server that is reached by https makes `live` ones, any other `test` ones.
 */
export function createApiToken(kind: ApiTokenKind, id: string, publicUrl: string): { token: Secret; hash: Buffer } {
  const environment = publicUrl.startsWith('https:') ? 'live' : 'test';
  const secret = base62(BigInt(`0x${randomBytes(SECRET_BYTES).toString('hex')}`), SECRET_LENGTH);
  const body = `${PREFIXES[kind]}_${environment}_${id.replaceAll('-', '')}_${secret}`;
  const text = `${body}_${checksum(body)}`;
  return { token: new Secret(text), hash: hashToken(text) };
}

/** @returns null for what is none, or was changed or cut off on its way here. */
export function parseApiToken(text: string): ApiToken | null {
  const [, prefix, , hex = '', , sum] = FORM.exec(text) ?? [];
  if (prefix === undefined || checksum(text.slice(0, -1 - CHECKSUM_LENGTH)) !== sum) return null;
  return {
    kind: prefix === PREFIXES.SERVER_KEY ? 'SERVER_KEY' : 'FRONTEND_SESSION',
    id: hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5'),
    hash: hashToken(text),
  };
}
