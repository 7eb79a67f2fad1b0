import { KEY_BYTES, NONCE_BYTES, TAG_BYTES } from './aead.js';
import { encodeFields } from './fields.js';
import type { KeyContext } from './root-key.js';

// Layout of a wrapped key, for ever like that of the envelope: 0 "ZW" | 2 format | 3 suite | 4 what the suite puts there.
// Suites 1 and 2, AES-256-GCM in this process and in a token: 4 nonce | 16 key | 48 tag. Suite 3: what KMS answers.
const MAGIC = 'ZW';
const FORMAT = 1;
const SUITES = { local: 1, pkcs11: 2, 'aws-kms': 3 };

/** Who has wrapped a key, and so what its bytes mean. */
export type WrapSuite = keyof typeof SUITES;

const HEAD_BYTES = MAGIC.length + 2;
const KEY_AT = HEAD_BYTES + NONCE_BYTES;
const GCM_BYTES = KEY_AT + KEY_BYTES + TAG_BYTES;

/** What every key that this suite has wrapped begins with. */
export const headOf = (suite: WrapSuite): Buffer => Buffer.from([...Buffer.from(MAGIC), FORMAT, SUITES[suite]]);

/** What is bound into a key that AES-GCM wraps: it unwraps for this owner, key, version, root key and suite only. */
export const associatedDataOf = (
  suite: WrapSuite,
  rootKeyId: string,
  { owner, keyId, keyVersion }: KeyContext,
): Buffer => encodeFields([owner, keyId, keyVersion, rootKeyId], headOf(suite));

/** The parts behind the head, one after another. */
export const joinWrapped = (suite: WrapSuite, ...parts: readonly Uint8Array[]): Buffer =>
  Buffer.concat([headOf(suite), ...parts]);

/** What follows the head; null: the suite has not wrapped it. Not a copy. */
export function bodyOf(suite: WrapSuite, blob: Uint8Array): Uint8Array | null {
  return headOf(suite).equals(blob.subarray(0, HEAD_BYTES)) ? blob.subarray(HEAD_BYTES) : null;
}

/** The parts of a key that AES-GCM has wrapped; null: the suite has not wrapped it, or its length is another. */
export function splitGcm(suite: WrapSuite, blob: Uint8Array): { nonce: Uint8Array; sealed: Uint8Array } | null {
  if (blob.length !== GCM_BYTES || bodyOf(suite, blob) === null) return null;
  return { nonce: blob.subarray(HEAD_BYTES, KEY_AT), sealed: blob.subarray(KEY_AT) };
}
