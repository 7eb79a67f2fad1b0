import { randomBytes, randomUUID } from 'node:crypto';
import { symlink } from 'node:fs/promises';
import { join } from 'node:path';
import pkcs11 from 'pkcs11js';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { openRootKeys } from '../src/root-keys.js';
import { codeOf, loadPkcs11Module } from '../src/vault/pkcs11-module.js';
import type { KeyContext, RootKeyProvider } from '../src/vault/root-key.js';
import { countInMemory, needleOf } from './support/memory-scan.js';
import { unavailable } from './support/root-key-battery.js';
import { pkcs11Settings } from './support/root-key-stages.js';
import { createSoftHsm, PIN, SO_PIN, type SoftHsm } from './support/softhsm.js';

const context: KeyContext = { owner: randomUUID(), keyId: randomUUID(), keyVersion: 1 };
const plain = randomBytes(32);

let hsm: SoftHsm;
beforeAll(async () => {
  hsm = await createSoftHsm();
  await hsm.createKey('root');
  for (const label of ['twins', 'twins']) await hsm.createToken(label);
});

const opened: RootKeyProvider[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((provider) => provider.close()));
});

async function open(settings: Record<string, string> = {}): Promise<RootKeyProvider> {
  const provider = await openRootKeys(readConfig({ ...pkcs11Settings(hsm, ['root']), ...settings }));
  opened.push(provider);
  return provider;
}

const refusal = (settings: Record<string, string> = {}) =>
  open(settings).then(
    () => 'nothing was refused',
    (error: Error) => error.message,
  );

/** A session of another part of this process. */
function ownSession(flags = 0) {
  const { library } = hsm;
  const slot = library.C_GetSlotList(true).find((each) => library.C_GetTokenInfo(each).label.trim() === hsm.tokenLabel);
  return library.C_OpenSession(slot!, pkcs11.CKF_SERIAL_SESSION | flags);
}

function createKeyThatOnlyDecrypts(label: string): void {
  loadPkcs11Module(hsm.module);
  const session = ownSession(pkcs11.CKF_RW_SESSION);
  hsm.library.C_Login(session, pkcs11.CKU_USER, PIN);
  hsm.library.C_GenerateKey(session, { mechanism: pkcs11.CKM_AES_KEY_GEN }, [
    { type: pkcs11.CKA_LABEL, value: label },
    { type: pkcs11.CKA_VALUE_LEN, value: 32 },
    { type: pkcs11.CKA_TOKEN, value: true },
    { type: pkcs11.CKA_SENSITIVE, value: true },
    { type: pkcs11.CKA_EXTRACTABLE, value: false },
    { type: pkcs11.CKA_ENCRYPT, value: false },
  ]);
  hsm.library.C_CloseSession(session);
}

test('a token is asked for with locks, where there are tokens, and with the size of nonce and tag in bits', async () => {
  const spy = await hsm.createSpy();
  const provider = await open({ LATCHKEY_PKCS11_MODULE: spy.module });
  await provider.wrap(plain, context);
  await provider.close();
  const calls = await spy.calls();
  expect(calls).toContain('CKF_OS_LOCKING_OK');
  expect(new Set(calls.match(/tokenPresent = .+/g))).toEqual(new Set(['tokenPresent = 0x1']));
  expect(new Set(calls.match(/ulIvBits = .+/g))).toEqual(new Set(['ulIvBits = 0x60']));
  expect(new Set(calls.match(/ulTagBits = .+/g))).toEqual(new Set(['ulTagBits = 128']));
});

test('a library that this process has begun under another path is used, and one that cannot begin is refused', async () => {
  await open();
  const alias = join(hsm.pinFile, '..', 'alias.so');
  await symlink(hsm.module, alias);
  await open({ LATCHKEY_PKCS11_MODULE: alias });
  const copy = await hsm.copyLibrary();
  const message = await hsm.withoutConfig(() => refusal({ LATCHKEY_PKCS11_MODULE: copy }));
  expect(message).toBe(`The PKCS#11 library ${copy} cannot be used: CKR_GENERAL_ERROR.`);
});

test('whatever uses a library takes its turn, also where it was loaded twice', async () => {
  const [one, two] = [loadPkcs11Module(hsm.module), loadPkcs11Module(hsm.module)];
  const order: string[] = [];
  await Promise.all([
    one.inTurn(async () => {
      order.push('first begins');
      await new Promise((resolve) => setImmediate(resolve));
      order.push('first ends');
    }),
    two.inTurn(async () => void order.push('second')),
  ]);
  expect(order).toEqual(['first begins', 'first ends', 'second']);
});

test('of what a library says nothing but a code is told', () => {
  expect(codeOf(new Error('CKR_DEVICE_ERROR'))).toBe('CKR_DEVICE_ERROR');
  for (const text of ['SECRET CKR_OK', 'CKR_OK SECRET']) expect(codeOf(new Error(text))).toBe('it does not load');
});

test('two tokens of one label are not chosen between', async () => {
  expect(await refusal({ LATCHKEY_PKCS11_TOKEN: 'twins' })).toBe('There are 2 tokens with the label "twins".');
});

test('a login that fails for another reason than the PIN is not taken for a wrong PIN', async () => {
  loadPkcs11Module(hsm.module);
  const { library } = hsm;
  library.C_InitToken(library.C_GetSlotList(true).at(-1)!, SO_PIN, 'blank'.padEnd(32));
  expect(await refusal({ LATCHKEY_PKCS11_TOKEN: 'blank' })).toBe(
    'The token "blank" cannot be used: CKR_USER_PIN_NOT_INITIALIZED.',
  );
});

test('a provider that is closed leaves nobody logged in', async () => {
  const provider = await open();
  expect(hsm.isLoggedIn()).toBe(true);
  await provider.close();
  expect(hsm.isLoggedIn()).toBe(false);
});

test('a start that is refused leaves nobody logged in', async () => {
  createKeyThatOnlyDecrypts('decrypts');
  const because = {
    none: 'The token has no secret key with the label "none".',
    decrypts: 'The token "latchkey" cannot be used: CKR_KEY_FUNCTION_NOT_PERMITTED.',
  };
  for (const [label, message] of Object.entries(because)) {
    expect(await refusal({ LATCHKEY_PKCS11_KEYS: label })).toBe(message);
    expect(hsm.isLoggedIn()).toBe(false);
  }
});

test('operations end no session of other parts of the process', async () => {
  const provider = await open();
  const session = ownSession();
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  await provider.unwrap(rootKeyId, blob, context);
  expect(hsm.library.C_GetSessionInfo(session).deviceError).toBe(0);
  hsm.library.C_CloseSession(session);
});

test('what nobody waits for any more is not asked of the token', async () => {
  const provider = await open({ LATCHKEY_ROOT_KEY_TIMEOUT_MS: '100' });
  const { inTurn, restart } = loadPkcs11Module(hsm.module);
  let release = () => undefined as void;
  const held = inTurn(() => new Promise<void>((resolve) => (release = resolve)));
  await expect(provider.wrap(plain, context)).rejects.toEqual(unavailable('provider-failed'));
  // Whoever asks now has to log in again.
  restart();
  release();
  await held;
  await inTurn(async () => undefined);
  expect(hsm.isLoggedIn()).toBe(false);
  await provider.health();
  expect(hsm.isLoggedIn()).toBe(true);
});

test('what the token refuses to encrypt, also on a new session, is told as its failure', async () => {
  const provider = await open();
  const nothing = Buffer.alloc(0);
  await expect(provider.wrap(nothing, context)).rejects.toMatchObject({
    reason: 'provider-failed',
    cause: { message: 'CKR_ARGUMENTS_BAD' },
  });
});

test('no plain key is left in memory but where the caller has it', async () => {
  const provider = await open();
  const key = randomBytes(32);
  const needle = needleOf(Uint8Array.from(key));
  const { rootKeyId, blob } = await provider.wrap(key, context);
  key.fill(0);
  expect(countInMemory(needle)).toBe(0);
  const unwrapped = await provider.unwrap(rootKeyId, blob, context);
  expect(countInMemory(needle)).toBe(1);
  unwrapped.fill(0);
  expect(countInMemory(needle)).toBe(0);
});
