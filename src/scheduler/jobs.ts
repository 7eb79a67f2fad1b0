import type { CredentialDeps } from '../domain/credential.js';
import { watchClock } from '../domain/clock-offset.js';
import { purgeMeetings, reconcileMeetings } from '../domain/meeting-reconciliation.js';
import { probeDue } from '../domain/probe.js';
import { watchLag } from '../domain/refresh-lag.js';
import { purgeExpired } from '../domain/retention.js';
import { revokePending } from '../domain/revocation.js';
import { endRequested } from '../domain/revocation-request.js';
import type { Job } from './scheduler.js';

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
 * own disk.
 */
export function createJobs(
  deps: CredentialDeps,
  { schedules, concurrency }: { schedules: boolean; concurrency: number },
): Job[] {
  const replaySpool = every(60_000, 'replay-spool', () => deps.refresher.replay());
  const watchClocks = every(60_000, 'watch-clock', () => watchClock(deps));
  if (!schedules) return [replaySpool, watchClocks];
  return [
    replaySpool,
    watchClocks,
    { name: 'refresh-due', intervalMs: 1_000, run: () => deps.refresher.refreshDue(concurrency) },
    { name: 'probe-due', intervalMs: 1_000, run: () => probeDue(deps) },
    { name: 'reconcile-meetings', intervalMs: 1_000, run: () => reconcileMeetings(deps) },
    every(600_000, 'purge-meetings', () => purgeMeetings(deps)),
    every(30_000, 'watch-lag', () => watchLag(deps)),
    { name: 'end-requested', intervalMs: 1_000, run: () => endRequested(deps) },
    every(1_000, 'revoke-pending', () => revokePending(deps)),
    every(600_000, 'purge-expired', () => purgeExpired(deps)),
  ];
}
