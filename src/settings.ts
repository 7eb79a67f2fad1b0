import ipaddr from 'ipaddr.js';
import { z } from 'zod';
import { RootKeySettings } from './root-key-settings.js';

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

/** http is good enough: what is sent holds no secret, and a collector is often beside the process. */
const collector = z.string().refine(isWebAddress, 'must be a web address without credentials or fragment');

const publicUrl = z
  .string()
  .refine((value) => {
    if (!isWebAddress(value)) return false;
    const url = new URL(value);
    return url.pathname === '/' && url.search === '' && !value.includes('#') && !url.hostname.endsWith('.');
  }, 'must be an origin such as https://latchkey.example.com')
  .refine((value) => !isWebAddress(value) || isProtected(value), 'must be https (http for loopback only)')
  .transform((value) => new URL(value).origin);

/** Ranges of addresses with commas in between. */
const addressRanges = z
  .string()
  .transform((value) => value.split(',').map((range) => range.trim()))
  .refine((ranges) => ranges.every(ipaddr.isValidCIDR), 'must be address ranges such as 10.0.0.0/8,fd00::/8')
  .default([]);

/** Addresses, or networks as `10.0.0.0/8`, with commas in between. */
const networks = z
  .string()
  .transform((value) => value.split(',').map((part) => part.trim()))
  .refine(
    (parts) => parts.every((part) => ipaddr.isValid(part) || ipaddr.isValidCIDR(part)),
    'must be addresses or networks such as 10.0.0.0/8, separated by commas',
  );

const postgresUrl = z.string().regex(/^postgres(ql)?:\/\//, 'must begin with postgres://');

/** What the environment may say, setting by setting. */
export const Settings = z.object({
  NODE_ENV: z.string().optional(),
  HOST: z.string().min(1).default('127.0.0.1'),
  PORT: whole(0, 65_535, 4_000),
  LATCHKEY_PUBLIC_URL: publicUrl.optional(),
  DATABASE_URL: postgresUrl.optional(),
  LATCHKEY_MIGRATION_DATABASE_URL: postgresUrl.optional(),
  LATCHKEY_PREPARED_STATEMENTS: flag.default(true),
  LATCHKEY_DATABASE_POOL: whole(2, 500, 20),
  LATCHKEY_DATABASE_TIMEOUT_MS: whole(100, 600_000, 5_000),
  LATCHKEY_ROW_LEVEL_SECURITY: flag.default(true),
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
  LATCHKEY_DEPLOYMENT_ID: z
    .string()
    .regex(/^[A-Za-z0-9._:/-]{1,200}$/, 'must have 1 to 200 letters, digits or . _ : / -')
    .optional(),
  LATCHKEY_METRICS_HOST: z.string().min(1).default('127.0.0.1'),
  LATCHKEY_METRICS_PORT: number(0, 65_535).optional(),
  OTEL_EXPORTER_OTLP_ENDPOINT: collector.optional(),
  OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: collector.optional(),
  OTEL_TRACES_EXPORTER: z.enum(['otlp', 'none'], 'must be otlp or none').optional(),
  OTEL_SDK_DISABLED: z.string().optional(),
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
  LATCHKEY_EVENT_RETENTION_DAYS: whole(7, 3_650, 30),
  REDIS_URL: z
    .string()
    .regex(/^rediss?:\/\//, 'must begin with redis:// or rediss://')
    .optional(),
  LATCHKEY_MAX_OPEN_SESSIONS: whole(1, 1_000_000, 2_000),
  LATCHKEY_WEBHOOK_TOLERANCE_SECONDS: whole(1, 86_400, 300),
  LATCHKEY_WEBHOOK_ALLOW_PRIVATE: addressRanges,
  LATCHKEY_DELIVERY_RETENTION_DAYS: whole(1, 365, 30),
  LATCHKEY_KEY_RETIREMENT_SECONDS: whole(1, 31_536_000, 86_400),
  LATCHKEY_AUDIT_MODE: z.enum(['strict', 'buffered'], 'must be strict or buffered').default('buffered'),
  LATCHKEY_AUDIT_BUFFER: whole(1, 1_000_000, 50_000),
  LATCHKEY_AUDIT_RETENTION_DAYS: whole(1, 36_500, 1_095),
  LATCHKEY_MAX_FAILED_ATTEMPTS: whole(1, 1_000_000, 100),
  LATCHKEY_RATE_LIMIT_SERVER_KEY: whole(0, 1_000_000, 20_000),
  LATCHKEY_RATE_LIMIT_FRONTEND_SESSION: whole(0, 1_000_000, 100),
  LATCHKEY_RATE_LIMIT_TENANT: whole(0, 1_000_000, 20_000),
  LATCHKEY_RATE_LIMIT_ADDRESS: whole(0, 1_000_000, 1_000),
  LATCHKEY_TRUSTED_PROXIES: networks.default([]),
  LATCHKEY_MAX_TRIPS_PER_FRONTEND_SESSION: whole(1, 1_000, 20),
  LATCHKEY_MAX_SERVER_KEY_COST: whole(100, 100_000_000, 20_000),
  LATCHKEY_MAX_FRONTEND_SESSION_COST: whole(100, 100_000_000, 5_000),
  LATCHKEY_REQUEST_DEADLINE_SECONDS: whole(1, 600, 10),
  LATCHKEY_MAX_STREAMS: whole(1, 1_000_000, 10_000),
  LATCHKEY_MAX_STREAMS_PER_TENANT: whole(1, 1_000_000, 200),
  LATCHKEY_MAX_STREAMS_PER_FRONTEND_SESSION: whole(1, 1_000_000, 5),
  LATCHKEY_SLOW_CONSUMER_SECONDS: whole(1, 600, 30),
  LATCHKEY_PERSISTED_DOCUMENTS: z.string().min(1).optional(),
});

export type Settings = z.infer<typeof Settings>;
