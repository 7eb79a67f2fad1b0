import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { openRootKeys } from '../src/root-keys.js';
import { RootKeyInvalidError } from '../src/vault/errors.js';
import { createAwsKmsRootKeys } from '../src/vault/root-key-aws-kms.js';
import type { KeyContext } from '../src/vault/root-key.js';
import { startKmsStandIn } from './support/kms-stand-in.js';
import { unavailable } from './support/root-key-battery.js';
import { kmsSettings, useCredentials } from './support/root-key-stages.js';

const kms = await startKmsStandIn();
afterAll(() => kms.stop());
const { credentials } = kms;

const context: KeyContext = { owner: randomUUID(), keyId: randomUUID(), keyVersion: 7 };
const plain = randomBytes(32);

beforeEach(() => {
  useCredentials(credentials);
  kms.journal.length = 0;
});

const open = (...arns: string[]) =>
  openRootKeys(readConfig({ ...kmsSettings(kms, arns), LATCHKEY_ROOT_KEY_TIMEOUT_MS: '20000' }));

test('what a key is bound to is the encryption context, and the key is named in every request', async () => {
  const arn = kms.createKey();
  const provider = await open(arn);
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  await provider.unwrap(rootKeyId, blob, context);

  expect(rootKeyId).toBe(`aws-kms:${arn}`);
  const bound = { 'latchkey:owner': context.owner, 'latchkey:key-id': context.keyId, 'latchkey:key-version': '7' };
  expect(kms.journal).toEqual([
    { operation: 'Encrypt', keyId: arn, context: bound },
    { operation: 'Decrypt', keyId: arn, context: bound },
  ]);
});

test('keys of several regions are asked for in their own', async () => {
  const [german, irish] = [kms.createKey('eu-central-1'), kms.createKey('eu-west-1')];
  const before = await open(irish);
  const wrapped = await before.wrap(plain, context);
  const provider = await open(german, irish);

  expect((await provider.wrap(plain, context)).rootKeyId).toBe(`aws-kms:${german}`);
  expect(Buffer.compare(plain, await provider.unwrap(wrapped.rootKeyId, wrapped.blob, context))).toBe(0);
});

test('a request that is throttled is repeated', async () => {
  const provider = await open(kms.createKey());
  kms.throttleNext = 2;

  const { rootKeyId, blob } = await provider.wrap(plain, context);

  expect(kms.throttleNext).toBe(0);
  expect(Buffer.compare(plain, await provider.unwrap(rootKeyId, blob, context))).toBe(0);
});

test('a key that is to be deleted, or is not there, is told from an outage, and is not asked for again by itself', async () => {
  const arn = kms.createKey();
  const provider = await open(arn);
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  const key = kms.keys.get(arn);
  if (key === undefined) throw new Error('There is no key.');
  kms.journal.length = 0;

  key.state = 'PendingDeletion';
  await expect(provider.unwrap(rootKeyId, blob, context)).rejects.toEqual(unavailable('root-key-denied'));
  kms.keys.delete(arn);
  await expect(provider.health()).rejects.toEqual(unavailable('root-key-denied'));

  expect(kms.journal).toHaveLength(2);
});

test('credentials that are wrong or missing are an outage, told in bounded time', async () => {
  const arn = kms.createKey();
  useCredentials({ ...credentials, secretAccessKey: 'SECRET-other' });
  const wrong = await open(arn);
  await expect(wrong.wrap(plain, context)).rejects.toEqual(unavailable('provider-failed'));
  const never = await createAwsKmsRootKeys({
    keyArns: [arn],
    endpoint: kms.endpoint,
    timeoutMs: 100,
    credentials: () => new Promise(() => undefined),
  });
  await expect(never.wrap(plain, context)).rejects.toEqual(unavailable('provider-failed'));
  expect(kms.journal).toEqual([]);
});

test('an alias is refused: it may name another key tomorrow', async () => {
  const alias = 'arn:aws:kms:eu-central-1:111122223333:alias/latchkey';
  expect(() => readConfig(kmsSettings(kms, [alias]))).toThrow('LATCHKEY_AWS_KMS_KEYS.0 must be ARNs of keys');
  const opening = createAwsKmsRootKeys({ keyArns: [alias], endpoint: null, timeoutMs: 100 });
  await expect(opening).rejects.toBeInstanceOf(RootKeyInvalidError);
});
