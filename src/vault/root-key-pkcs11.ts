import { createHash, randomBytes } from 'node:crypto';
import { NONCE_BYTES } from './aead.js';
import { withinDeadline } from './deadline.js';
import { RootKeyInvalidError, VaultUnavailableError } from './errors.js';
import { codeOf, loadPkcs11Module, type Pkcs11Module } from './pkcs11-module.js';
import { openToken, PinRefusal, TokenRefusal, type Token, type TokenKey } from './pkcs11-token.js';
import type { RootKeyDescription, RootKeyProvider } from './root-key.js';
import { readPinFile } from './root-key-file.js';
import { associatedDataOf, joinWrapped, splitGcm } from './wrapped-key.js';

export interface Pkcs11Settings {
  /** Path of the shared library that the token's maker gives. */
  module: string;
  tokenLabel: string;
  /** Labels of AES-256 keys in the token, newest first; at least one. */
  keyLabels: readonly string[];
  /** Read whenever a session is opened, and not kept. */
  pinFile: string;
  /** Longest that a caller waits. */
  timeoutMs: number;
}

/** After a token could not be opened, it is left alone for so long. */
const RETRY_MS = 1_000;
const CHECK_CONTEXT = Buffer.from('latchkey root key check');
/** Always the same, and always for the same bytes: nothing is learnt from it. Random ones do not meet it. */
const CHECK_NONCE = Buffer.from('latchkey chk');
const CHECK_PLAIN = Buffer.alloc(16);
const ID_CONTEXT = 'latchkey root key id';
const VALUE_CONTEXT = 'latchkey root key value';
const ID_BYTES = 8;

/**
 * Root keys in a token of PKCS#11 v2.40, which they never leave: tenant keys go in and come out. Operations take their
 * turn on one session. A session that has ended is opened again; a token that is away is looked for again once a second.
 *
 * The token must accept the nonce that it is given for CKM_AES_GCM, and its keys must serve nothing else.
 *
 * @throws {RootKeyInvalidError} the library, the token, the PIN or a key cannot be used. One sentence for the operator.
 */
export async function createPkcs11RootKeys(settings: Pkcs11Settings): Promise<RootKeyProvider> {
  const pkcs11 = loadPkcs11Module(settings.module);
  // Not bound by the deadline: nobody waits in a transaction yet, and a start may take its time.
  const { known, ...session } = await pkcs11.inTurn(() => openSession(pkcs11, settings));
  const [newest] = known;
  const indexOf = new Map(known.map(({ id }, at) => [id, at]));

  const inTurn = <T>(at: number, run: (key: TokenKey) => Promise<T>): Promise<T | null> =>
    withinDeadline(settings.timeoutMs, (signal) =>
      pkcs11.inTurn(async () => {
        // Nobody waits any more: those behind are not held up.
        if (signal.aborted) return null;
        return session.perform(at, run);
      }),
    );

  async function sealWith(at: number, nonce: Uint8Array, bound: Uint8Array, plain: Uint8Array): Promise<Buffer> {
    const sealed = await inTurn(at, (key) => key.encrypt(nonce, bound, plain));
    if (sealed === null) throw unavailable(new Error('It does not encrypt'));
    return sealed;
  }

  return {
    wrap: async (plain, context) => {
      const rootKeyId = newest.id;
      const nonce = randomBytes(NONCE_BYTES);
      const sealed = await sealWith(0, nonce, associatedDataOf('pkcs11', rootKeyId, context), plain);
      return { rootKeyId, blob: joinWrapped('pkcs11', nonce, sealed) };
    },
    unwrap: async (rootKeyId, blob, context) => {
      const at = indexOf.get(rootKeyId);
      if (at === undefined) throw new VaultUnavailableError('root-key-missing');
      const parts = splitGcm('pkcs11', blob);
      const bound = associatedDataOf('pkcs11', rootKeyId, context);
      const plain = parts && (await inTurn(at, (key) => key.decrypt(parts.nonce, bound, parts.sealed)));
      if (plain === null) throw new VaultUnavailableError('wrapped-key-refused');
      return plain;
    },
    describe: async () => known,
    health: async () => {
      for (const at of known.keys()) await sealWith(at, CHECK_NONCE, CHECK_CONTEXT, CHECK_PLAIN);
    },
    close: () => pkcs11.inTurn(session.close),
  };
}

/** Opens a session, which is opened again when it has ended. All of it in turn. */
async function openSession(pkcs11: Pkcs11Module, settings: Pkcs11Settings) {
  let closedUntilMs = 0;
  let refusedPin: string | null = null;

  async function logIn(): Promise<Token> {
    const pin = await readPinFile(settings.pinFile);
    const digest = createHash('sha256').update(pin).digest('hex');
    // A few wrong ones lock a token for good: what was refused is not tried again.
    if (digest === refusedPin) throw new PinRefusal('CKR_PIN_INCORRECT');
    try {
      return openToken(pkcs11, settings.tokenLabel, pin, settings.keyLabels);
    } catch (error) {
      if (error instanceof PinRefusal) refusedPin = digest;
      throw error;
    }
  }

  async function open(): Promise<{ opened: Token; found: RootKeyDescription[] }> {
    const opened = await logIn();
    try {
      const found: RootKeyDescription[] = [];
      for (const key of opened.keys) found.push(await describe(key));
      return { opened, found };
    } catch (error) {
      opened.close();
      throw error;
    }
  }

  async function reopen(): Promise<Token> {
    if (performance.now() < closedUntilMs) throw unavailable(new Error('The token could not be opened a moment ago'));
    try {
      pkcs11.restart();
      const { opened, found } = await open();
      const changed = found.findIndex(({ id }, at) => id !== ids[at]);
      if (changed < 0) return opened;
      opened.close();
      throw new TokenRefusal(`The key "${settings.keyLabels[changed]}" is another one than before.`);
    } catch (error) {
      closedUntilMs = performance.now() + RETRY_MS;
      throw unavailable(error);
    }
  }

  /** Whether the session still is one. What a token answers when it refuses does not tell. */
  async function isAlive(key: TokenKey, at: number): Promise<boolean> {
    try {
      return (await describe(key)).id === ids[at];
    } catch {
      return false;
    }
  }

  function close(): void {
    token?.close();
    token = null;
  }

  const first = await open().catch((error: unknown) => {
    if (error instanceof RootKeyInvalidError) throw error;
    throw new RootKeyInvalidError(`The token "${settings.tokenLabel}" cannot be used: ${codeOf(error)}.`);
  });
  const ids = first.found.map(({ id }) => id);
  let token: Token | null = first.opened;

  return {
    /** One for each label, in their order. */
    known: first.found as [RootKeyDescription, ...RootKeyDescription[]],
    /** @returns null: the session is fine, and the token refuses this. */
    perform: async <T>(at: number, run: (key: TokenKey) => Promise<T>): Promise<T | null> => {
      for (let isAgain = false; ; isAgain = true) {
        token ??= await reopen();
        // Opening it gave one for each of those that are known.
        const key = token.keys[at] as TokenKey;
        try {
          return await run(key);
        } catch (error) {
          if (await isAlive(key, at)) return null;
          close();
          if (isAgain) throw unavailable(error);
        }
      }
    },
    close: async () => close(),
  };
}

/** Recognises a key: the same bytes, sealed under the same nonce, are the same only under the same key. */
async function describe(key: TokenKey): Promise<RootKeyDescription> {
  const sealed = await key.encrypt(CHECK_NONCE, CHECK_CONTEXT, CHECK_PLAIN);
  const digest = (context: string) => createHash('sha256').update(context).update(sealed).digest();
  return { id: `pkcs11:${digest(ID_CONTEXT).toString('hex', 0, ID_BYTES)}`, checkValue: digest(VALUE_CONTEXT) };
}

function unavailable(error: unknown): VaultUnavailableError {
  const reason = error instanceof RootKeyInvalidError ? 'root-key-denied' : 'provider-failed';
  return new VaultUnavailableError(reason, { cause: error });
}
