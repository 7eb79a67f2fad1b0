import { createSecretKey, randomBytes, type KeyObject } from 'node:crypto';
import { decrypt, encrypt, KEY_BYTES, NONCE_BYTES } from './aead.js';
import { RootKeyInvalidError, VaultUnavailableError } from './errors.js';
import { hkdfSha256, hmacSha256 } from './hmac.js';
import { associatedDataOf, joinWrapped, splitGcm } from './wrapped-key.js';

/** What a wrapped key is bound to: it unwraps for this owner, key and version only. */
export interface KeyContext {
  /** A tenant's id, or `system`. */
  owner: string;
  keyId: string;
  keyVersion: number;
}

export interface WrappedKey {
  /** The root key that wrapped it. */
  rootKeyId: string;
  blob: Uint8Array;
}

/** What recognises a root key and does not reveal it. */
export interface RootKeyDescription {
  id: string;
  checkValue: Uint8Array;
}

/**
 * Wraps tenant keys with root keys, which stay on the provider's side. Safe for concurrent use.
 *
 * An implementation brings its own deadline: callers wait inside a transaction. Its errors must be safe to log.
 */
export interface RootKeyProvider {
  /** Wraps with the newest root key. Does not keep or change `plain`, which the caller overwrites. */
  wrap(plain: Uint8Array, context: KeyContext): Promise<WrappedKey>;
  /**
   * @returns the plain key in memory of its own, which the caller overwrites.
   * @throws {VaultUnavailableError} no such root key is given, the blob was not wrapped for this context, or the
   *   provider does not answer.
   */
  unwrap(rootKeyId: string, blob: Uint8Array, context: KeyContext): Promise<Uint8Array>;
  /** The root keys at hand, newest first. The same for as long as the process runs, whatever happens to the provider. */
  describe(): Promise<readonly RootKeyDescription[]>;
  /**
   * Resolves where the provider would wrap and unwrap now.
   *
   * @throws {VaultUnavailableError} why it would not.
   */
  health(): Promise<void>;
  /** Lets go of what it holds outside of this process's memory. It is not used afterwards. */
  close(): Promise<void>;
}

const WRAP_CONTEXT = 'latchkey root key wrap';
const CHECK_CONTEXT = 'latchkey root key check';
const ID_CONTEXT = 'latchkey root key id';
const ID_HEX_DIGITS = 16;

/**
 * Below this a key is taken for one that a person made up. 16 would let pass hexadecimal text and a half that is
 * repeated; of random keys fewer than one in 10^9 stays below 17.
 */
const MIN_DISTINCT_BYTES = 17;

interface LocalRootKey extends RootKeyDescription {
  wrappingKey: KeyObject;
}

/** Root keys in the memory of this process, newest first; at least one. */
export function createLocalRootKeys(keys: readonly KeyObject[]): RootKeyProvider {
  const rootKeys = keys.map(prepareRootKey);
  const [newest] = rootKeys;
  if (newest === undefined) throw new RootKeyInvalidError('No root key is given.');
  return {
    wrap: async (plain, context) => {
      const nonce = randomBytes(NONCE_BYTES);
      const bound = associatedDataOf('local', newest.id, context);
      const { ciphertext, tag } = encrypt(newest.wrappingKey, nonce, bound, plain);
      return { rootKeyId: newest.id, blob: joinWrapped('local', nonce, ciphertext, tag) };
    },
    unwrap: async (rootKeyId, blob, context) => {
      const rootKey = rootKeys.find(({ id }) => id === rootKeyId);
      if (rootKey === undefined) throw new VaultUnavailableError('root-key-missing');
      const plain = unwrapWith(rootKey, blob, context);
      if (plain === null) throw new VaultUnavailableError('wrapped-key-refused');
      return plain;
    },
    describe: async () => rootKeys.map(({ id, checkValue }) => ({ id, checkValue })),
    health: async () => undefined,
    close: async () => undefined,
  };
}

/** Wrapping has a key of its own, so that nothing else is ever computed with it. */
function prepareRootKey(key: KeyObject): LocalRootKey {
  const derived = hkdfSha256(key, new Uint8Array(), WRAP_CONTEXT, KEY_BYTES);
  const wrappingKey = createSecretKey(derived);
  derived.fill(0);
  return {
    id: hmacSha256(key, ID_CONTEXT).toString('hex').slice(0, ID_HEX_DIGITS),
    checkValue: hmacSha256(key, CHECK_CONTEXT),
    wrappingKey,
  };
}

function unwrapWith(rootKey: LocalRootKey, blob: Uint8Array, context: KeyContext): Buffer | null {
  const parts = splitGcm('local', blob);
  if (parts === null) return null;
  const { nonce, sealed } = parts;
  return decrypt(
    rootKey.wrappingKey,
    nonce,
    associatedDataOf('local', rootKey.id, context),
    sealed.subarray(0, KEY_BYTES),
    sealed.subarray(KEY_BYTES),
  );
}

export interface RootKeyRules {
  /** Refuses keys that are not random, such as those of examples and tests. */
  production: boolean;
}

/**
 * Reads root keys from a setting: base64 (or its URL form) of 32 bytes each, newest first, separated by commas or white
 * space.
 *
 * @throws {RootKeyInvalidError} naming the position of the first key that cannot be used.
 */
export function parseRootKeys(setting: string, rules: RootKeyRules): KeyObject[] {
  const values = setting.split(/[\s,]/).filter((value) => value !== '');
  if (values.length === 0) throw new RootKeyInvalidError('No root key is given.');
  const keys: KeyObject[] = [];
  for (const [index, value] of values.entries()) {
    const name = `Root key ${index + 1} of ${values.length}`;
    const key = parseRootKey(name, value, rules);
    if (keys.some((earlier) => earlier.equals(key))) throw new RootKeyInvalidError(`${name} repeats an earlier one.`);
    keys.push(key);
  }
  return keys;
}

function parseRootKey(name: string, value: string, { production }: RootKeyRules): KeyObject {
  // Buffer.from() skips what is not base64, and would make a shorter key of a mistyped one.
  if (!/^[A-Za-z0-9+/_-]+={0,2}$/.test(value)) throw new RootKeyInvalidError(`${name} is not base64.`);
  const bytes = Buffer.from(value, 'base64');
  try {
    if (bytes.length !== KEY_BYTES) {
      throw new RootKeyInvalidError(`${name} is base64 of ${bytes.length} bytes instead of ${KEY_BYTES}.`);
    }
    if (production && !looksRandom(bytes)) {
      throw new RootKeyInvalidError(`${name} is not random: make one with "openssl rand -base64 ${KEY_BYTES}".`);
    }
    return createSecretKey(bytes);
  } finally {
    bytes.fill(0);
  }
}

function looksRandom(bytes: Buffer): boolean {
  const step = (at: number) => (bytes.readUInt8(at) - bytes.readUInt8(at - 1)) & 0xff;
  const isSeries = bytes.every((_byte, at) => at === 0 || step(at) === step(1));
  return !isSeries && new Set(bytes).size >= MIN_DISTINCT_BYTES;
}
