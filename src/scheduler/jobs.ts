import { actingAs, bySystem } from '../domain/audit.js';
import { pruneAudit } from '../domain/audit-retention.js';
import type { CredentialDeps } from '../domain/credential.js';
import type { Deliverer } from '../domain/deliverer.js';
import { purgeDeliveries } from '../domain/delivery-replay.js';
import { watchClock } from '../domain/clock-offset.js';
import { purgeMeetings, reconcileMeetings } from '../domain/meeting-reconciliation.js';
import { probeDue } from '../domain/probe.js';
import { watchLag } from '../domain/refresh-lag.js';
import { purgeRateUsage } from '../domain/rate-limit.js';
import { purgeExpired } from '../domain/retention.js';
import { revokePending } from '../domain/revocation.js';
import type { KeyUse } from '../domain/server-key.js';
import { endRequested } from '../domain/revocation-request.js';
import type { Deployment } from '../domain/deployment.js';
import { tryCanaries } from '../domain/refresh-canary.js';
import { createKeyForgetter, finishDeletions } from '../domain/tenant-deletion.js';
import { rewrapKeys, tendKeys } from '../domain/tenant-key.js';
import { forgetRetiredSecrets } from '../domain/webhook-endpoint.js';
import type { Job } from './scheduler.js';

type JobDeps = CredentialDeps & { keyUse: KeyUse; deployment: Deployment; deliverer: Deliverer };

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
  {
    schedules,
    concurrency,
    auditRetentionDays,
    deliveryRetentionDays,
    deliveryPollMs,
  }: {
    schedules: boolean;
    concurrency: number;
    auditRetentionDays: number;
    deliveryRetentionDays: number;
    deliveryPollMs: number;
  },
): Job[] {
  const as = (job: string) => ({ ...deps, db: actingAs(deps.db, { principal: bySystem(job) }) });
  const replaySpool = every(60_000, 'replay-spool', () => deps.refresher.replay());
  const own = [
    replaySpool,
    every(2_000, 'forget-keys', createKeyForgetter(deps)),
    every(2_000, 'watch-deployment', () => deps.deployment.check()),
    every(60_000, 'watch-clock', () => watchClock(deps)),
    every(5_000, 'record-key-use', () => deps.keyUse.record()),
  ];
  if (!schedules) return own;
  const scheduled: Job[] = [
    { name: 'refresh-due', intervalMs: 1_000, run: () => deps.refresher.refreshDue(concurrency) },
    { name: 'probe-due', intervalMs: 1_000, run: () => probeDue(as('probe-due')) },
    { name: 'reconcile-meetings', intervalMs: 1_000, run: () => reconcileMeetings(deps) },
    every(600_000, 'purge-meetings', () => purgeMeetings(deps)),
    every(30_000, 'watch-lag', () => watchLag(deps)),
    { name: 'end-requested', intervalMs: 1_000, run: () => endRequested(as('end-requested')) },
    every(600_000, 'prune-audit', () => pruneAudit(as('prune-audit'), auditRetentionDays)),
    every(1_000, 'revoke-pending', () => revokePending(deps)),
    every(5_000, 'delete-tenants', () => finishDeletions(as('delete-tenants'))),
    { name: 'tend-keys', intervalMs: 5_000, run: () => tendKeys(as('tend-keys')) },
    { name: 'rewrap-keys', intervalMs: 30_000, run: () => rewrapKeys(deps) },
    every(60_000, 'purge-rate-usage', () => purgeRateUsage(deps)),
    every(600_000, 'purge-expired', () => purgeExpired(deps)),
    every(1_000, 'refresh-canaries', () => tryCanaries(deps)),
    { name: 'deliver-webhooks', intervalMs: deliveryPollMs, run: (signal) => deps.deliverer.deliverDue(signal) },
    every(600_000, 'purge-deliveries', async () => {
      await purgeDeliveries(deps, deliveryRetentionDays);
      await forgetRetiredSecrets(deps);
    }),
  ];
  // A copy of a database is left as it is until somebody says whose it is.
  const held = (job: Job): Job => ({
    ...job,
    run: async (signal) => !deps.deployment.isQuarantined() && job.run(signal),
  });
  return [...own, ...scheduled.map(held)];
}
