import { setTimeout as pause } from 'node:timers/promises';
import { expect, onTestFinished, test, vi } from 'vitest';
import { createProviderGuard, ProviderPausedError } from '../src/domain/provider-guard.js';
import { ZoomGrantInvalidError, ZoomUnavailableError } from '../src/zoom/errors.js';
import { until } from './support/until.js';

const down = () => Promise.reject(new ZoomUnavailableError('answered'));

async function outcomes(times: number, run: () => Promise<unknown>): Promise<string[]> {
  const found: string[] = [];
  for (let index = 0; index < times; index += 1) {
    found.push(
      await run().then(
        () => 'done',
        (error: Error) => error.name,
      ),
    );
  }
  return found;
}

test('after ten failures in a row an app is not asked for, until one request finds the provider back', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  expect(new Set(await outcomes(10, () => guard.call('app', down)))).toEqual(new Set(['ZoomUnavailableError']));
  expect(guard.pausedApps()).toEqual(['app']);
  let sent = 0;
  const send = () => guard.call('app', async () => (sent += 1));
  expect(await outcomes(3, send)).toEqual(Array(3).fill('ProviderPausedError'));
  expect(sent).toBe(0);
  const refusal: unknown = await guard.call('app', down).catch((error: unknown) => error);
  expect(refusal).toBeInstanceOf(ProviderPausedError);
  expect((refusal as ProviderPausedError).retryAfterSeconds).toBeGreaterThan(0);
  await until(() => guard.pausedApps().length === 0);
  expect(await outcomes(3, send)).toEqual(['done', 'done', 'done']);
  expect(sent).toBe(3);
});

test('each failure of the one that finds out makes the pause longer', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  await outcomes(10, () => guard.call('app', down));
  const pauses: number[] = [];
  for (let round = 0; round < 2; round += 1) {
    const refusal = (await guard.call('app', down).catch((error: unknown) => error)) as ProviderPausedError;
    pauses.push(refusal.retryAfterSeconds);
    await until(() => guard.pausedApps().length === 0);
    expect(await outcomes(1, () => guard.call('app', down))).toEqual(['ZoomUnavailableError']);
    expect(guard.pausedApps()).toEqual(['app']);
  }
  expect(Math.max(...pauses)).toBeLessThan(60);
});

test('setting the clock back does not make a pause longer', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  await outcomes(10, () => guard.call('app', down));
  const clock = vi.spyOn(Date, 'now').mockReturnValue(Date.now() - 3_600_000);
  onTestFinished(() => clock.mockRestore());
  const [start, limitMs] = [performance.now(), 10_000];
  while (guard.pausedApps().length > 0 && performance.now() - start < limitMs) await pause(5);
  expect(await outcomes(1, () => guard.call('app', async () => 'fine'))).toEqual(['done']);
});

test('those who ask while one finds out wait for it, and are refused without a request when it failed', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  await outcomes(10, () => guard.call('app', down));
  await until(() => guard.pausedApps().length === 0);
  let fail = (_error: Error) => undefined as void;
  const first = guard.call('app', () => new Promise((_resolve, reject) => (fail = reject)));
  let sent = 0;
  const rest = Array.from({ length: 5 }, () => outcomes(1, () => guard.call('app', async () => (sent += 1))));
  fail(new ZoomUnavailableError('answered'));
  await expect(first).rejects.toBeInstanceOf(ZoomUnavailableError);
  expect((await Promise.all(rest)).flat()).toEqual(Array(5).fill('ProviderPausedError'));
  expect(sent).toBe(0);
});

test('an app that is not asked for keeps no other waiting', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  await outcomes(12, () => guard.call('one', down));
  expect(await outcomes(1, () => guard.call('two', async () => 'fine'))).toEqual(['done']);
});

test('grants that the provider refuses are no failures of the provider', async () => {
  const guard = createProviderGuard({ perTenant: 1 });
  const refused = () => guard.call('app', () => Promise.reject(new ZoomGrantInvalidError('REJECTED')));
  expect(new Set(await outcomes(30, refused))).toEqual(new Set(['ZoomGrantInvalidError']));
  expect(guard.pausedApps()).toEqual([]);
});

test('retries beyond the reserve are a tenth of first attempts and a few a second, for each app by itself', () => {
  const guard = createProviderGuard({ perTenant: 1 });
  const tries = (attempt: 'first' | 'retry', times: number, app = 'app') =>
    Array.from({ length: times }, () => guard.mayTry(app, attempt)).filter(Boolean).length;
  const reserve = tries('retry', 1_000);
  expect(reserve).toBeGreaterThanOrEqual(100);
  expect(reserve).toBeLessThan(110);
  expect(tries('first', 100)).toBe(100);
  const earned = tries('retry', 1_000);
  expect(earned).toBeGreaterThanOrEqual(9);
  expect(earned).toBeLessThan(20);
  expect(tries('retry', 1, 'other')).toBe(1);
});

test('a tenant never has more under way than its share, in order, and others are not held up by it', async () => {
  const guard = createProviderGuard({ perTenant: 3 });
  const begun: number[] = [];
  const ends: (() => void)[] = [];
  const work = Array.from({ length: 10 }, (_, index) =>
    guard.inShareOf('big', () => {
      begun.push(index);
      return new Promise<void>((resolve) => ends.push(resolve));
    }),
  );
  expect(begun).toEqual([0, 1, 2]);
  expect(guard.running()).toEqual(new Map([['big', 3]]));
  expect(await guard.inShareOf('small', async () => 'at once')).toBe('at once');
  for (let next = 0; next < 10; next += 1) {
    await until(() => ends.length > next);
    expect(guard.running().get('big')).toBeLessThanOrEqual(3);
    ends[next]?.();
  }
  await Promise.all(work);
  expect(begun).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
  await until(() => guard.running().size === 0);
});
