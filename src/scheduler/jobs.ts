import { purgeExpired } from '../domain/retention.js';
import type { Deps } from '../domain/deps.js';
import type { Refresher } from '../domain/refresh.js';
import { revokePending } from '../domain/revocation.js';
import type { Job } from './scheduler.js';

/** What a worker does by itself. Each job may run in any number of processes at once. */
export function createJobs(deps: Deps, refresher: Refresher, { concurrency }: { concurrency: number }): Job[] {
  return [
    {
      name: 'refresh-due',
      intervalMs: 1_000,
      run: () => refresher.refreshDue(concurrency),
    },
    {
      name: 'revoke-pending',
      intervalMs: 1_000,
      run: async () => {
        await revokePending(deps);
        return false;
      },
    },
    {
      name: 'purge-expired',
      intervalMs: 600_000,
      run: async () => {
        await purgeExpired(deps);
        return false;
      },
    },
  ];
}
