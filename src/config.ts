import { z } from 'zod';
import type { LogLevel } from './log.js';
import { rootKeyProblems, RootKeySettings, rootKeySources, type RootKeySource } from './root-key-settings.js';
import { Secret } from './secret.js';

/** Everything the environment decides. Durations carry their unit in the name. */
export interface Config {
  production: boolean;
  host: string;
  port: number;
  /** Null: follows from the port that the server gets. Without a trailing slash otherwise. */
  publicUrl: string | null;
  /** Null: the embedded database under `dataDir`. */
  databaseUrl: string | null;
  databasePoolSize: number;
  /** Longest a statement may take. */
  databaseTimeoutMs: number;
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
  /** Where figures for Prometheus are served; null: nowhere. */
  metrics: { host: string; port: number } | null;
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
  maxOpenSessions: number;
  /** How far the time that a webhook was signed at may be from ours. */
  webhookToleranceSeconds: number;
  keyRetirementSeconds: number;
  /** Consent trips of one frontend session that may be under way at once. */
  maxTripsPerFrontendSession: number;
  /** Wrong keys from one address that are looked at within a minute, by each process. */
  maxFailedAttempts: number;
}

/** The settings are not usable; one sentence for each problem. */
export class ConfigError extends Error {
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`Latchkey cannot start:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

const number = (min: number, max: number) =>
  z
    .string()
    .regex(/^\d{1,9}$/, `must be a whole number from ${min} to ${max}`)
    .transform(Number)
    .refine((value) => value >= min && value <= max, `must be a whole number from ${min} to ${max}`);

const whole = (min: number, max: number, standard: number) => number(min, max).default(standard);

const flag = z.enum(['0', '1'], 'must be 0 or 1').transform((value) => value === '1');

function isWebAddress(value: string): boolean {
  const url = URL.canParse(value) ? new URL(value) : null;
  return (
    url !== null && /^https?:$/.test(url.protocol) && url.username === '' && url.password === '' && url.hash === ''
  );
}

/** https, or http on the loopback interface, where nothing travels over a network. */
function isProtected(value: string): boolean {
  const url = new URL(value);
  return url.protocol === 'https:' || LOOPBACK.has(url.hostname);
}

const service = z
  .string()
  .refine(isWebAddress, 'must be a web address without credentials or fragment')
  .refine((value) => !isWebAddress(value) || isProtected(value), 'must be https (http for loopback only)')
  .transform((value) => value.replace(/\/+$/, ''));

const provider = (standard: string) => service.default(standard);

const publicUrl = z
  .string()
  .refine((value) => {
    if (!isWebAddress(value)) return false;
    const url = new URL(value);
    return url.pathname === '/' && url.search === '' && !value.includes('#') && !url.hostname.endsWith('.');
  }, 'must be an origin such as https://latchkey.example.com')
  .refine((value) => !isWebAddress(value) || isProtected(value), 'must be https (http for loopback only)')
  .transform((value) => new URL(value).origin);

const Settings = z.object({
  NODE_ENV: z.string().optional(),
  HOST: z.string().min(1).default('127.0.0.1'),
  PORT: whole(0, 65_535, 4_000),
  LATCHKEY_PUBLIC_URL: publicUrl.optional(),
  DATABASE_URL: z
    .string()
    .regex(/^postgres(ql)?:\/\//, 'must begin with postgres://')
    .optional(),
  LATCHKEY_DATABASE_POOL: whole(2, 500, 20),
  LATCHKEY_DATABASE_TIMEOUT_MS: whole(100, 600_000, 5_000),
  LATCHKEY_DATA_DIR: z.string().min(1).default('./.latchkey'),
  ...RootKeySettings,
  LATCHKEY_ROOT_KEY_TIMEOUT_MS: whole(100, 60_000, 3_000),
  LATCHKEY_AWS_KMS_ENDPOINT: service.optional(),
  LATCHKEY_ADMIN_KEY: z
    .string()
    .min(32, 'must have 32 characters or more')
    .regex(/^\S+$/, 'must not contain white space')
    .optional(),
  LATCHKEY_ROLE: z.enum(['all', 'api', 'worker'], 'must be all, api or worker').default('all'),
  LATCHKEY_METRICS_HOST: z.string().min(1).default('127.0.0.1'),
  LATCHKEY_METRICS_PORT: number(0, 65_535).optional(),
  LATCHKEY_DRAIN_SECONDS: whole(0, 60, 0),
  LATCHKEY_LOG_LEVEL: z
    .enum(['debug', 'info', 'warn', 'error', 'silent'], 'must be debug, info, warn, error or silent')
    .optional(),
  LATCHKEY_SANDBOX: flag.optional(),
  LATCHKEY_SANDBOX_PORT: whole(0, 65_535, 4_001),
  ZOOM_OAUTH_URL: provider('https://zoom.us'),
  ZOOM_API_URL: provider('https://api.zoom.us/v2'),
  ZOOM_GOV_OAUTH_URL: provider('https://zoomgov.com'),
  ZOOM_GOV_API_URL: provider('https://api.zoomgov.com/v2'),
  LATCHKEY_REFRESH_MARGIN_SECONDS: whole(0, 3_000, 600),
  LATCHKEY_REFRESH_CONCURRENCY: whole(1, 1_000, 192),
  LATCHKEY_REFRESHES_PER_TENANT: whole(1, 1_000, 64),
  LATCHKEY_REFRESHES_PER_SECOND: whole(1, 1_000_000, 500),
  LATCHKEY_PROBE_INTERVAL_SECONDS: whole(0, 604_800, 1_800),
  LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: whole(0, 604_800, 21_600),
  LATCHKEY_SPOOL: flag.default(true),
  LATCHKEY_LEASE_SECONDS: whole(1, 600, 30),
  LATCHKEY_PROVIDER_DEADLINE_SECONDS: whole(1, 300, 15),
  LATCHKEY_DOUBT_SECONDS: whole(0, 600, 10),
  LATCHKEY_EVENT_POLL_MS: whole(10, 60_000, 500),
  LATCHKEY_MAX_OPEN_SESSIONS: whole(1, 1_000_000, 2_000),
  LATCHKEY_WEBHOOK_TOLERANCE_SECONDS: whole(1, 86_400, 300),
  LATCHKEY_KEY_RETIREMENT_SECONDS: whole(1, 31_536_000, 86_400),
  LATCHKEY_MAX_FAILED_ATTEMPTS: whole(1, 1_000_000, 100),
  LATCHKEY_MAX_TRIPS_PER_FRONTEND_SESSION: whole(1, 1_000, 20),
});

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
    databasePoolSize: settings.LATCHKEY_DATABASE_POOL,
    databaseTimeoutMs: settings.LATCHKEY_DATABASE_TIMEOUT_MS,
    dataDir: settings.LATCHKEY_DATA_DIR,
    rootKey: settings.LATCHKEY_ROOT_KEY === undefined ? null : new Secret(settings.LATCHKEY_ROOT_KEY),
    rootKeyFile: settings.LATCHKEY_ROOT_KEY_FILE ?? null,
    rootKeySources: rootKeySources(settings),
    rootKeyTimeoutMs: settings.LATCHKEY_ROOT_KEY_TIMEOUT_MS,
    adminKey: settings.LATCHKEY_ADMIN_KEY === undefined ? null : new Secret(settings.LATCHKEY_ADMIN_KEY),
    role: settings.LATCHKEY_ROLE,
    metrics:
      settings.LATCHKEY_METRICS_PORT === undefined
        ? null
        : { host: settings.LATCHKEY_METRICS_HOST, port: settings.LATCHKEY_METRICS_PORT },
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
    maxOpenSessions: settings.LATCHKEY_MAX_OPEN_SESSIONS,
    webhookToleranceSeconds: settings.LATCHKEY_WEBHOOK_TOLERANCE_SECONDS,
    keyRetirementSeconds: settings.LATCHKEY_KEY_RETIREMENT_SECONDS,
    maxTripsPerFrontendSession: settings.LATCHKEY_MAX_TRIPS_PER_FRONTEND_SESSION,
    maxFailedAttempts: settings.LATCHKEY_MAX_FAILED_ATTEMPTS,
  });
}
