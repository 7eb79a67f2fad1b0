import { createCipheriv, createDecipheriv, type KeyObject } from 'node:crypto';

export const KEY_BYTES = 32;
export const NONCE_BYTES = 12;
export const TAG_BYTES = 16;

const ALGORITHM = 'aes-256-gcm';
/** Without it Node accepts tags cut down to four bytes. */
const OPTIONS = { authTagLength: TAG_BYTES };

/** AES-256-GCM. The pair of key and nonce must be new with every call. */
export function encrypt(
  key: KeyObject | Uint8Array,
  nonce: Uint8Array,
  associatedData: Uint8Array,
  plaintext: Uint8Array,
): { ciphertext: Buffer; tag: Buffer } {
  const cipher = createCipheriv(ALGORITHM, key, nonce, OPTIONS);
  cipher.setAAD(associatedData);
  const ciphertext = cipher.update(plaintext);
  cipher.final();
  return { ciphertext, tag: cipher.getAuthTag() };
}

/**
 * Undoes `encrypt`.
 *
 * @returns the plaintext, which the caller overwrites after use; null, and no byte of it, where the tag does not fit.
 * @throws {TypeError} the tag is not 16 bytes long.
 */
export function decrypt(
  key: KeyObject | Uint8Array,
  nonce: Uint8Array,
  associatedData: Uint8Array,
  ciphertext: Uint8Array,
  tag: Uint8Array,
): Buffer | null {
  const decipher = createDecipheriv(ALGORITHM, key, nonce, OPTIONS);
  decipher.setAAD(associatedData);
  decipher.setAuthTag(tag);
  const plaintext = decipher.update(ciphertext);
  try {
    decipher.final();
    return plaintext;
  } catch {
    // The tag is all that final() checks, so its error has nothing to add to null.
    plaintext.fill(0);
    return null;
  }
}
