import { randomUUID } from 'node:crypto';
import sql, { join, type Sql as SqlStatement } from 'sql-template-tag';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { Sealed } from '../vault/vault.js';
import type { Sql } from '../database/database.js';
import type { AppClient } from './app-secret.js';
import type { Deps, DomainSettings } from './deps.js';

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
  /** The provider's limit for an unused refresh token has passed, as far as it is known. */
  idle: boolean;
  /** The grant has ended; one refresh finds out whether what ended it is over. */
  onTrial: boolean;
  /** The database's time when the lease was taken, and this process's monotonic time when it heard of it. */
  takenAt: Date;
  heardAtMs: number;
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

interface LeaseRow extends Omit<Lease, 'app' | 'heardAtMs'>, Omit<AppClient, 'id'> {
  appId: string;
}

/** Seconds that a lease has been held, by the monotonic clock: a process that was suspended knows how long. */
export const heldSeconds = (lease: Pick<Lease, 'heardAtMs'>): number => (performance.now() - lease.heardAtMs) / 1_000;

/** The database's time now, as far as this process can tell without asking. */
export const databaseNow = (lease: Pick<Lease, 'takenAt' | 'heardAtMs'>): Date =>
  new Date(lease.takenAt.getTime() + heldSeconds(lease) * 1_000);

/** Tokens of a grant that ended are not refreshed, but for the one that is on trial. */
const IS_WANTED = sql`(g.health_status IN ('HEALTHY', 'DEGRADED') OR c.on_trial)`;

/** After a restore an app's refreshes wait for the one that goes first. */
const IS_FREE = sql`NOT EXISTS (
  SELECT 1 FROM refresh_canary k WHERE k.app_id = a.id AND k.grant_id IS DISTINCT FROM c.grant_id)`;

/**
 * Takes leases in one statement, committed before the provider is called.
 *
 * @param candidates a query of `grant_id`s. Of several processes that ask at once, one gets each credential: the row
 * must be idle, or in doubt for longer than the wait that settles doubts by themselves.
 */
async function takeLeases(tx: Sql, { leaseSeconds, doubtSeconds }: DomainSettings, candidates: SqlStatement) {
  const rows = await tx.query<LeaseRow>(sql`
    WITH candidate AS (${candidates})
    UPDATE credential c SET fence = c.fence + 1,
      lease_until = clock_timestamp() + make_interval(secs => ${leaseSeconds}), retry_at = NULL,
      refresh_state = CASE WHEN c.refresh_state = 'IDLE' THEN 'REFRESHING' ELSE 'IN_DOUBT' END::"RefreshState"
    FROM candidate, provider_grant g, provider_app a
    WHERE c.grant_id = candidate.grant_id AND g.id = c.grant_id AND a.id = g.app_id AND ${IS_WANTED}
      AND ${IS_FREE}
      AND (c.refresh_state = 'IDLE' OR c.lease_until + make_interval(secs => ${doubtSeconds}) < now())
    RETURNING c.grant_id AS "grantId", g.tenant_id AS "tenantId", c.fence, c.version,
      c.sealed_refresh_token AS "sealedRefreshToken",
      c.refresh_state = 'IN_DOUBT' AND c.sealed_refresh_token IS NOT NULL AS "inDoubt", c.failures,
      coalesce(c.refresh_expires_at < now(), false) AS idle, c.on_trial AS "onTrial",
      clock_timestamp() AS "takenAt", g.provider_account_id AS "providerAccountId",
      g.granted_scopes AS "grantedScopes", a.kind AS "appKind",
      a.incident_reason IS NOT NULL AS "appIncident", a.id AS "appId", a.environment,
      a.client_id AS "clientId", a.secret_version AS "secretVersion", a.sealed_client_secret AS "sealedClientSecret",
      CASE WHEN a.former_client_secret_retires_at > now() THEN a.sealed_former_client_secret END
        AS "sealedFormerClientSecret"`);
  const heardAtMs = performance.now();
  return rows.map(
    ({ appId, environment, clientId, secretVersion, sealedClientSecret, sealedFormerClientSecret, ...row }): Lease => ({
      ...row,
      heardAtMs,
      app: { id: appId, environment, clientId, secretVersion, sealedClientSecret, sealedFormerClientSecret },
    }),
  );
}

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
    : sql`(c.retry_at IS NULL OR c.retry_at <= now() OR (c.failure_reason = 'APP_REJECTED'
        AND (a.incident_reason IS NULL OR a.incident_retry_at <= now())))`;
  const [lease] = await takeLeases(
    deps.db,
    deps.settings,
    sql`
    SELECT c.grant_id FROM credential c
    JOIN provider_grant g ON g.id = c.grant_id JOIN provider_app a ON a.id = g.app_id
    WHERE c.grant_id = ${seen.grantId}::uuid AND c.version = ${seen.version} AND ${patience}
    FOR UPDATE OF c SKIP LOCKED`,
  );
  return lease ?? null;
}

/** What a process has room for. */
export interface Room {
  /** Leases at most. */
  limit: number;
  /** Credentials that it is at itself: one whose lease ran out while its answer waits must not be asked for again. */
  busy: readonly string[];
  /** Apps whose provider does not answer at the moment. */
  pausedApps: readonly string[];
  /** Refreshes of each tenant that it already runs. */
  running: ReadonlyMap<string, number>;
  /** Refreshes of one tenant that it may run. */
  perTenant: number;
}

/**
 * Leases of the credentials that are due, the longest overdue first, as far as the pace of their apps allows; what
 * others have locked is left to them.
 *
 * Apps are looked up one by one, so that the backlog of one, or its incident, keeps no other waiting. Of one app's due
 * credentials the oldest are looked at, and some of other tenants where there are more; no tenant gets more than its
 * share, and tenants that have theirs already are passed over.
 *
 * Takes the lock of each app's pace, which makes processes that ask at once take turns for a few milliseconds.
 */
export function takeDueLeases(deps: Pick<Deps, 'db' | 'settings'>, room: Room): Promise<Lease[]> {
  const { settings } = deps;
  return deps.db.transaction(async (tx) => {
    const quotas = await takeTurns(tx, settings, room);
    if (quotas.length === 0) return [];
    const due = dueCandidates(settings, room, quotas);
    const leases = await takeLeases(tx, settings, due);
    await keepPace(tx, settings, leases);
    return leases;
  });
}

/** Seconds that a busy app may be behind its pace and still catch up, and that one which was idle for longer has. */
const CATCH_UP_SECONDS = 0.1;
const IDLE_AFTER_SECONDS = 0.5;
const IDLE_CREDIT_SECONDS = 0.02;

/** From when on the pace of `p` counts; in any case so that one refresh may start. */
function pacedFrom({ refreshesPerSecond }: DomainSettings): SqlStatement {
  const ago = (seconds: number) => sql`now() - make_interval(secs => ${Math.max(seconds, 1 / refreshesPerSecond)})`;
  return sql`CASE WHEN p.paced_until < now() - make_interval(secs => ${IDLE_AFTER_SECONDS})
    THEN ${ago(IDLE_CREDIT_SECONDS)} ELSE greatest(p.paced_until, ${ago(CATCH_UP_SECONDS)}) END`;
}

interface Quota {
  appId: string;
  quota: number;
}

/**
 * How many refreshes each app with something due may start now. The first due time is read from the index; asked whether
 * one exists, the planner may read the whole table.
 */
async function takeTurns(tx: Sql, settings: DomainSettings, room: Room): Promise<Quota[]> {
  const quotas = await tx.query<Quota>(sql`
    SELECT p.app_id AS "appId", CASE WHEN a.incident_reason IS NOT NULL THEN 1
      ELSE least(${room.limit}, floor(1e-6 + ${settings.refreshesPerSecond}::float8 * extract(epoch FROM
        now() - (${pacedFrom(settings)}))))::int END AS quota
    FROM refresh_pace p JOIN provider_app a ON a.id = p.app_id
    WHERE p.paced_until < now() AND NOT EXISTS (SELECT 1 FROM refresh_canary k WHERE k.app_id = p.app_id)
      AND p.app_id <> ALL(${room.pausedApps}::uuid[])
      AND (a.incident_reason IS NULL OR a.incident_retry_at <= now())
      AND (a.incident_reason IS NOT NULL OR now() >= (
        SELECT next_refresh_at FROM credential WHERE app_id = p.app_id AND next_refresh_at IS NOT NULL
        ORDER BY next_refresh_at LIMIT 1))
    ORDER BY p.app_id FOR UPDATE OF p`);
  return quotas.filter(({ quota }) => quota > 0);
}

/** The oldest candidates of an app that are looked at: for each lease so many, and at most so many in all. */
const SEEN_PER_LEASE = 4;
const MOST_SEEN = 1_000;
/**
 * Where more are due than that, a few of so many tenants are looked at besides, half of the tenants from anywhere on: one
 * with thousands due does not hide the others.
 */
const TENANTS_PASSED = 32;
const SEEN_PER_TENANT = 4;
const FIRST_ID = '00000000-0000-0000-0000-000000000000';

function dueCandidates(settings: DomainSettings, room: Room, quotas: readonly Quota[]): SqlStatement {
  const running = [...room.running];
  const full = running.filter(([, count]) => count >= room.perTenant).map(([tenantId]) => tenantId);
  const free = [
    sql`c.app_id = app.id`,
    sql`c.grant_id <> ALL(${room.busy}::uuid[])`,
    sql`c.tenant_id <> ALL(${full}::uuid[])`,
    sql`(c.refresh_state = 'IDLE' OR c.lease_until + make_interval(secs => ${settings.doubtSeconds}) < now())`,
  ];
  const window = Math.min(MOST_SEEN, room.limit * SEEN_PER_LEASE);
  const columns = sql`c.grant_id, c.app_id, c.tenant_id, c.next_refresh_at`;
  // While an app has an incident one of its credentials, due or not, finds out whether that is over.
  const due = sql`${join(free, ' AND ')} AND c.next_refresh_at <= (
    SELECT CASE WHEN incident_reason IS NULL THEN now() ELSE 'infinity' END FROM provider_app WHERE id = app.id)`;
  // One of each app, then another of each, until the room is full: an app whose due credentials are all held elsewhere
  // takes nothing from the others.
  return sql`
    SELECT chosen.grant_id FROM credential chosen JOIN (
      SELECT grant_id, quota, row_number() OVER (PARTITION BY app_id ORDER BY tenant_rank, next_refresh_at) AS app_rank
      FROM (
        SELECT due.*, app.quota, ${room.perTenant} - coalesce(busy.count, 0) AS share,
          row_number() OVER (PARTITION BY due.app_id, due.tenant_id ORDER BY due.next_refresh_at) AS tenant_rank
        FROM unnest(${quotas.map(({ appId }) => appId)}::uuid[], ${quotas.map(({ quota }) => quota)}::int[])
          AS app(id, quota)
        CROSS JOIN LATERAL (
          WITH RECURSIVE oldest AS MATERIALIZED (
            SELECT ${columns} FROM credential c WHERE ${due} ORDER BY c.next_refresh_at LIMIT ${window}
          ), passed AS (
            SELECT (SELECT tenant_id FROM credential WHERE app_id = app.id AND tenant_id >= place.id
              ORDER BY tenant_id LIMIT 1) AS tenant_id
            FROM unnest(${[randomUUID(), FIRST_ID]}::uuid[]) AS place(id)
            WHERE (SELECT count(*) FROM oldest) = ${window}
            UNION
            SELECT (SELECT c.tenant_id FROM credential c WHERE c.app_id = app.id AND c.tenant_id > passed.tenant_id
              ORDER BY c.tenant_id LIMIT 1)
            FROM passed WHERE passed.tenant_id IS NOT NULL
          )
          SELECT * FROM oldest
          UNION
          SELECT one.* FROM (SELECT tenant_id FROM passed LIMIT ${TENANTS_PASSED}) chance
          CROSS JOIN LATERAL (
            SELECT ${columns} FROM credential c WHERE c.tenant_id = chance.tenant_id AND ${due}
            ORDER BY c.next_refresh_at LIMIT ${SEEN_PER_TENANT}
          ) one
        ) due
        LEFT JOIN unnest(${running.map(([tenantId]) => tenantId)}::uuid[], ${running.map(([, count]) => count)}::int[])
          AS busy(tenant_id, count) ON busy.tenant_id = due.tenant_id
      ) seen
      WHERE tenant_rank <= share
    ) fair USING (grant_id)
    WHERE fair.app_rank <= fair.quota
    ORDER BY fair.app_rank LIMIT ${room.limit} FOR UPDATE OF chosen SKIP LOCKED`;
}

/** Counts what was started against the pace of its app. */
async function keepPace(tx: Sql, settings: DomainSettings, leases: readonly Lease[]): Promise<void> {
  const started = new Map<string, number>();
  for (const { app } of leases) started.set(app.id, (started.get(app.id) ?? 0) + 1);
  await tx.query(sql`
    UPDATE refresh_pace p
    SET paced_until = (${pacedFrom(settings)}) + make_interval(secs => app.started / ${settings.refreshesPerSecond}::float8)
    FROM unnest(${[...started.keys()]}::uuid[], ${[...started.values()]}::int[]) AS app(id, started)
    WHERE p.app_id = app.id`);
}

/** The provider asks to slow down: no refresh of the app is scheduled for so long. Readers still ask for theirs. */
export async function slowDown(deps: Pick<Deps, 'db'>, appId: string, seconds: number): Promise<void> {
  await deps.db.query(sql`
    UPDATE refresh_pace SET paced_until = greatest(paced_until, now() + make_interval(secs => ${seconds}))
    WHERE app_id = ${appId}::uuid`);
}
