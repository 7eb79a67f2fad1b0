import { randomFillSync, timingSafeEqual, type KeyObject } from 'node:crypto';
import sql, { type Sql as SqlFragment } from 'sql-template-tag';
import { Secret } from '../secret.js';
import { decrypt, encrypt, KEY_BYTES, NONCE_BYTES, TAG_BYTES } from './aead.js';
import { VaultError } from './errors.js';
import { encodeFields, isWellFormed } from './fields.js';
import { hkdfSha256 } from './hmac.js';

/** A sealed secret as it stands in a column: the binary format of `envelope.ts`. */
export type Sealed = Uint8Array;

/**
 * Where a secret lives. Every part is bound into the seal, so that a value copied to another tenant, row, column or
 * version does not open.
 */
export interface Place {
  /** Null: a secret that belongs to no tenant, sealed with the system key. */
  tenantId: string | null;
  /** Database table and column that hold the sealed value: `credential`, `sealed_access_token`. */
  table: string;
  column: string;
  recordId: string;
  /** The row's version at the time the value is valid for; a u32. */
  version: number;
}

/** One version of a tenant's data-encryption key. */
export interface TenantKey {
  /** UUID. */
  id: string;
  version: number;
  /** As `ownerOf` gives it. */
  owner: string;
  key: KeyObject;
}

/** A tenant key with what is the same in everything sealed under it. */
export interface EnvelopeKey extends TenantKey {
  /** The envelope's first bytes, up to the salt. */
  readonly head: Buffer;
  readonly derivationInfo: Buffer;
}

/** Why an envelope does not open. It is told apart inside the vault only, and the message is always the same. */
export type EnvelopeRefusal = 'too-short' | 'unknown-format' | 'unknown-suite' | 'wrong-key' | 'not-authentic';

export class EnvelopeError extends VaultError {
  readonly refusal: EnvelopeRefusal;

  constructor(refusal: EnvelopeRefusal) {
    super('The envelope does not open');
    this.refusal = refusal;
  }
}

// The layout is for ever: values sealed with it stay in databases and backups. What must change gets a new format number.
//   0 "ZV" | 2 format | 3 suite | 4 tenant key id | 20 its version (u32 BE) | 24 salt | 40 nonce | 52 commitment
//   84 ciphertext | tag
const MAGIC = 'ZV';
const FORMAT = 1;
/** HKDF-SHA256 message key with commitment, AES-256-GCM. */
const SUITE = 1;
const FORMAT_AT = 2;
const SUITE_AT = 3;
const KEY_ID_AT = 4;
const KEY_VERSION_AT = 20;
const KEY_VERSION_BYTES = 4;
const SALT_AT = 24;
const NONCE_AT = 40;
const COMMITMENT_AT = NONCE_AT + NONCE_BYTES;
const COMMITMENT_BYTES = 32;
const HEADER_BYTES = COMMITMENT_AT + COMMITMENT_BYTES;

const DERIVATION_CONTEXT = 'latchkey vault message key';
const PURPOSE = 'latchkey vault secret';
const SYSTEM_OWNER = 'system';

/** Whose key seals the secrets of a tenant, as the key table names it. Null: the system's. */
export function ownerOf(tenantId: string | null): string {
  if (tenantId === SYSTEM_OWNER) throw new RangeError('No tenant may have the id of the system key');
  return tenantId ?? SYSTEM_OWNER;
}

/** Readies a tenant key for sealing and opening, once for as long as it is cached. */
export function prepareKey(tenantKey: TenantKey): EnvelopeKey {
  const { id, version, owner } = tenantKey;
  const head = Buffer.alloc(SALT_AT);
  head.write(MAGIC);
  head[FORMAT_AT] = FORMAT;
  head[SUITE_AT] = SUITE;
  head.write(id.replaceAll('-', ''), KEY_ID_AT, 'hex');
  head.writeUInt32BE(version, KEY_VERSION_AT);
  return { ...tenantKey, head, derivationInfo: encodeFields([DERIVATION_CONTEXT, SUITE, owner, id]) };
}

/** 32 bytes of message key, then the commitment to it. The caller overwrites them after use. */
function derive(key: EnvelopeKey, salt: Uint8Array): Uint8Array {
  return hkdfSha256(key.key, salt, key.derivationInfo, KEY_BYTES + COMMITMENT_BYTES);
}

function associatedData(header: Uint8Array, place: Place): Buffer {
  const { tenantId, table, recordId, column, version } = place;
  return encodeFields([PURPOSE, ownerOf(tenantId), table, recordId, column, version], header);
}

/**
 * Seals one secret for one place, under a key derived for this value alone.
 *
 * Synchronous. Salt and nonce are random and 28 bytes together, so a tenant key never runs out of them.
 *
 * @throws {RangeError} the secret or a part of the place is not well-formed Unicode, or the version is not a u32.
 */
export function sealEnvelope(key: EnvelopeKey, place: Place, secret: Secret): Sealed {
  const plaintext = encodeSecret(secret);
  const envelope = Buffer.allocUnsafeSlow(HEADER_BYTES + plaintext.length + TAG_BYTES);
  envelope.set(key.head);
  randomFillSync(envelope.subarray(SALT_AT, COMMITMENT_AT));
  const derived = derive(key, envelope.subarray(SALT_AT, NONCE_AT));
  try {
    envelope.set(derived.subarray(KEY_BYTES), COMMITMENT_AT);
    const { ciphertext, tag } = encrypt(
      derived.subarray(0, KEY_BYTES),
      envelope.subarray(NONCE_AT, COMMITMENT_AT),
      associatedData(envelope.subarray(0, HEADER_BYTES), place),
      plaintext,
    );
    envelope.set(ciphertext, HEADER_BYTES);
    envelope.set(tag, HEADER_BYTES + ciphertext.length);
    return envelope;
  } finally {
    plaintext.fill(0);
    derived.fill(0);
  }
}

function encodeSecret(secret: Secret): Buffer {
  const value = secret.reveal();
  if (!isWellFormed(value)) throw new RangeError('The secret is not well-formed Unicode');
  return Buffer.from(value);
}

/**
 * Opens what `sealEnvelope` made with the same key and place. Synchronous; returns only after the whole is authentic.
 *
 * @throws {EnvelopeError} always with the same message.
 */
export function openEnvelope(key: EnvelopeKey, place: Place, sealed: Sealed): Secret {
  const envelope = readable(sealed);
  const derived = derive(key, envelope.subarray(SALT_AT, NONCE_AT));
  let plaintext: Buffer | null = null;
  try {
    // GCM alone lets one ciphertext open under two keys; the commitment admits the right one only.
    if (!timingSafeEqual(derived.subarray(KEY_BYTES), envelope.subarray(COMMITMENT_AT, HEADER_BYTES))) {
      throw new EnvelopeError('wrong-key');
    }
    const tagAt = envelope.length - TAG_BYTES;
    plaintext = decrypt(
      derived.subarray(0, KEY_BYTES),
      envelope.subarray(NONCE_AT, COMMITMENT_AT),
      associatedData(envelope.subarray(0, HEADER_BYTES), place),
      envelope.subarray(HEADER_BYTES, tagAt),
      envelope.subarray(tagAt),
    );
    if (plaintext === null) throw new EnvelopeError('not-authentic');
    return new Secret(plaintext.toString());
  } finally {
    derived.fill(0);
    plaintext?.fill(0);
  }
}

/**
 * Which tenant key an envelope says it was sealed with. Nothing is proved until it opens.
 *
 * @throws {EnvelopeError} it is not in a format and suite of ours.
 */
export function inspectEnvelope(sealed: Sealed): { keyId: string; keyVersion: number } {
  const envelope = readable(sealed);
  const hex = envelope.toString('hex', KEY_ID_AT, KEY_VERSION_AT);
  const keyId = `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
  return { keyId, keyVersion: envelope.readUInt32BE(KEY_VERSION_AT) };
}

/**
 * A condition: the envelope in `column` says that it was sealed with an older version than this. For envelopes that
 * `sealEnvelope` made.
 */
export const isSealedBefore = (column: SqlFragment, version: number): SqlFragment =>
  sql`substring(${column} FROM ${KEY_VERSION_AT + 1}::int FOR ${KEY_VERSION_BYTES}::int) < int4send(${version}::int)`;

/** The same bytes as a Buffer, without a copy, once they are known to be long enough and in a format of ours. */
function readable(sealed: Sealed): Buffer {
  const envelope = Buffer.from(sealed.buffer, sealed.byteOffset, sealed.byteLength);
  if (envelope.length < HEADER_BYTES + TAG_BYTES) throw new EnvelopeError('too-short');
  if (envelope.toString('latin1', 0, FORMAT_AT) !== MAGIC || envelope[FORMAT_AT] !== FORMAT) {
    throw new EnvelopeError('unknown-format');
  }
  if (envelope[SUITE_AT] !== SUITE) throw new EnvelopeError('unknown-suite');
  return envelope;
}
