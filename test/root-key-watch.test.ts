import { createSecretKey, randomBytes } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { withinDeadline } from '../src/vault/deadline.js';
import { VaultUnavailableError } from '../src/vault/errors.js';
import { joinRootKeys } from '../src/vault/root-key-set.js';
import { watchRootKeys } from '../src/vault/root-key-watch.js';
import { createLocalRootKeys, type RootKeyProvider } from '../src/vault/root-key.js';
import { unavailable } from './support/root-key-battery.js';
import { until } from './support/until.js';

const newRootKeys = () => createLocalRootKeys([createSecretKey(randomBytes(32))]);

test('an answer that comes too late is an outage, and a plain key in it is overwritten', async () => {
  const late = Buffer.alloc(32, 7);
  let aborted = false;
  const answering = withinDeadline(20, async (signal) => {
    await setTimeout(40);
    aborted = signal.aborted;
    return late;
  });
  const error = await answering.catch((failure: unknown) => failure);
  expect(error).toEqual(unavailable('provider-failed'));
  expect(String((error as Error).cause)).toBe('Error: No answer within 20 ms');
  await until(() => late.equals(Buffer.alloc(32)));
  expect(aborted).toBe(true);
});

test('an answer or a failure in time is passed on as it is', async () => {
  const plain = Buffer.alloc(32, 7);
  expect(await withinDeadline(1_000, async () => plain)).toBe(plain);
  await setTimeout(5);
  expect(plain.equals(Buffer.alloc(32, 7))).toBe(true);
  const failure = new Error('of its own');
  await expect(withinDeadline(1_000, () => Promise.reject(failure))).rejects.toBe(failure);
});

test('an answer or a failure in time leaves no timer behind that would keep the process', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  const before = timers();
  await withinDeadline(60_000, async () => 1);
  await withinDeadline(60_000, () => Promise.reject(new Error('of its own'))).catch(() => null);
  // Others that run may end meanwhile.
  expect(timers()).toBeLessThanOrEqual(before);
});

test("a late failure is nobody's any more, and ends no process", async () => {
  const answering = withinDeadline(10, async () => {
    await setTimeout(20);
    throw new Error('late');
  });
  await expect(answering).rejects.toEqual(unavailable('provider-failed'));
  await setTimeout(30);
});

test('of several providers the first wraps, and each unwraps its own', async () => {
  const [newest, former, stranger] = [newRootKeys(), newRootKeys(), newRootKeys()];
  const context = { owner: 'a', keyId: 'b', keyVersion: 1 };
  const plain = randomBytes(32);
  const both = await joinRootKeys([newest, former]);
  const ids = await Promise.all([newest, former].map(async (provider) => (await provider.describe())[0]));
  expect(await both.describe()).toEqual(ids);
  expect((await both.wrap(plain, context)).rootKeyId).toBe(ids[0]?.id);
  for (const provider of [newest, former]) {
    const { rootKeyId, blob } = await provider.wrap(plain, context);
    expect(Buffer.compare(plain, await both.unwrap(rootKeyId, blob, context))).toBe(0);
  }
  const { rootKeyId, blob } = await stranger.wrap(plain, context);
  await expect(both.unwrap(rootKeyId, blob, context)).rejects.toEqual(unavailable('root-key-missing'));
  expect(await joinRootKeys([newest])).toBe(newest);
});

test('several providers are well when each is, and are closed together', async () => {
  const closed: string[] = [];
  const part = (name: string, isWell: boolean): RootKeyProvider => ({
    ...newRootKeys(),
    health: async () => {
      if (!isWell) throw new VaultUnavailableError('root-key-denied');
    },
    close: async () => void closed.push(name),
  });
  await (await joinRootKeys([part('a', true), part('b', true)])).health();
  for (const wells of [[true, false] as const, [false, true] as const]) {
    const both = await joinRootKeys([part('c', wells[0]), part('d', wells[1])]);
    await expect(both.health()).rejects.toEqual(unavailable('root-key-denied'));
    await both.close();
  }
  expect(closed).toEqual(['c', 'd', 'c', 'd']);
});

test('a provider that nobody uses is asked in the background, by one question at a time', async () => {
  const local = newRootKeys();
  const state = { isDown: false, asked: 0 };
  const health = async () => {
    state.asked += 1;
    await setTimeout(20);
    if (state.isDown) throw new VaultUnavailableError('provider-failed');
  };
  const watch = watchRootKeys({ ...local, health }, { askAfterMs: 30 });
  expect(watch.failingMs()).toBe(0);
  expect(state.asked).toBe(0);
  state.isDown = true;
  const sinceMs = performance.now();
  await setTimeout(31);
  expect(Array.from({ length: 100 }, watch.failingMs)).toEqual(Array(100).fill(0));
  expect(state.asked).toBe(1);
  await until(() => watch.failingMs() > 0);
  const first = watch.failingMs();
  await until(() => watch.failingMs() > first && state.asked >= 3);
  expect(watch.failingMs()).toBeGreaterThan(first);
  expect(watch.failingMs()).toBeLessThanOrEqual(performance.now() - sinceMs);
  state.isDown = false;
  await until(() => watch.failingMs() === 0);
});

test('what a provider says of one key is no outage, and a key that may not be used is', async () => {
  const local = newRootKeys();
  const context = { owner: 'a', keyId: 'b', keyVersion: 1 };
  const denied = { ...local, wrap: () => Promise.reject(new VaultUnavailableError('root-key-denied')) };
  const watch = watchRootKeys(denied);
  await watch.rootKeys.unwrap('unknown', new Uint8Array(), context).catch(() => null);
  expect(watch.failingMs()).toBe(0);
  await watch.rootKeys.wrap(new Uint8Array(32), context).catch(() => null);
  await setTimeout(2);
  expect(watch.failingMs()).toBeGreaterThan(0);
  await watch.rootKeys.unwrap('unknown', new Uint8Array(), context).catch(() => null);
  expect(watch.failingMs()).toBe(0);
});
