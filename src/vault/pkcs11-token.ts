import type { Handle } from 'pkcs11js';
import { KEY_BYTES, NONCE_BYTES, TAG_BYTES } from './aead.js';
import { RootKeyInvalidError } from './errors.js';
import { codeOf, type Pkcs11Module } from './pkcs11-module.js';

/** A key that never leaves its token. AES-256-GCM; calls must not overlap, nor those of another key of the library. */
export interface TokenKey {
  /** @returns ciphertext and tag. */
  encrypt(nonce: Uint8Array, associatedData: Uint8Array, plaintext: Uint8Array): Promise<Buffer>;
  /** Rejects for whatever reason; tokens do not agree on how they say that the tag does not fit. */
  decrypt(nonce: Uint8Array, associatedData: Uint8Array, sealed: Uint8Array): Promise<Buffer>;
}

/** A session with a token in which a user is logged in. */
export interface Token {
  /** In the order of the labels that were asked for. */
  keys: readonly TokenKey[];
  close(): void;
}

/** What was given does not fit the token: an operator has to mend it, and asking again is of no use. */
export class TokenRefusal extends RootKeyInvalidError {}

export class PinRefusal extends TokenRefusal {
  constructor(code: string) {
    super(`The token refuses the PIN: ${code}.`);
  }
}

const AES = 0x1f;

/**
 * Opens a session with the token of this label and finds its keys.
 *
 * @throws {TokenRefusal} the PIN is wrong, or a key is missing, there twice, extractable or not AES-256.
 * @throws Error with a `CKR_` code as its message, where the token is not there or does not answer.
 */
export function openToken(pkcs11: Pkcs11Module, label: string, pin: string, keyLabels: readonly string[]): Token {
  const { binding, library } = pkcs11;
  const session = library.C_OpenSession(findSlot(pkcs11, label), binding.CKF_SERIAL_SESSION);
  try {
    logIn(pkcs11, session, pin);
    const keys = keyLabels.map((keyLabel) => tokenKey(pkcs11, session, findKey(pkcs11, session, keyLabel)));
    return { keys, close: () => closeSession(pkcs11, session) };
  } catch (error) {
    closeSession(pkcs11, session);
    throw error;
  }
}

function closeSession({ library }: Pkcs11Module, session: Handle): void {
  try {
    library.C_CloseSession(session);
  } catch {
    // It had ended by itself.
  }
}

function findSlot({ library }: Pkcs11Module, label: string): Handle {
  const slots = library.C_GetSlotList(true).filter((slot) => library.C_GetTokenInfo(slot).label.trim() === label);
  const [slot] = slots;
  if (slots.length > 1) throw new TokenRefusal(`There are ${slots.length} tokens with the label "${label}".`);
  if (slot === undefined) throw new Error('CKR_TOKEN_NOT_PRESENT');
  return slot;
}

function logIn({ binding, library }: Pkcs11Module, session: Handle, pin: string): void {
  try {
    library.C_Login(session, binding.CKU_USER, pin);
  } catch (error) {
    const code = codeOf(error);
    // A login is the token's, not the session's.
    if (code === 'CKR_USER_ALREADY_LOGGED_IN') return;
    if (code.startsWith('CKR_PIN_')) throw new PinRefusal(code);
    throw error;
  }
}

function findKey({ binding, library }: Pkcs11Module, session: Handle, label: string): Handle {
  library.C_FindObjectsInit(session, [
    { type: binding.CKA_CLASS, value: binding.CKO_SECRET_KEY },
    { type: binding.CKA_LABEL, value: label },
  ]);
  const found = library.C_FindObjects(session, 2);
  library.C_FindObjectsFinal(session);
  const [key] = found;
  if (key === undefined) throw new TokenRefusal(`The token has no secret key with the label "${label}".`);
  if (found.length > 1) throw new TokenRefusal(`The token has several secret keys with the label "${label}".`);
  const [type, length, sensitive, extractable] = library
    .C_GetAttributeValue(session, key, [
      { type: binding.CKA_KEY_TYPE },
      { type: binding.CKA_VALUE_LEN },
      { type: binding.CKA_SENSITIVE },
      { type: binding.CKA_EXTRACTABLE },
    ])
    .map(({ value }) => (Buffer.isBuffer(value) ? value.readUInt8() : null));
  if (type !== AES || length !== KEY_BYTES) throw new TokenRefusal(`The key "${label}" is not an AES key of 256 bits.`);
  if (sensitive !== 1 || extractable !== 0) {
    throw new TokenRefusal(
      `The key "${label}" can be taken out of the token; it must be sensitive and not extractable.`,
    );
  }
  return key;
}

function tokenKey({ binding, library }: Pkcs11Module, session: Handle, key: Handle): TokenKey {
  const mechanism = (nonce: Uint8Array, associatedData: Uint8Array) => ({
    mechanism: binding.CKM_AES_GCM,
    parameter: {
      type: binding.CK_PARAMS_GCM,
      iv: Buffer.from(nonce),
      ivBits: NONCE_BYTES * 8,
      aad: Buffer.from(associatedData),
      tagBits: TAG_BYTES * 8,
    },
  });
  return {
    encrypt: async (nonce, associatedData, plaintext) => {
      const input = Buffer.from(plaintext);
      try {
        library.C_EncryptInit(session, mechanism(nonce, associatedData), key);
        return await library.C_EncryptAsync(session, input, Buffer.alloc(input.length + TAG_BYTES));
      } finally {
        input.fill(0);
      }
    },
    decrypt: async (nonce, associatedData, sealed) => {
      // As long as what goes in: some tokens want room for the tag as well.
      const output = Buffer.alloc(sealed.length);
      library.C_DecryptInit(session, mechanism(nonce, associatedData), key);
      try {
        return Buffer.from(await library.C_DecryptAsync(session, Buffer.from(sealed), output));
      } finally {
        output.fill(0);
      }
    },
  };
}
