import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { openRootKeys } from '../src/root-keys.js';
import { RootKeyInvalidError } from '../src/vault/errors.js';
import type { KeyContext, RootKeyProvider } from '../src/vault/root-key.js';
import { unavailable } from './support/root-key-battery.js';
import { pkcs11Settings } from './support/root-key-stages.js';
import { createSoftHsm, type SoftHsm } from './support/softhsm.js';
import { until } from './support/until.js';

const context: KeyContext = { owner: randomUUID(), keyId: randomUUID(), keyVersion: 1 };
const plain = randomBytes(32);

let hsm: SoftHsm;
beforeAll(async () => {
  hsm = await createSoftHsm();
  await hsm.createKey('good');
});

const opened: RootKeyProvider[] = [];
afterEach(async () => {
  await Promise.all(opened.splice(0).map((provider) => provider.close()));
});

async function open(settings: Record<string, string> = {}): Promise<RootKeyProvider> {
  const provider = await openRootKeys(readConfig({ ...pkcs11Settings(hsm, ['good']), ...settings }));
  opened.push(provider);
  return provider;
}

async function refusal(settings: Record<string, string>): Promise<string> {
  const error = await open(settings).catch((failure: unknown) => failure);
  expect(error).toBeInstanceOf(RootKeyInvalidError);
  expect(String(error)).not.toContain('SECRET');
  return (error as Error).message;
}

const pinFile = async (pin: string, mode = 0o600) => {
  const path = join(hsm.pinFile, '..', randomUUID());
  await writeFile(path, pin, { mode: 0o600 });
  await chmod(path, mode);
  return path;
};

test('a key that could be taken out of the token is refused', async () => {
  await hsm.createKey('extractable', '--sensitive', '--extractable');
  await hsm.createKey('readable', '--extractable');
  const message = (label: string) =>
    `The key "${label}" can be taken out of the token; it must be sensitive and not extractable.`;
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'extractable' })).toBe(message('extractable'));
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'readable' })).toBe(message('readable'));
});

test('a key that the token would show, or that is for another cipher, is refused', async () => {
  await hsm.createKey('shown', '--key-type', 'aes:32');
  await hsm.createKey('generic', '--key-type', 'GENERIC:32', '--sensitive');
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'shown' })).toBe(
    'The key "shown" can be taken out of the token; it must be sensitive and not extractable.',
  );
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'generic' })).toBe('The key "generic" is not an AES key of 256 bits.');
});

test('a token that could not be opened is left alone for a second, and then looked for again', async () => {
  const provider = await open();
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  const failure = () =>
    provider.unwrap(rootKeyId, blob, context).then(
      () => null,
      (error: Error) => String((error.cause as Error).message),
    );
  // Again where this machine took the whole second.
  await until(async () => {
    await hsm.hide();
    expect(await failure()).not.toBeNull();
    await hsm.show();
    const told = await failure();
    await until(async () => (await failure()) === null);
    return told === 'The token could not be opened a moment ago';
  });
});

test('what does not fit the token stops the start with one sentence', async () => {
  await hsm.createKey('twice');
  await hsm.createKey('twice');
  await hsm.createKey('short', '--key-type', 'aes:16', '--sensitive');
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'none' })).toBe('The token has no secret key with the label "none".');
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'good,twice' })).toBe(
    'The token has several secret keys with the label "twice".',
  );
  expect(await refusal({ LATCHKEY_PKCS11_KEYS: 'short' })).toBe('The key "short" is not an AES key of 256 bits.');
  expect(await refusal({ LATCHKEY_PKCS11_TOKEN: 'other' })).toBe(
    'The token "other" cannot be used: CKR_TOKEN_NOT_PRESENT.',
  );
  expect(await refusal({ LATCHKEY_PKCS11_MODULE: '/nowhere.so' })).toBe(
    'The PKCS#11 library /nowhere.so cannot be used: it does not load.',
  );
});

test('the PIN comes from a file that its owner alone may use', async () => {
  const [open_, empty, wrong] = [await pinFile('SECRET-1', 0o644), await pinFile(' \n'), await pinFile('SECRET-1')];
  const missing = `${empty}.none`;
  expect(await refusal({ LATCHKEY_PKCS11_PIN_FILE: open_ })).toBe(
    `The PIN file ${open_} cannot be used: its group or everyone may use it; set its mode to 0600 or 0400.`,
  );
  expect(await refusal({ LATCHKEY_PKCS11_PIN_FILE: empty })).toBe(`The PIN file ${empty} cannot be used: it is empty.`);
  expect(await refusal({ LATCHKEY_PKCS11_PIN_FILE: missing })).toBe(
    `The PIN file ${missing} cannot be used: it does not exist.`,
  );
  expect(await refusal({ LATCHKEY_PKCS11_PIN_FILE: wrong })).toBe('The token refuses the PIN: CKR_PIN_INCORRECT.');
});

test('a PIN that was refused is not tried again, since a few wrong ones lock a token, and another one is', async () => {
  const [right, wrong] = ['SECRET-4321', 'SECRET-wrong'];
  const path = await pinFile(right);
  const provider = await open({ LATCHKEY_PKCS11_PIN_FILE: path });
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  const failure = async () => {
    const error = await provider.unwrap(rootKeyId, blob, context).catch((thrown: unknown) => thrown);
    return error as { reason?: string; cause?: Error };
  };
  const reason = async () => (await failure()).reason;
  await writeFile(path, wrong);
  await hsm.hide();
  expect(await reason()).toBe('provider-failed');
  await hsm.show();
  await until(async () => (await reason()) === 'root-key-denied');

  // Asked now, the token would take it.
  await hsm.changePin(right, wrong);
  for (const pause of [1_100, 1_100]) {
    await setTimeout(pause);
    expect(await failure()).toMatchObject({
      reason: 'root-key-denied',
      cause: { message: 'The token refuses the PIN: CKR_PIN_INCORRECT.' },
    });
  }
  await hsm.changePin(wrong, right);
  await writeFile(path, right);
  await until(async () => (await reason()) === undefined);
});

test('another key under the label of a lost one is not taken for it', async () => {
  await hsm.createKey('replaced');
  const provider = await open({ LATCHKEY_PKCS11_KEYS: 'replaced' });
  const { rootKeyId, blob } = await provider.wrap(plain, context);

  await hsm.deleteKey('replaced');
  await hsm.createKey('replaced');

  await expect(provider.unwrap(rootKeyId, blob, context)).rejects.toMatchObject({
    reason: 'root-key-denied',
    cause: { message: 'The key "replaced" is another one than before.' },
  });
  await expect(provider.wrap(plain, context)).rejects.toEqual(
    expect.objectContaining({ name: 'VaultUnavailableError' }),
  );
  const restarted = await open({ LATCHKEY_PKCS11_KEYS: 'replaced' });
  expect((await restarted.describe())[0]?.id).not.toBe(rootKeyId);
});

test('a session that another part of the process has ended is opened again, unfelt', async () => {
  const [one, two] = [await open(), await open()];
  const { rootKeyId, blob } = await one.wrap(plain, context);
  await hsm.createKey('ends-sessions');
  const ending = await open({ LATCHKEY_PKCS11_KEYS: 'ends-sessions' });
  const doomed = await ending.wrap(plain, context);
  await hsm.deleteKey('ends-sessions');
  // Looks for its key in a library that was begun anew.
  await expect(ending.unwrap(doomed.rootKeyId, doomed.blob, context)).rejects.toEqual(unavailable('root-key-denied'));

  for (const provider of [one, two]) {
    expect(Buffer.compare(plain, await provider.unwrap(rootKeyId, blob, context))).toBe(0);
  }
});
