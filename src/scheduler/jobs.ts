import type { CredentialDeps } from '../domain/credential.js';
import { watchClock } from '../domain/clock-offset.js';
import { purgeMeetings, reconcileMeetings } from '../domain/meeting-reconciliation.js';
import { probeDue } from '../domain/probe.js';
import { watchLag } from '../domain/refresh-lag.js';
import { purgeRateUsage } from '../domain/rate-limit.js';
import { purgeExpired } from '../domain/retention.js';
import { revokePending } from '../domain/revocation.js';
import type { KeyUse } from '../domain/server-key.js';
import { endRequested } from '../domain/revocation-request.js';
import { createKeyForgetter, finishDeletions } from '../domain/tenant-deletion.js';
import { rewrapKeys, tendKeys } from '../domain/tenant-key.js';
import type { Job } from './scheduler.js';

type JobDeps = CredentialDeps & { keyUse: KeyUse };

/** A job that has nothing to do right after it was done. */
const every = (intervalMs: number, name: string, run: () => Promise<void>): Job => ({
  name,
  intervalMs,
  run: async () => {
    await run();
    return false;
  },
});

/**
 * What a process does by itself. Each job may run in any number of processes at once.
 *
 * @param options `schedules`: false for a process that only serves. It still looks after the spool, which lies on its
 * own disk, forgets keys that are destroyed, and records which keys it has seen.
 */
export function createJobs(
  deps: JobDeps,
  { schedules, concurrency }: { schedules: boolean; concurrency: number },
): Job[] {
  const replaySpool = every(60_000, 'replay-spool', () => deps.refresher.replay());
  const own = [
    replaySpool,
    every(2_000, 'forget-keys', createKeyForgetter(deps)),
    every(60_000, 'watch-clock', () => watchClock(deps)),
    every(5_000, 'record-key-use', () => deps.keyUse.record()),
  ];
  if (!schedules) return own;
  return [
    ...own,
    { name: 'refresh-due', intervalMs: 1_000, run: () => deps.refresher.refreshDue(concurrency) },
    { name: 'probe-due', intervalMs: 1_000, run: () => probeDue(deps) },
    { name: 'reconcile-meetings', intervalMs: 1_000, run: () => reconcileMeetings(deps) },
    every(600_000, 'purge-meetings', () => purgeMeetings(deps)),
    every(30_000, 'watch-lag', () => watchLag(deps)),
    { name: 'end-requested', intervalMs: 1_000, run: () => endRequested(deps) },
    every(1_000, 'revoke-pending', () => revokePending(deps)),
    every(5_000, 'delete-tenants', () => finishDeletions(deps)),
    { name: 'tend-keys', intervalMs: 5_000, run: () => tendKeys(deps) },
    { name: 'rewrap-keys', intervalMs: 30_000, run: () => rewrapKeys(deps) },
    every(60_000, 'purge-rate-usage', () => purgeRateUsage(deps)),
    every(600_000, 'purge-expired', () => purgeExpired(deps)),
  ];
}
