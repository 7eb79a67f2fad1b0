import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeEach, expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import { openRootKeys } from '../src/root-keys.js';
import { RootKeyInvalidError } from '../src/vault/errors.js';
import { createAwsKmsRootKeys } from '../src/vault/root-key-aws-kms.js';
import type { KeyContext } from '../src/vault/root-key.js';
import { startKmsStandIn } from './support/kms-stand-in.js';
import { unavailable } from './support/root-key-battery.js';
import { kmsSettings, useCredentials, useKmsEndpoint } from './support/root-key-stages.js';
import { until } from './support/until.js';

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

test('each refusal of AWS is told as what it means for the key, with its name and nothing else of it', async () => {
  const provider = await open(kms.createKey());
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  const reasons = {
    InvalidCiphertextException: 'wrapped-key-refused',
    IncorrectKeyException: 'wrapped-key-refused',
    AccessDeniedException: 'root-key-denied',
    DisabledException: 'root-key-denied',
    InvalidKeyUsageException: 'root-key-denied',
    KMSInvalidStateException: 'root-key-denied',
    NotFoundException: 'root-key-denied',
    ExpiredTokenException: 'provider-failed',
  } as const;
  for (const [name, reason] of Object.entries(reasons)) {
    kms.refuseNext = name;
    const refused = await provider.unwrap(rootKeyId, blob, context).catch((error: unknown) => error as Error);
    expect(refused).toEqual(unavailable(reason));
    expect(String((refused as Error).cause)).toMatch(
      new RegExp(`^Error: AWS KMS: ${name}, status 400, request [0-9a-f-]{36}$`),
    );
  }
  await kms.stop();
  const away = await provider.wrap(plain, context).catch((error: unknown) => error as Error);
  await kms.start();
  expect(away).toEqual(unavailable('provider-failed'));
  expect(String((away as Error).cause)).toMatch(/^Error: AWS KMS: \w+, status none, request none$/);
});

test('an answer of another key, or without what was asked for, is an outage', async () => {
  const provider = await open(kms.createKey());
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  const spoils: (typeof kms.spoil)[] = [
    (answer) => ({ ...answer, KeyId: 'arn:aws:kms:eu-central-1:111122223333:key/other' }),
    ({ CiphertextBlob: _blob, Plaintext: _plain, ...answer }) => answer,
  ];
  for (const spoil of spoils) {
    kms.spoil = spoil;
    const attempts = [() => provider.wrap(plain, context), () => provider.unwrap(rootKeyId, blob, context)];
    for (const attempt of attempts) {
      const refused = await attempt().catch((error: unknown) => error as Error);
      expect(refused).toEqual(unavailable('provider-failed'));
      expect(String((refused as Error).cause)).toBe('Error: AWS KMS answered something else than asked for');
    }
  }
  kms.spoil = (answer) => answer;
  expect(Buffer.compare(plain, await provider.unwrap(rootKeyId, blob, context))).toBe(0);
});

test('what is too short to be a wrapped key is refused without a question', async () => {
  const provider = await open(kms.createKey());
  const { rootKeyId, blob } = await provider.wrap(plain, context);
  kms.journal.length = 0;
  for (const length of [0, 4, 36]) {
    const unwrapping = provider.unwrap(rootKeyId, blob.subarray(0, length), context);
    await expect(unwrapping).rejects.toEqual(unavailable('wrapped-key-refused'));
  }
  expect(kms.journal).toEqual([]);
  const longer = provider.unwrap(rootKeyId, blob.subarray(0, 37), context);
  await expect(longer).rejects.toEqual(unavailable('wrapped-key-refused'));
  expect(kms.journal).toHaveLength(1);
});

test('its health is a key that is wrapped and unwrapped, for no tenant', async () => {
  const arn = kms.createKey();
  const provider = await open(arn);
  await provider.health();
  const bound = { 'latchkey:owner': 'health', 'latchkey:key-id': 'health', 'latchkey:key-version': '0' };
  expect(kms.journal).toEqual([
    { operation: 'Encrypt', keyId: arn, context: bound },
    { operation: 'Decrypt', keyId: arn, context: bound },
  ]);
  kms.refuseNext = 'AccessDeniedException';
  await expect(provider.health()).rejects.toEqual(unavailable('root-key-denied'));
});

test('a key is recognised by its ARN, without a question', async () => {
  const [one, other] = [kms.createKey(), kms.createKey()];
  const described = await (await open(one, other)).describe();
  expect(described.map(({ id }) => id)).toEqual([`aws-kms:${one}`, `aws-kms:${other}`]);
  const digest = (text: string) => createHash('sha256').update(`latchkey aws kms key check${text}`).digest();
  expect(described.map(({ checkValue }) => checkValue)).toEqual(described.map(({ id }) => digest(id)));
  expect(kms.journal).toEqual([]);
});

test('its connections are closed with it', async () => {
  // Those of the other tests.
  await kms.stop();
  await kms.start();
  const provider = await open(kms.createKey(), kms.createKey('eu-west-1'));
  await provider.health();
  expect(await kms.connections()).toBeGreaterThan(0);
  await provider.close();
  await until(async () => (await kms.connections()) === 0);
});

test('a request that nobody waits for any more is given up', async () => {
  const arn = kms.createKey();
  const { rootKeyId, blob } = await (await open(arn)).wrap(plain, context);
  const provider = await createAwsKmsRootKeys({ keyArns: [arn], endpoint: kms.endpoint, timeoutMs: 200 });
  await kms.stop();
  await kms.start();
  kms.trouble = 'silent';
  for (const ask of [() => provider.wrap(plain, context), () => provider.unwrap(rootKeyId, blob, context)]) {
    const error = await ask().catch((failure: unknown) => failure as Error);
    expect(error).toEqual(unavailable('provider-failed'));
    expect(String((error as Error).cause)).toBe('Error: No answer within 200 ms');
    await until(async () => (await kms.connections()) === 0);
  }
  kms.trouble = null;
});

test('without a key none wraps', async () => {
  const none = await createAwsKmsRootKeys({ keyArns: [], endpoint: kms.endpoint, timeoutMs: 200 });
  await expect(none.wrap(plain, context)).rejects.toEqual(unavailable('root-key-missing'));
});

test('without an endpoint of ours the one of the AWS SDK holds, and with credentials of ours no others', async () => {
  const arn = kms.createKey();
  useKmsEndpoint(kms.endpoint);
  useCredentials({ ...credentials, secretAccessKey: 'SECRET-other' });
  const provider = await createAwsKmsRootKeys({ keyArns: [arn], endpoint: null, timeoutMs: 20_000, credentials });
  await provider.health();
  useKmsEndpoint(null);
  await provider.close();
  expect(kms.journal).toHaveLength(2);
  await expect(provider.unwrap('aws-kms:unknown', new Uint8Array(), context)).rejects.toEqual(
    unavailable('root-key-missing'),
  );
});

test('an alias is refused: it may name another key tomorrow', async () => {
  const alias = 'arn:aws:kms:eu-central-1:111122223333:alias/latchkey';
  expect(() => readConfig(kmsSettings(kms, [alias]))).toThrow('LATCHKEY_AWS_KMS_KEYS.0 must be ARNs of keys');
  const opening = createAwsKmsRootKeys({ keyArns: [alias], endpoint: null, timeoutMs: 100 });
  await expect(opening).rejects.toEqual(new RootKeyInvalidError(`"${alias}" is not the ARN of a KMS key.`));
});
