import { createSecretKey, randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { prepareKey, type EnvelopeKey } from '../src/vault/envelope.js';
import { VaultUnavailableError } from '../src/vault/errors.js';
import { createKeyCache, type KeyName } from '../src/vault/key-cache.js';

const ID = '00000000-0000-4000-8000-000000000001';
const name = (owner: string, version = 1): KeyName => ({ owner, id: ID, version });
const keyOf = ({ owner, id, version }: KeyName): EnvelopeKey =>
  prepareKey({ owner, id, version, key: createSecretKey(randomBytes(32)) });
const outage = () => Promise.reject(new VaultUnavailableError('provider-failed'));
const never = () => expect.fail('the provider was asked');

/** A provider's answer that comes when the test says so. */
function answer(keyName: KeyName) {
  const key = keyOf(keyName);
  let come: () => void = never;
  let fail: (error: Error) => void = never;
  const promise = new Promise<EnvelopeKey>((resolve, reject) => {
    come = () => resolve(key);
    fail = reject;
  });
  return { key, unwrap: () => promise, come, fail };
}

test('a key is asked for once, by however many at once, and is at hand for its time', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 60_000 });
  const { key, unwrap, come } = answer(name('a'));
  const asked = [cache.get(name('a'), unwrap), cache.get(name('a'), never), cache.get(name('a'), never)];
  expect(cache.fresh(name('a'))).toBe(undefined);
  come();
  expect(await Promise.all(asked)).toEqual([key, key, key]);
  expect(cache.fresh(name('a'))).toBe(key);
  expect(await cache.get(name('a'), never)).toBe(key);
  expect(cache.stats()).toEqual({ hits: 2, unwraps: 1, size: 1 });
});

test('owners, keys and versions are told apart', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 60_000 });
  const names = [name('a'), name('b'), name('a', 2), { ...name('a'), id: ID.replace(/1$/, '2') }];
  const keys = await Promise.all(names.map((each) => cache.get(each, async () => keyOf(each))));
  expect(names.map((each) => cache.fresh(each))).toEqual(keys);
  expect(new Set(keys).size).toBe(4);
  expect(cache.stats()).toEqual({ hits: 4, unwraps: 4, size: 4 });
});

test('of more keys than it may hold the least recently used one goes', async () => {
  const cache = createKeyCache({ maxKeys: 2, ttlMs: 60_000 });
  for (const owner of ['a', 'b']) await cache.get(name(owner), async () => keyOf(name(owner)));
  cache.fresh(name('a'));
  await cache.get(name('c'), async () => keyOf(name('c')));
  expect(['a', 'b', 'c'].map((owner) => cache.fresh(name(owner))?.owner)).toEqual(['a', undefined, 'c']);
  expect(cache.stats().size).toBe(2);
});

test('after its time a key is asked for again, and serves on where the provider fails, up to twice its time', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 400 });
  const key = await cache.get(name('a'), async () => keyOf(name('a')));
  await setTimeout(410);
  expect(cache.fresh(name('a'))).toBe(undefined);
  expect(await cache.get(name('a'), outage)).toBe(key);
  expect(cache.fresh(name('a'))).toBe(key);
  await setTimeout(410);
  await expect(cache.get(name('a'), outage)).rejects.toMatchObject({ reason: 'provider-failed' });
  expect(cache.stats()).toMatchObject({ hits: 1, unwraps: 3, size: 0 });
});

test('while the provider fails, it is asked again after a second', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 1_500 });
  const key = await cache.get(name('a'), async () => keyOf(name('a')));
  await setTimeout(1_510);
  expect(await cache.get(name('a'), outage)).toBe(key);
  expect(await cache.get(name('a'), never)).toBe(key);
  await setTimeout(1_010);
  const newer = keyOf(name('a'));
  expect(await cache.get(name('a'), async () => newer)).toBe(newer);
  expect(cache.fresh(name('a'))).toBe(newer);
});

test('a key serves on in an outage alone, not where the provider refuses it', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 300 });
  await cache.get(name('a'), async () => keyOf(name('a')));
  await setTimeout(310);
  for (const error of [new VaultUnavailableError('root-key-denied'), new Error('of its own')]) {
    await expect(cache.get(name('a'), () => Promise.reject(error))).rejects.toBe(error);
  }
});

test('a failure is told to all who wait, and the next caller asks anew', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 60_000 });
  const { unwrap, fail } = answer(name('a'));
  const asked = [cache.get(name('a'), unwrap), cache.get(name('a'), never)];
  fail(new VaultUnavailableError('provider-failed'));
  for (const each of await Promise.allSettled(asked)) expect(each.status).toBe('rejected');
  const key = keyOf(name('a'));
  expect(await cache.get(name('a'), async () => key)).toBe(key);
});

test('a key that is forgotten while it is on its way serves those who wait, and nobody after', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 60_000 });
  const [gone, kept] = [answer(name('a')), answer(name('ab'))];
  const asked = [cache.get(name('a'), gone.unwrap), cache.get(name('ab'), kept.unwrap)];
  cache.forget('a');
  gone.come();
  kept.come();
  expect(await Promise.all(asked)).toEqual([gone.key, kept.key]);
  expect(cache.fresh(name('a'))).toBe(undefined);
  expect(cache.fresh(name('ab'))).toBe(kept.key);
});

test('one that is asked for again after it was forgotten is not lost by the end of the first question', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 60_000 });
  const [first, second] = [answer(name('a')), answer(name('a'))];
  const before = cache.get(name('a'), first.unwrap);
  cache.forget('a');
  const after = cache.get(name('a'), second.unwrap);
  first.fail(new Error('of its own'));
  await expect(before).rejects.toThrow('of its own');
  await setTimeout(0);
  const third = cache.get(name('a'), never);
  second.come();
  expect(await Promise.all([after, third])).toEqual([second.key, second.key]);
  expect(cache.fresh(name('a'))).toBe(second.key);
});

test('a forgotten key does not serve in an outage that it was asked for in', async () => {
  const cache = createKeyCache({ maxKeys: 9, ttlMs: 300 });
  await cache.get(name('a'), async () => keyOf(name('a')));
  await cache.get(name('b'), async () => keyOf(name('b')));
  await setTimeout(310);
  const { unwrap, fail } = answer(name('a'));
  const asking = cache.get(name('a'), unwrap);
  cache.forget('a');
  fail(new VaultUnavailableError('provider-failed'));
  await expect(asking).rejects.toMatchObject({ reason: 'provider-failed' });
  expect(cache.stats().size).toBe(1);
});
