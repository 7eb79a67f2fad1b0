import type { PoolFigures } from '../database/database.js';
import type { Figures, GrantCount } from '../domain/figures.js';
import type { RefreshLoad } from '../domain/refresh.js';
import type { NotReadyReason } from '../http/readiness.js';
import type { Meters } from './meters.js';

/** What is asked for at a scrape. */
export interface Sources {
  load(): RefreshLoad;
  cachedKeys(): number;
  /** Seconds. */
  rootKeyFailing(): number;
  postponed(): number;
  /** Events about reads that wait to be stored. */
  unrecordedReads(): number;
  pool(): PoolFigures | null;
  webSockets(): number;
  notReady(): Promise<readonly NotReadyReason[]>;
  clockOffset(): Promise<number>;
  figures(): Promise<Figures>;
  grants(): Promise<readonly GrantCount[]>;
}

/** Scrapes that come closer together than this get the same figures of the database. */
const FIGURES_MS = 5_000;
/** Counting the grants reads them all. */
const GRANTS_MS = 60_000;

/**
 * Brings what is not counted but looked up to date. What the database cannot tell is left out of the answer, instead of
 * being told as it was: an old figure is taken for a good one.
 */
export function createSampler(meters: Meters, sources: Sources): () => Promise<void> {
  let figuresUntilMs = 0;
  let grantsUntilMs = 0;

  function sampleProcess(): void {
    const { running, queued, pausedApps } = sources.load();
    meters.refreshesRunning.set(running);
    meters.leasesQueued.set(queued);
    meters.appsPaused.set(pausedApps);
    meters.vaultCachedKeys.set(sources.cachedKeys());
    meters.rootKeyFailing.set(sources.rootKeyFailing());
    meters.spoolPostponed.set(sources.postponed());
    meters.auditUnrecorded.set(sources.unrecordedReads());
    meters.webSockets.set(sources.webSockets());
    const pool = sources.pool();
    if (pool === null) return;
    meters.poolConnections.set({ state: 'idle' }, pool.idle);
    meters.poolConnections.set({ state: 'busy' }, pool.open - pool.idle);
    meters.poolWaiting.set(pool.waiting);
    meters.poolMax.set(pool.max);
    meters.sharesHeld.set(pool.shares.held);
    meters.sharesWaiting.set(pool.shares.waiting);
    // Counted where the connections are; here it is only told.
    meters.shareWaits.reset();
    meters.shareWaits.inc({ outcome: 'served' }, pool.shares.waited);
    meters.shareWaits.inc({ outcome: 'refused' }, pool.shares.refused);
  }

  async function sampleReadiness(): Promise<void> {
    const reasons = await sources.notReady();
    meters.ready.set(reasons.length === 0 ? 1 : 0);
    meters.notReady.reset();
    for (const reason of reasons) meters.notReady.set({ reason }, 1);
  }

  async function sampleDatabase(): Promise<void> {
    if (performance.now() < figuresUntilMs) return;
    const figures = await sources.figures();
    meters.refreshLag.set(figures.refreshLagSeconds);
    meters.appsBehind.set(figures.appsBehind);
    meters.incidents.set(figures.incidents);
    meters.revocationsPending.set(figures.revocationsPending);
    meters.revocationAge.set(figures.oldestRevocationSeconds);
    meters.deliveryOverdue.set(figures.deliveryOverdueSeconds);
    meters.endpointsFailing.set(figures.endpointsFailing);
    meters.endpointsDisabled.set(figures.endpointsDisabled);
    meters.clockOffset.set(await sources.clockOffset());
    figuresUntilMs = performance.now() + FIGURES_MS;
    if (performance.now() < grantsUntilMs) return;
    const counts = await sources.grants();
    meters.grants.reset();
    for (const { status, reason, count } of counts) {
      meters.grants.set({ status: status.toLowerCase(), reason: reason.toLowerCase() }, count);
    }
    grantsUntilMs = performance.now() + GRANTS_MS;
  }

  return async () => {
    sampleProcess();
    await sampleReadiness();
    try {
      await sampleDatabase();
      meters.databaseUp.set(1);
    } catch {
      // Told by the figure itself; why it is away is in the log of whoever needed it.
      meters.databaseUp.set(0);
      for (const meter of [meters.refreshLag, meters.appsBehind, meters.incidents, meters.clockOffset]) meter.remove();
      for (const meter of [meters.revocationsPending, meters.revocationAge]) meter.remove();
      for (const meter of [meters.deliveryOverdue, meters.endpointsFailing, meters.endpointsDisabled]) meter.remove();
      meters.grants.reset();
      figuresUntilMs = 0;
      grantsUntilMs = 0;
    }
  };
}
