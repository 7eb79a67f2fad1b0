import sql from 'sql-template-tag';
import type { HealthReason, HealthStatus } from '../generated/prisma/enums.js';
import type { Deps } from './deps.js';
import { readLag } from './refresh-lag.js';

/** How the whole deployment stands, as the database tells it: the same for every process that asks. */
export interface Figures {
  /** Of apps without an incident: what waits for one is told by `incidents`. */
  refreshLagSeconds: number;
  appsBehind: number;
  /** Apps whose own credentials the provider refuses. */
  incidents: number;
  /** Tokens that the provider has not confirmed the end of, and the age of the oldest. */
  revocationsPending: number;
  oldestRevocationSeconds: number;
  /** How long the longest overdue delivery has been due, of webhook endpoints that take what they are told. */
  deliveryOverdueSeconds: number;
  /** Enabled webhook endpoints whose last attempt failed. */
  endpointsFailing: number;
  /** Webhook endpoints that nobody asked to be disabled. */
  endpointsDisabled: number;
}

/** A few looks at indexes and small tables; the grants are not read. */
export async function readFigures(deps: Pick<Deps, 'db'>): Promise<Figures> {
  const lags = (await readLag(deps)).filter(({ hasIncident }) => !hasIncident);
  const [row] = await deps.db.query<Omit<Figures, 'refreshLagSeconds' | 'appsBehind'>>(sql`
    SELECT (SELECT count(*) FROM provider_app WHERE incident_reason IS NOT NULL)::int AS incidents,
      count(*)::int AS "revocationsPending",
      coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS "oldestRevocationSeconds",
      (SELECT count(*) FROM webhook_endpoint WHERE disabled_reason IN ('GONE', 'FAILING'))::int AS "endpointsDisabled",
      (SELECT count(*) FROM webhook_endpoint WHERE disabled_at IS NULL AND failing_since IS NOT NULL)::int
        AS "endpointsFailing",
      (SELECT coalesce(extract(epoch FROM now() - min(first.next_attempt_at)), 0)::float8
        FROM webhook_endpoint e CROSS JOIN LATERAL (
          SELECT d.next_attempt_at FROM webhook_delivery d
          WHERE d.endpoint_id = e.id AND d.next_attempt_at <= now() ORDER BY d.next_attempt_at LIMIT 1) first
        WHERE e.disabled_at IS NULL AND e.failing_since IS NULL AND (e.paused_until IS NULL OR e.paused_until <= now()))
        AS "deliveryOverdueSeconds"
    FROM provider_revocation`);
  if (row === undefined) throw new Error('An aggregate has no row.');
  const refreshLagSeconds = lags.reduce((most, { seconds }) => Math.max(most, seconds), 0);
  return { ...row, refreshLagSeconds, appsBehind: lags.length };
}

export interface GrantCount {
  status: HealthStatus;
  reason: HealthReason;
  count: number;
}

/** Reads every grant: ask seldom. */
export const countGrants = (deps: Pick<Deps, 'db'>): Promise<GrantCount[]> =>
  deps.db.query<GrantCount>(sql`
    SELECT health_status AS status, health_reason AS reason, count(*)::int AS count
    FROM provider_grant GROUP BY health_status, health_reason`);
