import { createHmac, hkdfSync, type KeyObject } from 'node:crypto';

/** HMAC-SHA256: 32 bytes. */
export function hmacSha256(key: KeyObject, message: string | Uint8Array): Buffer {
  return createHmac('sha256', key).update(message).digest();
}

/**
 * HKDF-SHA256, RFC 5869.
 *
 * @param length bytes, up to 255 * 32.
 * @returns bytes in memory of their own, which the caller overwrites after use.
 */
export function hkdfSha256(key: KeyObject, salt: Uint8Array, info: string | Uint8Array, length: number): Buffer {
  return Buffer.from(hkdfSync('sha256', key, salt, info, length));
}
