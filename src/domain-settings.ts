import type { Config } from './config.js';
import type { Deps } from './domain/deps.js';

const SESSION_SECONDS = 600;
const CONNECT_CODE_SECONDS = 120;
const FAILURES_BEFORE_DEGRADED = 3;

/** What the settings say of connections and their upkeep. */
export const readDomainSettings = (config: Config, publicUrl: string): Deps['settings'] => ({
  publicUrl,
  sessionSeconds: SESSION_SECONDS,
  connectCodeSeconds: CONNECT_CODE_SECONDS,
  maxOpenSessions: config.maxOpenSessions,
  webhookToleranceSeconds: config.webhookToleranceSeconds,
  keyRetirementSeconds: config.keyRetirementSeconds,
  maxTripsPerFrontendSession: config.maxTripsPerFrontendSession,
  refreshMarginSeconds: config.refreshMarginSeconds,
  leaseSeconds: config.leaseSeconds,
  doubtSeconds: config.doubtSeconds,
  providerDeadlineSeconds: config.providerDeadlineSeconds,
  refreshesPerTenant: config.refreshesPerTenant,
  refreshesPerSecond: config.refreshesPerSecond,
  probeIntervalSeconds: config.probeIntervalSeconds,
  meetingListIntervalSeconds: config.meetingListIntervalSeconds,
  eventRetentionDays: config.eventRetentionDays,
  failuresBeforeDegraded: FAILURES_BEFORE_DEGRADED,
});
