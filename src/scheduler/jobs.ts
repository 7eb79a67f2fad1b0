import type { Deps } from '../domain/deps.js';
import { probeDue } from '../domain/probe.js';
import type { Refresher } from '../domain/refresh.js';
import { watchLag } from '../domain/refresh-lag.js';
import { purgeExpired } from '../domain/retention.js';
import { revokePending } from '../domain/revocation.js';
import type { KeyUse } from '../domain/server-key.js';
import type { Job } from './scheduler.js';

type JobDeps = Deps & { refresher: Refresher; keyUse: KeyUse };

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
 * own disk, and records which keys it has seen.
 */
export function createJobs(
  deps: JobDeps,
  { schedules, concurrency }: { schedules: boolean; concurrency: number },
): Job[] {
  const replaySpool = every(60_000, 'replay-spool', () => deps.refresher.replay());
  const own = [replaySpool, every(5_000, 'record-key-use', () => deps.keyUse.record())];
  if (!schedules) return own;
  return [
    ...own,
    { name: 'refresh-due', intervalMs: 1_000, run: () => deps.refresher.refreshDue(concurrency) },
    { name: 'probe-due', intervalMs: 1_000, run: () => probeDue(deps) },
    every(30_000, 'watch-lag', () => watchLag(deps)),
    every(1_000, 'revoke-pending', () => revokePending(deps)),
    every(600_000, 'purge-expired', () => purgeExpired(deps)),
  ];
}
