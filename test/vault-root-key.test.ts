import { createSecretKey, randomBytes, randomUUID, type KeyObject } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RootKeyInvalidError, VaultOpenError, VaultUnavailableError } from '../src/vault/errors.js';
import { createLocalRootKeys, parseRootKeys, type KeyContext } from '../src/vault/root-key.js';

const rules = { production: true };
const development = { production: false };
const context: KeyContext = { owner: randomUUID(), keyId: randomUUID(), keyVersion: 1 };
const plain = randomBytes(32);

function newRootKey(): KeyObject {
  return createSecretKey(randomBytes(32));
}

function invalid(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(RootKeyInvalidError);
    return (error as Error).message;
  }
  throw new Error('the root keys were accepted');
}

const unavailable = (reason: VaultUnavailableError['reason']) =>
  expect.objectContaining({ name: 'VaultUnavailableError', reason });

describe('local root keys', () => {
  it('give back what they wrapped, and the blob does not show it', async () => {
    const rootKeys = createLocalRootKeys([newRootKey()]);

    const { rootKeyId, blob } = await rootKeys.wrap(plain, context);

    expect(Buffer.from(await rootKeys.unwrap(rootKeyId, blob, context)).equals(plain)).toBe(true);
    expect(Buffer.from(blob).includes(plain.subarray(0, 4))).toBe(false);
  });

  it('wrap with the newest and unwrap with any', async () => {
    const [older, newer] = [newRootKey(), newRootKey()];
    const before = createLocalRootKeys([older]);
    const during = createLocalRootKeys([newer, older]);
    const wrapped = await before.wrap(plain, context);

    const [newest, former] = await during.describe();
    expect((await during.wrap(plain, context)).rootKeyId).toBe(newest?.id);
    expect(wrapped.rootKeyId).toBe(former?.id);
    expect(Buffer.from(await during.unwrap(wrapped.rootKeyId, wrapped.blob, context)).equals(plain)).toBe(true);
  });

  const others: [string, Partial<KeyContext>][] = [
    ['tenant', { owner: randomUUID() }],
    ['key id', { keyId: randomUUID() }],
    ['version', { keyVersion: 2 }],
  ];

  it.each(others)('refuse a blob that was wrapped for another %s', async (_name, difference) => {
    const rootKeys = createLocalRootKeys([newRootKey()]);
    const { rootKeyId, blob } = await rootKeys.wrap(plain, context);

    const unwrapping = rootKeys.unwrap(rootKeyId, blob, { ...context, ...difference });

    await expect(unwrapping).rejects.toEqual(unavailable('wrapped-key-refused'));
  });

  it('refuse a blob with any bit flipped, any byte cut off, or one more', async () => {
    const rootKeys = createLocalRootKeys([newRootKey()]);
    const { rootKeyId, blob } = await rootKeys.wrap(plain, context);
    const broken: Buffer[] = [Buffer.concat([blob, Buffer.alloc(1)])];
    for (let length = 0; length < blob.length; length += 1) broken.push(Buffer.from(blob.subarray(0, length)));
    for (let bit = 0; bit < blob.length * 8; bit += 1) {
      const copy = Buffer.from(blob);
      copy[bit >> 3]! ^= 1 << (bit & 7);
      broken.push(copy);
    }
    for (const copy of broken) {
      await expect(rootKeys.unwrap(rootKeyId, copy, context)).rejects.toEqual(unavailable('wrapped-key-refused'));
    }
  });

  it('refuse a blob of another root key under the name of a given one', async () => {
    const rootKeys = createLocalRootKeys([newRootKey(), newRootKey()]);
    const { blob } = await rootKeys.wrap(plain, context);
    const [, older] = await rootKeys.describe();

    await expect(rootKeys.unwrap(older?.id ?? '', blob, context)).rejects.toEqual(unavailable('wrapped-key-refused'));
  });

  it('say so where the root key that wrapped is not given', async () => {
    const { rootKeyId, blob } = await createLocalRootKeys([newRootKey()]).wrap(plain, context);

    const unwrapping = createLocalRootKeys([newRootKey()]).unwrap(rootKeyId, blob, context);

    await expect(unwrapping).rejects.toEqual(unavailable('root-key-missing'));
  });

  it('are recognised by an id of 16 hexadecimal digits and a check value that depend on the key alone', async () => {
    const key = newRootKey();
    const [one] = await createLocalRootKeys([key]).describe();
    const [, again] = await createLocalRootKeys([newRootKey(), createSecretKey(key.export())]).describe();
    const [other] = await createLocalRootKeys([newRootKey()]).describe();

    expect(one?.id).toMatch(/^[0-9a-f]{16}$/);
    expect(one?.checkValue).toHaveLength(32);
    expect(again).toEqual(one);
    expect(other?.id).not.toBe(one?.id);
    expect(other?.checkValue).not.toEqual(one?.checkValue);
  });

  it('are never none', () => {
    expect(invalid(() => createLocalRootKeys([]))).toBe('No root key is given.');
  });
});

describe('wrapped keys of format 1', () => {
  interface Golden {
    rootKey: { hex: string; id: string; checkValueHex: string };
    values: { name: string; key: { id: string; version: number; owner: string; hex: string }; wrappedHex: string }[];
  }
  const golden = JSON.parse(readFileSync(new URL('fixtures/vault-format-1.json', import.meta.url), 'utf8')) as Golden;
  const rootKeys = createLocalRootKeys([createSecretKey(Buffer.from(golden.rootKey.hex, 'hex'))]);

  it.each(golden.values)('unwrap as when the format was new: $name', async ({ key, wrappedHex }) => {
    const known = { owner: key.owner, keyId: key.id, keyVersion: key.version };

    const unwrapped = await rootKeys.unwrap(golden.rootKey.id, Buffer.from(wrappedHex, 'hex'), known);

    expect(Buffer.from(unwrapped).toString('hex')).toBe(key.hex);
  });

  it('are found by the same id and check value as then', async () => {
    const [described] = await rootKeys.describe();

    expect(described?.id).toBe(golden.rootKey.id);
    expect(Buffer.from(described?.checkValue ?? []).toString('hex')).toBe(golden.rootKey.checkValueHex);
  });
});

describe('a root key setting', () => {
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64');
  const values = [randomBytes(32), randomBytes(32), randomBytes(32)];
  const encoded = values.map(base64);

  it.each([',', '\n', '\r\n', ', ', ' ,\n', '\n\n'])(
    'holds several keys, newest first, separated by %j',
    (separator) => {
      const keys = parseRootKeys(`${encoded.join(separator)}\n`, rules);

      expect(keys.map((key) => base64(key.export()))).toEqual(encoded);
    },
  );

  it('may be in the URL form of base64, with or without padding', () => {
    const bytes = Buffer.from('fbefbe'.repeat(10) + randomBytes(2).toString('hex'), 'hex');
    for (const text of [bytes.toString('base64url'), base64(bytes), base64(bytes).replace('=', '')]) {
      expect(parseRootKeys(text, development).map((key) => base64(key.export()))).toEqual([base64(bytes)]);
    }
  });

  it.each([0, 1, 16, 31, 33, 64])('with %d bytes instead of 32 in one place is refused, naming the place', (length) => {
    const wrong = base64(randomBytes(length)) || 'A';
    const message = invalid(() => parseRootKeys(`${encoded[0]},${wrong},${encoded[2]}`, development));

    expect(message).toMatch(/^Root key 2 of 3 is base64 of \d+ bytes instead of 32\.$/);
    for (const value of [...encoded, ...(length > 1 ? [wrong] : [])]) expect(message).not.toContain(value);
  });

  it('that is not base64 is refused and not shown', () => {
    const wrong = `${encoded[1]?.slice(0, 20)}!${encoded[1]?.slice(21)}`;

    expect(invalid(() => parseRootKeys(`${encoded[0]}\n${wrong}`, rules))).toBe('Root key 2 of 2 is not base64.');
  });

  it('that gives one key twice is refused', () => {
    expect(invalid(() => parseRootKeys(`${encoded[0]},${encoded[1]},${encoded[0]}`, rules))).toContain(
      'Root key 3 of 3',
    );
  });

  it.each(['', ' \n', ','])('that gives none (%j) is refused', (setting) => {
    expect(invalid(() => parseRootKeys(setting, rules))).toBe('No root key is given.');
  });

  const series = (step: number, from = 0) => Uint8Array.from({ length: 32 }, (_, at) => from + at * step);
  const madeUp: [string, Uint8Array][] = [
    ['zeros', series(0)],
    ['one byte repeated', series(0, 0x42)],
    ['bytes that ascend', series(1)],
    ['bytes that ascend past 255', series(1, 240)],
    ['bytes that descend', series(-1, 31)],
    ['bytes that ascend by seven', series(7, 3)],
    ['two bytes in turn', Uint8Array.from({ length: 32 }, (_, at) => at % 2)],
    ['sixteen random bytes twice', Buffer.alloc(32, randomBytes(16))],
    ['hexadecimal text', Buffer.from(randomBytes(16).toString('hex'))],
    ['a repeated word', Buffer.alloc(32, 'password')],
  ];

  it.each(madeUp)('of %s is refused in production alone, and not shown', (_name, bytes) => {
    const message = invalid(() => parseRootKeys(base64(bytes), rules));

    expect(message).toContain('Root key 1 of 1 is not random');
    expect(message).not.toContain(base64(bytes));
    expect(parseRootKeys(base64(bytes), development)).toHaveLength(1);
  });

  it('of 17 different bytes is taken, and of 16 not', () => {
    const distinct = (text: string) => new Set(Buffer.from(text, 'base64')).size;
    const shuffled = (count: number) => base64(Uint8Array.from({ length: 32 }, (_, at) => ((at % count) * 37) % 251));
    expect([distinct(shuffled(17)), distinct(shuffled(16))]).toEqual([17, 16]);
    expect(parseRootKeys(shuffled(17), rules)).toHaveLength(1);
    expect(invalid(() => parseRootKeys(shuffled(16), rules))).toContain('is not random');
  });

  it('of random bytes is never taken for a made-up one', () => {
    for (let made = 0; made < 20_000; made += 1) expect(parseRootKeys(base64(randomBytes(32)), rules)).toHaveLength(1);
  });

  it('never comes back in an error, whatever it holds', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 8, maxLength: 80 }), (setting) => {
        const parts = setting.split(/[\s,]+/).filter((part) => part.length >= 8);
        const message = invalid(() => parseRootKeys(setting, rules));
        expect(parts.filter((part) => message.includes(part))).toEqual([]);
      }),
    );
  });
});

describe('the errors of the vault', () => {
  it('say in a sentence why there is no key, and keep the cause', () => {
    const cause = new Error('of the provider');
    const reasons = {
      'no-tenant-key': 'the owner has no key',
      'root-key-missing': 'the key is wrapped by a root key that is not given',
      'root-key-denied': 'the root key is disabled, destroyed or not permitted',
      'wrapped-key-refused': 'the wrapped key is not the one that was stored for its owner',
      'provider-failed': 'the root key provider failed',
    } as const;
    for (const [reason, words] of Object.entries(reasons)) {
      const error = new VaultUnavailableError(reason as keyof typeof reasons, { cause });
      expect(error).toMatchObject({
        name: 'VaultUnavailableError',
        message: `The vault is unavailable: ${words}`,
        cause,
      });
    }
  });

  it('say nothing of why a value does not open', () => {
    expect(new VaultOpenError()).toMatchObject({ name: 'VaultOpenError', message: 'The sealed value does not open' });
  });
});
