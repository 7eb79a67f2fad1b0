import sql, { join, type Sql as SqlStatement } from 'sql-template-tag';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import type { AppClient } from './app-secret.js';
import type { Deps } from './deps.js';

/**
 * The right to refresh one credential, until the lease runs out. The fence it carries is what a commit is compared
 * with: whoever took the lease later, or ended the grant, has raised it.
 */
export interface Lease {
  grantId: string;
  tenantId: string;
  fence: number;
  version: number;
  sealedRefreshToken: Sealed | null;
  /** An earlier attempt may have reached the provider without its answer being read. */
  inDoubt: boolean;
  failures: number;
  providerAccountId: string;
  grantedScopes: string[];
  appKind: ProviderAppKind;
  /** The provider refused the app's own credentials lately. */
  appIncident: boolean;
  app: AppClient;
}

/** Whether a refresh spends the stored token; one that is minted anew each time cannot be lost. */
export const isRotating = (lease: Pick<Lease, 'sealedRefreshToken'>): boolean => lease.sealedRefreshToken !== null;

interface LeaseRow extends Omit<Lease, 'app'>, Omit<AppClient, 'id'> {
  appId: string;
}

/**
 * Takes leases in one statement, committed before the provider is called.
 *
 * @param candidates a query of `grant_id`s. Of several processes that ask at once, one gets each credential: the row
 * must be idle, or in doubt for longer than the wait that settles doubts by themselves.
 */
async function takeLeases(deps: Pick<Deps, 'db' | 'settings'>, candidates: SqlStatement): Promise<Lease[]> {
  const { leaseSeconds, doubtSeconds } = deps.settings;
  const rows = await deps.db.query<LeaseRow>(sql`
    WITH candidate AS (${candidates})
    UPDATE credential c SET fence = c.fence + 1, lease_until = now() + make_interval(secs => ${leaseSeconds}),
      retry_at = NULL, refresh_state = CASE WHEN c.refresh_state = 'IDLE' THEN 'REFRESHING' ELSE 'IN_DOUBT' END::"RefreshState"
    FROM candidate, provider_grant g, provider_app a
    WHERE c.grant_id = candidate.grant_id AND g.id = c.grant_id AND a.id = g.app_id
      AND g.health_status IN ('HEALTHY', 'DEGRADED')
      AND (c.refresh_state = 'IDLE' OR c.lease_until + make_interval(secs => ${doubtSeconds}) < now())
    RETURNING c.grant_id AS "grantId", g.tenant_id AS "tenantId", c.fence, c.version,
      c.sealed_refresh_token AS "sealedRefreshToken", c.refresh_state = 'IN_DOUBT' AND c.sealed_refresh_token IS NOT NULL AS "inDoubt", c.failures,
      g.provider_account_id AS "providerAccountId", g.granted_scopes AS "grantedScopes",
      a.kind AS "appKind",
      a.incident_reason IS NOT NULL AS "appIncident", a.id AS "appId", a.environment,
      a.client_id AS "clientId", a.secret_version AS "secretVersion", a.sealed_client_secret AS "sealedClientSecret",
      CASE WHEN a.former_client_secret_retires_at > now() THEN a.sealed_former_client_secret END
        AS "sealedFormerClientSecret"`);
  return rows.map(
    ({ appId, environment, clientId, secretVersion, sealedClientSecret, sealedFormerClientSecret, ...lease }) => ({
      ...lease,
      app: { id: appId, environment, clientId, secretVersion, sealedClientSecret, sealedFormerClientSecret },
    }),
  );
}

/** The app has no incident, or finding out whether it is over is allowed again. */
const INCIDENT_MAY_BE_OVER = sql`(a.incident_reason IS NULL OR a.incident_retry_at <= now())`;

/**
 * The lease of one credential, if it still is at the version that the caller found wanting.
 *
 * @returns null when another process has it, has renewed it since, or it must wait before it is tried again.
 */
export async function takeLease(
  deps: Pick<Deps, 'db' | 'settings'>,
  seen: { grantId: string; version: number },
  { force }: { force: boolean },
): Promise<Lease | null> {
  // What waits for an incident of the app waits as long as that, not until its own time.
  const patience = force
    ? sql`TRUE`
    : sql`(c.retry_at IS NULL OR c.retry_at <= now() OR (c.failure_reason = 'APP_REJECTED' AND ${INCIDENT_MAY_BE_OVER}))`;
  const [lease] = await takeLeases(
    deps,
    sql`
    SELECT c.grant_id FROM credential c
    JOIN provider_grant g ON g.id = c.grant_id JOIN provider_app a ON a.id = g.app_id
    WHERE c.grant_id = ${seen.grantId}::uuid AND c.version = ${seen.version} AND ${patience} FOR UPDATE OF c`,
  );
  return lease ?? null;
}

/** One credential of each app whose incident may be over: a new client secret is not tried only when something is due. */
const PROBES = sql`ARRAY(
  SELECT (
    SELECT w.grant_id FROM credential w JOIN provider_grant o ON o.id = w.grant_id
    WHERE o.app_id = a.id AND o.health_status IN ('HEALTHY', 'DEGRADED') AND w.failure_reason = 'APP_REJECTED' LIMIT 1
  ) FROM provider_app a WHERE a.incident_reason IS NOT NULL AND a.incident_retry_at <= now())`;

/**
 * Leases of the credentials that are due, the longest overdue first; what others have locked is left to them.
 *
 * @param busy credentials that this process is at itself: one whose lease ran out while its answer waits for the
 * database must not be asked for again.
 */
export function takeDueLeases(
  deps: Pick<Deps, 'db' | 'settings'>,
  limit: number,
  busy: readonly string[],
): Promise<Lease[]> {
  const due = [
    sql`c.grant_id <> ALL(${busy}::uuid[])`,
    sql`(c.next_refresh_at <= now() OR c.grant_id = ANY(${PROBES}))`,
    sql`(c.refresh_state = 'IDLE' OR c.lease_until + make_interval(secs => ${deps.settings.doubtSeconds}) < now())`,
    sql`g.health_status IN ('HEALTHY', 'DEGRADED')`,
    INCIDENT_MAY_BE_OVER,
  ];
  return takeLeases(
    deps,
    sql`
    SELECT c.grant_id FROM credential c
    JOIN provider_grant g ON g.id = c.grant_id JOIN provider_app a ON a.id = g.app_id
    WHERE ${join(due, ' AND ')}
    ORDER BY c.next_refresh_at LIMIT ${limit} FOR UPDATE OF c SKIP LOCKED`,
  );
}
