import type { Clock } from '../clock.js';
import type { Database } from '../database/database.js';
import type { Feed } from '../feed/feed.js';
import type { Log } from '../log.js';
import type { Spool } from '../spool/spool.js';
import type { Vault } from '../vault/vault.js';
import type { Zoom } from '../zoom/zoom.js';

/** Limits and durations that an operator may set. */
export interface DomainSettings {
  /** Origin that browsers and Zoom reach, without a trailing slash. */
  publicUrl: string;
  /** Life of an authorization session. */
  sessionSeconds: number;
  /** Life of a connect code. */
  connectCodeSeconds: number;
  /** Open authorization sessions that one tenant may have. */
  maxOpenSessions: number;
  /** Open authorization sessions that one frontend session may have. */
  maxTripsPerFrontendSession: number;
  /** A token is refreshed this long before it expires, at most half of its life. */
  refreshMarginSeconds: number;
  /** How long one process may refresh a credential before another may look into it. Above the provider deadline. */
  leaseSeconds: number;
  /** How long after a lease ran out the outcome is still awaited before the refresh is tried once more. */
  doubtSeconds: number;
  /** Longest a request to the provider takes. Below the lease. */
  providerDeadlineSeconds: number;
  /** Refreshes of one tenant that one process runs at once. */
  refreshesPerTenant: number;
  /** Scheduled refreshes of one provider app a second, all processes together. */
  refreshesPerSecond: number;
  /** How often the provider is asked whether a grant still holds; null: never by itself. */
  probeIntervalSeconds: number | null;
  /** How far the time that a webhook was signed at may be from the database's, in either direction. */
  webhookToleranceSeconds: number;
  /** How often the meetings of a connected host are listed at the provider; null: never. */
  meetingListIntervalSeconds: number | null;
  /** How long nothing may have been sealed with a superseded version of a key before it is destroyed. */
  keyRetirementSeconds: number;
  /** How long health events are kept. */
  eventRetentionDays: number;
  /** Failed refreshes in a row that turn a healthy grant to DEGRADED. */
  failuresBeforeDegraded: number;
}

/** What every domain function is given first. */
export interface Deps {
  db: Database;
  vault: Vault;
  zoom: Zoom;
  feed: Feed;
  spool: Spool;
  clock: Clock;
  log: Log;
  settings: DomainSettings;
}
