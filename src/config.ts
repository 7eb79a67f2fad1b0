import type { LogLevel } from './log.js';
import { rootKeyProblems, rootKeySources, type RootKeySource } from './root-key-settings.js';
import { Secret } from './secret.js';
import { Settings } from './settings.js';

/** Everything the environment decides. Durations carry their unit in the name. */
export interface Config {
  production: boolean;
  host: string;
  port: number;
  /** Null: follows from the port that the server gets. Without a trailing slash otherwise. */
  publicUrl: string | null;
  /** Null: the embedded database under `dataDir`. */
  databaseUrl: string | null;
  /** The same database under the role that owns its tables; null: `databaseUrl` names that role. */
  migrationDatabaseUrl: string | null;
  /** Off behind a pooler that lends connections for one transaction. */
  preparedStatements: boolean;
  databasePoolSize: number;
  /** Longest a statement may take. */
  databaseTimeoutMs: number;
  /** Whether PostgreSQL itself keeps callers that are restricted to a tenant to its rows. */
  rowLevelSecurity: boolean;
  dataDir: string;
  /** Base64 keys, newest first; null: from `rootKeyFile`, or made once in development. */
  rootKey: Secret | null;
  rootKeyFile: string | null;
  /** Where root keys are, newest first; at least one. */
  rootKeySources: readonly RootKeySource[];
  /** Longest that an operation of a provider of root keys may take. */
  rootKeyTimeoutMs: number;
  /** Null: made once in development. */
  adminKey: Secret | null;
  role: 'all' | 'api' | 'worker';
  /** Name of the deployment that the database belongs to; null: told by the public URL and the database alone. */
  deploymentId: string | null;
  /** Where figures for Prometheus are served; null: nowhere. */
  metrics: { host: string; port: number } | null;
  /** The collector's endpoint that traces are sent to; null: nothing is traced. */
  traces: { url: string } | null;
  /** How long `/readyz` says no before the listener closes, so that proxies have noticed. */
  drainSeconds: number;
  logLevel: LogLevel;
  /** Port of the Zoom sandbox that runs beside the server; null: no sandbox. 0 takes any free one. */
  sandboxPort: number | null;
  /** Null with the sandbox: its address. */
  zoom: Record<'COMMERCIAL' | 'GOVERNMENT', { oauthUrl: string; apiUrl: string }> | null;
  refreshMarginSeconds: number;
  refreshConcurrency: number;
  /** Refreshes of one tenant that one process runs at once. */
  refreshesPerTenant: number;
  /** Scheduled refreshes of one provider app a second, all processes together. */
  refreshesPerSecond: number;
  /** Null: connections are not probed. */
  probeIntervalSeconds: number | null;
  /** Null: meetings are not listed. */
  meetingListIntervalSeconds: number | null;
  /** Whether tokens are written to the data folder before the database has them. */
  spool: boolean;
  leaseSeconds: number;
  providerDeadlineSeconds: number;
  doubtSeconds: number;
  eventPollMs: number;
  eventRetentionDays: number;
  /** Where wake-ups go between processes; null: each process finds out by polling. */
  redisUrl: Secret | null;
  maxOpenSessions: number;
  /** How far the time that a webhook was signed at may be from ours. */
  webhookToleranceSeconds: number;
  /** Ranges of addresses (CIDR) that are not public and may be given webhooks all the same. */
  webhookAllowPrivate: readonly string[];
  deliveryRetentionDays: number;
  keyRetirementSeconds: number;
  /** Consent trips of one frontend session that may be under way at once. */
  maxTripsPerFrontendSession: number;
  /** Wrong keys from one address that are looked at within a minute, by each process. */
  maxFailedAttempts: number;
  /** Whether reads of credentials are recorded before they are answered. */
  auditMode: 'strict' | 'buffered';
  /** Events about reads that may wait to be recorded. */
  auditBuffer: number;
  auditRetentionDays: number;
  /** What one GraphQL operation may cost, in values that it can be answered with. */
  maxCost: { SERVER_KEY: number; FRONTEND_SESSION: number };
  /** Longest a GraphQL operation takes; those that wait for the provider have its deadlines besides. */
  requestDeadlineSeconds: number;
  /** GraphQL streams that may be open at once in one process. */
  maxStreams: { all: number; perTenant: number; perFrontendSession: number };
  /** How long a client may leave what it is sent unread. */
  slowConsumerSeconds: number;
  /** The file of the only documents that frontend sessions may have executed; null: any. */
  persistedDocumentsFile: string | null;
  /** Requests a second, over ten seconds and all processes; null: any number. */
  rateLimits: RateLimits;
  /** Addresses and networks of proxies whose word on a request's origin is taken. */
  trustedProxies: readonly string[];
}

/** Ceilings for one server key, one frontend session, all callers that are restricted to one tenant, one address. */
export type RateLimits = Record<'serverKey' | 'frontendSession' | 'tenant' | 'address', number | null>;

/** The settings are not usable; one sentence for each problem. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`Latchkey cannot start:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** @see https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp */
function tracesOf(settings: Settings): Config['traces'] {
  if (settings.OTEL_SDK_DISABLED?.toLowerCase() === 'true' || settings.OTEL_TRACES_EXPORTER === 'none') return null;
  const { OTEL_EXPORTER_OTLP_ENDPOINT: base, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: own } = settings;
  if (own !== undefined) return { url: own };
  return base === undefined ? null : { url: `${base.replace(/\/+$/, '')}/v1/traces` };
}

type Given = Record<string, string | undefined>;

/** What no single setting shows: settings that contradict each other, or are missing. */
function problemsBetween(given: Given): string[] {
  const problems: string[] = [];
  problems.push(...rootKeyProblems(given));
  const lease = Settings.shape.LATCHKEY_LEASE_SECONDS.safeParse(given['LATCHKEY_LEASE_SECONDS']);
  const deadline = Settings.shape.LATCHKEY_PROVIDER_DEADLINE_SECONDS.safeParse(
    given['LATCHKEY_PROVIDER_DEADLINE_SECONDS'],
  );
  if (lease.success && deadline.success && deadline.data >= lease.data) {
    problems.push('LATCHKEY_PROVIDER_DEADLINE_SECONDS must be below LATCHKEY_LEASE_SECONDS.');
  }
  if (given['LATCHKEY_MIGRATION_DATABASE_URL'] !== undefined && given['DATABASE_URL'] === undefined) {
    problems.push('LATCHKEY_MIGRATION_DATABASE_URL needs DATABASE_URL beside it.');
  }
  if (given['NODE_ENV'] !== 'production') return problems;
  if (['ROOT_KEY', 'ROOT_KEY_FILE', 'ROOT_KEY_PROVIDER'].every((name) => given[`LATCHKEY_${name}`] === undefined)) {
    problems.push(
      'LATCHKEY_ROOT_KEY or LATCHKEY_ROOT_KEY_FILE is missing: base64 of 32 random bytes (openssl rand -base64 32).',
    );
  }
  if (given['LATCHKEY_ADMIN_KEY'] === undefined)
    problems.push('LATCHKEY_ADMIN_KEY is missing: 32 random characters or more.');
  if (given['DATABASE_URL'] === undefined)
    problems.push('DATABASE_URL is missing: the embedded database is for development.');
  return problems;
}

/**
 * Reads the environment. The only code that does.
 *
 * @param env another environment than the process's; an empty value counts as absent.
 * @throws {ConfigError} with every problem at once.
 */
export function readConfig(env: Record<string, string | undefined> = process.env): Config {
  const given: Given = Object.fromEntries(
    Object.entries(env).filter(([, value]) => value !== undefined && value !== ''),
  );
  const parsed = Settings.safeParse(given);
  const issues = parsed.error?.issues ?? [];
  const problems = [...issues.map((issue) => `${issue.path.join('.')} ${issue.message}.`), ...problemsBetween(given)];
  if (!parsed.success || problems.length > 0) throw new ConfigError(problems);
  const settings = parsed.data;
  const production = settings.NODE_ENV === 'production';
  const sandbox = settings.LATCHKEY_SANDBOX ?? !production;
  const pointsElsewhere = given['ZOOM_OAUTH_URL'] !== undefined || given['ZOOM_API_URL'] !== undefined;
  return Object.freeze({
    production,
    host: settings.HOST,
    port: settings.PORT,
    publicUrl: settings.LATCHKEY_PUBLIC_URL ?? null,
    databaseUrl: settings.DATABASE_URL ?? null,
    migrationDatabaseUrl: settings.LATCHKEY_MIGRATION_DATABASE_URL ?? null,
    preparedStatements: settings.LATCHKEY_PREPARED_STATEMENTS,
    databasePoolSize: settings.LATCHKEY_DATABASE_POOL,
    databaseTimeoutMs: settings.LATCHKEY_DATABASE_TIMEOUT_MS,
    rowLevelSecurity: settings.LATCHKEY_ROW_LEVEL_SECURITY,
    dataDir: settings.LATCHKEY_DATA_DIR,
    rootKey: settings.LATCHKEY_ROOT_KEY === undefined ? null : new Secret(settings.LATCHKEY_ROOT_KEY),
    rootKeyFile: settings.LATCHKEY_ROOT_KEY_FILE ?? null,
    rootKeySources: rootKeySources(settings),
    rootKeyTimeoutMs: settings.LATCHKEY_ROOT_KEY_TIMEOUT_MS,
    adminKey: settings.LATCHKEY_ADMIN_KEY === undefined ? null : new Secret(settings.LATCHKEY_ADMIN_KEY),
    role: settings.LATCHKEY_ROLE,
    deploymentId: settings.LATCHKEY_DEPLOYMENT_ID ?? null,
    metrics:
      settings.LATCHKEY_METRICS_PORT === undefined
        ? null
        : { host: settings.LATCHKEY_METRICS_HOST, port: settings.LATCHKEY_METRICS_PORT },
    traces: tracesOf(settings),
    drainSeconds: settings.LATCHKEY_DRAIN_SECONDS,
    logLevel: settings.LATCHKEY_LOG_LEVEL ?? (production ? 'info' : 'warn'),
    sandboxPort: sandbox ? settings.LATCHKEY_SANDBOX_PORT : null,
    zoom:
      sandbox && !pointsElsewhere
        ? null
        : {
            COMMERCIAL: { oauthUrl: settings.ZOOM_OAUTH_URL, apiUrl: settings.ZOOM_API_URL },
            GOVERNMENT: { oauthUrl: settings.ZOOM_GOV_OAUTH_URL, apiUrl: settings.ZOOM_GOV_API_URL },
          },
    refreshMarginSeconds: settings.LATCHKEY_REFRESH_MARGIN_SECONDS,
    refreshConcurrency: settings.LATCHKEY_REFRESH_CONCURRENCY,
    refreshesPerTenant: settings.LATCHKEY_REFRESHES_PER_TENANT,
    refreshesPerSecond: settings.LATCHKEY_REFRESHES_PER_SECOND,
    probeIntervalSeconds: settings.LATCHKEY_PROBE_INTERVAL_SECONDS || null,
    meetingListIntervalSeconds: settings.LATCHKEY_MEETING_LIST_INTERVAL_SECONDS || null,
    spool: settings.LATCHKEY_SPOOL,
    leaseSeconds: settings.LATCHKEY_LEASE_SECONDS,
    providerDeadlineSeconds: settings.LATCHKEY_PROVIDER_DEADLINE_SECONDS,
    doubtSeconds: settings.LATCHKEY_DOUBT_SECONDS,
    eventPollMs: settings.LATCHKEY_EVENT_POLL_MS,
    eventRetentionDays: settings.LATCHKEY_EVENT_RETENTION_DAYS,
    redisUrl: settings.REDIS_URL === undefined ? null : new Secret(settings.REDIS_URL),
    maxOpenSessions: settings.LATCHKEY_MAX_OPEN_SESSIONS,
    webhookToleranceSeconds: settings.LATCHKEY_WEBHOOK_TOLERANCE_SECONDS,
    webhookAllowPrivate: settings.LATCHKEY_WEBHOOK_ALLOW_PRIVATE,
    deliveryRetentionDays: settings.LATCHKEY_DELIVERY_RETENTION_DAYS,
    keyRetirementSeconds: settings.LATCHKEY_KEY_RETIREMENT_SECONDS,
    auditMode: settings.LATCHKEY_AUDIT_MODE,
    auditBuffer: settings.LATCHKEY_AUDIT_BUFFER,
    auditRetentionDays: settings.LATCHKEY_AUDIT_RETENTION_DAYS,
    maxTripsPerFrontendSession: settings.LATCHKEY_MAX_TRIPS_PER_FRONTEND_SESSION,
    maxFailedAttempts: settings.LATCHKEY_MAX_FAILED_ATTEMPTS,
    maxCost: {
      SERVER_KEY: settings.LATCHKEY_MAX_SERVER_KEY_COST,
      FRONTEND_SESSION: settings.LATCHKEY_MAX_FRONTEND_SESSION_COST,
    },
    requestDeadlineSeconds: settings.LATCHKEY_REQUEST_DEADLINE_SECONDS,
    maxStreams: {
      all: settings.LATCHKEY_MAX_STREAMS,
      perTenant: settings.LATCHKEY_MAX_STREAMS_PER_TENANT,
      perFrontendSession: settings.LATCHKEY_MAX_STREAMS_PER_FRONTEND_SESSION,
    },
    slowConsumerSeconds: settings.LATCHKEY_SLOW_CONSUMER_SECONDS,
    persistedDocumentsFile: settings.LATCHKEY_PERSISTED_DOCUMENTS ?? null,
    rateLimits: {
      serverKey: settings.LATCHKEY_RATE_LIMIT_SERVER_KEY || null,
      frontendSession: settings.LATCHKEY_RATE_LIMIT_FRONTEND_SESSION || null,
      tenant: settings.LATCHKEY_RATE_LIMIT_TENANT || null,
      address: settings.LATCHKEY_RATE_LIMIT_ADDRESS || null,
    },
    trustedProxies: settings.LATCHKEY_TRUSTED_PROXIES,
  });
}
