import { randomBytes, randomUUID } from 'node:crypto';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { VaultUnavailableError, type VaultUnavailableReason } from '../../src/vault/errors.js';
import type { KeyContext, RootKeyProvider } from '../../src/vault/root-key.js';
import { until } from './until.js';

/** Longest that callers wait where the battery looks for that, and what a busy machine adds. */
export const TIMEOUT_MS = 400;
const PATIENCE_MS = TIMEOUT_MS + 5_000;

/** Something that happens to a provider from outside, and ends. */
export interface Trouble {
  name: string;
  /** What callers are told meanwhile; null: they feel nothing, since nobody outside of the process is asked. */
  reason: VaultUnavailableReason | null;
  begin(): Promise<void> | void;
  end(): Promise<void> | void;
}

/** What the battery needs of a kind of provider: each process with keys of the battery's choice. */
export interface Stage {
  /** Makes a root key and gives the name that `open` takes. */
  createKey(): Promise<string>;
  /** A provider as a process would start with, newest key first. */
  open(names: readonly [string, ...string[]], timeoutMs?: number): Promise<RootKeyProvider>;
  /** Takes a root key away for good, or until an operator gives it back. */
  disable(name: string): Promise<void>;
  /** Whether a process that runs notices that; otherwise the next start does. */
  noticesAtOnce: boolean;
  /** What callers are told of keys that it had wrapped. */
  disabledReason: VaultUnavailableReason;
  troubles: readonly Trouble[];
}

export const unavailable = (reason: VaultUnavailableReason) =>
  expect.objectContaining({ name: 'VaultUnavailableError', reason });

/** The contract of `RootKeyProvider`, the same for each. */
export function testRootKeyProvider(kind: string, createStage: () => Promise<Stage>): void {
  const context: KeyContext = { owner: randomUUID(), keyId: randomUUID(), keyVersion: 1 };
  const plain = randomBytes(32);
  const isPlain = (bytes: Uint8Array) => Buffer.compare(bytes, plain) === 0;

  describe(`root keys: ${kind}`, () => {
    let stage: Stage;
    let older: string;
    let newer: string;
    let provider: RootKeyProvider;
    beforeAll(async () => {
      stage = await createStage();
      [older, newer] = [await stage.createKey(), await stage.createKey()];
      provider = await stage.open([newer, older]);
    });
    afterAll(() => provider.close());

    it('give back what they wrapped, to a process that is started again as well, and the blob does not show it', async () => {
      const { rootKeyId, blob } = await provider.wrap(plain, context);
      const again = await stage.open([newer, older]);

      expect(isPlain(await provider.unwrap(rootKeyId, blob, context))).toBe(true);
      expect(isPlain(await again.unwrap(rootKeyId, blob, context))).toBe(true);
      expect(Buffer.from(blob).includes(plain.subarray(0, 4))).toBe(false);
      expect(await again.describe()).toEqual(await provider.describe());
      await provider.health();
      await again.close();
    });

    it('wrap with the newest, unwrap with any, and tell them apart by id', async () => {
      const former = await stage.open([older]);
      const wrapped = await former.wrap(plain, context);
      const [newest, second] = await provider.describe();

      expect((await provider.wrap(plain, context)).rootKeyId).toBe(newest?.id);
      expect(wrapped.rootKeyId).toBe(second?.id);
      expect(newest?.id).not.toBe(second?.id);
      expect(newest?.checkValue).not.toEqual(second?.checkValue);
      expect(isPlain(await provider.unwrap(wrapped.rootKeyId, wrapped.blob, context))).toBe(true);
      await former.close();
    });

    it('never make the same of the same key, and leave the caller its own', async () => {
      const copy = Buffer.from(plain);
      const [one, two] = [await provider.wrap(copy, context), await provider.wrap(copy, context)];

      expect(Buffer.compare(one.blob, two.blob)).not.toBe(0);
      expect(isPlain(copy)).toBe(true);
    });

    const others: [string, Partial<KeyContext>][] = [
      ['owner', { owner: randomUUID() }],
      ['key', { keyId: randomUUID() }],
      ['version', { keyVersion: 2 }],
    ];

    it.each(others)('refuse what was wrapped for another %s', async (_name, difference) => {
      const { rootKeyId, blob } = await provider.wrap(plain, context);

      const unwrapping = provider.unwrap(rootKeyId, blob, { ...context, ...difference });

      await expect(unwrapping).rejects.toEqual(unavailable('wrapped-key-refused'));
      expect(isPlain(await provider.unwrap(rootKeyId, blob, context))).toBe(true);
    });

    it('refuse what another of them wrapped', async () => {
      const [, second] = await provider.describe();
      const { blob } = await provider.wrap(plain, context);

      const unwrapping = provider.unwrap(second?.id ?? '', blob, context);

      await expect(unwrapping).rejects.toEqual(unavailable('wrapped-key-refused'));
    });

    it('say so where the root key that wrapped is not among them', async () => {
      const { rootKeyId, blob } = await provider.wrap(plain, context);
      const stranger = await stage.open([await stage.createKey()]);

      await expect(stranger.unwrap(rootKeyId, blob, context)).rejects.toEqual(unavailable('root-key-missing'));
      await expect(provider.unwrap('unknown', blob, context)).rejects.toEqual(unavailable('root-key-missing'));
      await stranger.close();
    });

    it('refuse a blob with a bit flipped in any byte, cut short, or with one byte more', async () => {
      const { rootKeyId, blob } = await provider.wrap(plain, context);
      const broken: Buffer[] = [Buffer.concat([blob, Buffer.alloc(1)])];
      for (const length of [0, 3, 4, 16, 36, 37, 48, blob.length - 1])
        broken.push(Buffer.from(blob.subarray(0, length)));
      for (let at = 0; at < blob.length; at += 1) {
        const copy = Buffer.from(blob);
        copy[at]! ^= 1 << (at & 7);
        broken.push(copy);
      }
      for (const copy of broken) {
        await expect(provider.unwrap(rootKeyId, copy, context)).rejects.toEqual(unavailable('wrapped-key-refused'));
      }
    });

    it('serve a thousand callers at once, each with its own', { timeout: 60_000 }, async () => {
      // As slow as the machine is: not with the deadline of the others.
      const patient = await stage.open([newer], 50_000);
      const wrapped = await Promise.all(
        Array.from({ length: 50 }, async (_, keyVersion) => {
          const key = randomBytes(32);
          return { key, keyVersion, ...(await patient.wrap(key, { ...context, keyVersion })) };
        }),
      );

      const answers = await Promise.all(
        Array.from({ length: 20 }, () => wrapped).flatMap((round) =>
          round.map(async ({ key, keyVersion, rootKeyId, blob }) =>
            Buffer.compare(key, await patient.unwrap(rootKeyId, blob, { ...context, keyVersion })),
          ),
        ),
      );

      expect(answers).toEqual(Array(1_000).fill(0));
      await patient.close();
    });

    it('end with a root key that is taken away, and only with that one', async () => {
      const doomed = await stage.createKey();
      const running = await stage.open([doomed]);
      const { rootKeyId, blob } = await running.wrap(plain, context);
      const kept = await provider.wrap(plain, context);

      await stage.disable(doomed);

      const after = stage.noticesAtOnce ? running : await stage.open([newer]);
      await expect(after.unwrap(rootKeyId, blob, context)).rejects.toEqual(unavailable(stage.disabledReason));
      expect(isPlain(await provider.unwrap(kept.rootKeyId, kept.blob, context))).toBe(true);
      await after.close();
    });

    it('tell every trouble in words that may be logged and in bounded time, and work again when it is over', async () => {
      const hasty = await stage.open([newer, older], TIMEOUT_MS);
      for (const { name, reason, begin, end } of stage.troubles) {
        const { rootKeyId, blob } = await provider.wrap(plain, context);
        await begin();
        const sinceMs = performance.now();
        const failures = await Promise.allSettled([
          hasty.wrap(plain, context),
          hasty.unwrap(rootKeyId, blob, context),
          hasty.health(),
        ]);
        const tookMs = performance.now() - sinceMs;
        const described = await hasty.describe();
        await end();

        const told = { name, id: described[0]?.id, isBounded: tookMs < PATIENCE_MS };
        expect(told).toEqual({ name, id: rootKeyId, isBounded: true });
        const outcomes = failures.map((failure) => ({
          name,
          reason: failure.status === 'rejected' ? (failure.reason as VaultUnavailableError).reason : null,
        }));
        expect(outcomes).toEqual(Array(3).fill({ name, reason }));
        for (const failure of failures) if (failure.status === 'rejected') expectLoggable(failure.reason);
        await until(async () => isPlain(await hasty.unwrap(rootKeyId, blob, context).catch(() => Buffer.alloc(0))));
      }
      await hasty.close();
      await until(() =>
        provider.health().then(
          () => true,
          () => false,
        ),
      );
    });

    function expectLoggable(error: unknown): void {
      expect(error).toBeInstanceOf(VaultUnavailableError);
      const { cause } = error as Error;
      for (const text of [String(error), String(cause), JSON.stringify(cause) ?? '']) {
        expect(text).not.toContain('SECRET');
        expect(text).not.toContain(plain.toString('base64'));
      }
    }
  });
}
