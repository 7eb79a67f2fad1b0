import { expect, test } from 'vitest';
import { ConfigError, readConfig } from '../src/config.js';

const ROOT_KEY = Buffer.alloc(32, 7).toString('base64');
const ADMIN_KEY = 'a'.repeat(32);
const PRODUCTION = {
  NODE_ENV: 'production',
  LATCHKEY_ROOT_KEY: ROOT_KEY,
  LATCHKEY_ADMIN_KEY: ADMIN_KEY,
  DATABASE_URL: 'postgres://db.example/latchkey',
  LATCHKEY_PUBLIC_URL: 'https://latchkey.example.com',
};

function problemsOf(env: Record<string, string>): readonly string[] {
  try {
    readConfig(env);
    return [];
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
}

test('without any setting it is a development server with a sandbox and documented defaults', () => {
  expect(readConfig({})).toEqual({
    production: false,
    host: '127.0.0.1',
    port: 4000,
    publicUrl: null,
    databaseUrl: null,
    migrationDatabaseUrl: null,
    preparedStatements: true,
    databasePoolSize: 20,
    databaseTimeoutMs: 5_000,
    rowLevelSecurity: true,
    dataDir: './.latchkey',
    rootKey: null,
    rootKeyFile: null,
    rootKeySources: [{ kind: 'file' }],
    rootKeyTimeoutMs: 3_000,
    adminKey: null,
    role: 'all',
    deploymentId: null,
    metrics: null,
    traces: null,
    drainSeconds: 0,
    logLevel: 'warn',
    sandboxPort: 4001,
    zoom: null,
    refreshMarginSeconds: 600,
    refreshConcurrency: 192,
    refreshesPerTenant: 64,
    refreshesPerSecond: 500,
    probeIntervalSeconds: 1_800,
    meetingListIntervalSeconds: 21_600,
    spool: true,
    leaseSeconds: 30,
    providerDeadlineSeconds: 15,
    doubtSeconds: 10,
    eventPollMs: 500,
    eventRetentionDays: 30,
    redisUrl: null,
    maxOpenSessions: 2000,
    webhookToleranceSeconds: 300,
    webhookAllowPrivate: [],
    deliveryRetentionDays: 30,
    keyRetirementSeconds: 86_400,
    maxTripsPerFrontendSession: 20,
    maxFailedAttempts: 100,
    auditMode: 'buffered',
    auditBuffer: 50_000,
    auditRetentionDays: 1_095,
    requestDeadlineSeconds: 10,
    maxStreams: { all: 10_000, perTenant: 200, perFrontendSession: 5 },
    slowConsumerSeconds: 30,
    persistedDocumentsFile: null,
    maxCost: { SERVER_KEY: 20_000, FRONTEND_SESSION: 5_000 },
    rateLimits: { serverKey: 20_000, frontendSession: 100, tenant: 20_000, address: 1_000 },
    trustedProxies: [],
  });
});

test('figures are served nowhere unless a port is given, and then on loopback unless told', () => {
  expect(readConfig({ LATCHKEY_METRICS_HOST: '0.0.0.0' }).metrics).toBeNull();
  expect(readConfig({ LATCHKEY_METRICS_PORT: '9464' }).metrics).toEqual({ host: '127.0.0.1', port: 9464 });
  expect(readConfig({ LATCHKEY_METRICS_PORT: '0', LATCHKEY_METRICS_HOST: '::' }).metrics).toEqual({
    host: '::',
    port: 0,
  });
  expect(problemsOf({ LATCHKEY_METRICS_PORT: '65536' })).toHaveLength(1);
});

test('traces are sent where the standard variables say, and nowhere without an endpoint', () => {
  const OTEL_EXPORTER_OTLP_ENDPOINT = 'http://collector:4318';
  const traces = (more: Record<string, string>) => readConfig({ OTEL_EXPORTER_OTLP_ENDPOINT, ...more }).traces;
  expect(readConfig({ OTEL_TRACES_EXPORTER: 'otlp' }).traces).toBeNull();
  expect(traces({})).toEqual({ url: 'http://collector:4318/v1/traces' });
  expect(traces({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://collector:4318/base/' })).toEqual({
    url: 'http://collector:4318/base/v1/traces',
  });
  expect(traces({ OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: 'https://other.example/x' })).toEqual({
    url: 'https://other.example/x',
  });
  expect(traces({ OTEL_TRACES_EXPORTER: 'none' })).toBeNull();
  expect(traces({ OTEL_SDK_DISABLED: 'TRUE' })).toBeNull();
  expect(problemsOf({ OTEL_EXPORTER_OTLP_ENDPOINT: 'collector:4318' })).toHaveLength(1);
  expect(problemsOf({ OTEL_EXPORTER_OTLP_ENDPOINT: 'http://user:secret@collector:4318' })).toHaveLength(1);
});

test('production has no sandbox and speaks to Zoom itself', () => {
  const config = readConfig(PRODUCTION);
  expect(config).toMatchObject({ production: true, sandboxPort: null, logLevel: 'info' });
  expect(config.zoom).toEqual({
    COMMERCIAL: { oauthUrl: 'https://zoom.us', apiUrl: 'https://api.zoom.us/v2' },
    GOVERNMENT: { oauthUrl: 'https://zoomgov.com', apiUrl: 'https://api.zoomgov.com/v2' },
  });
});

test('production lists everything that is missing at once', () => {
  expect(problemsOf({ NODE_ENV: 'production' }).map((problem) => problem.split(' is ')[0])).toEqual([
    'LATCHKEY_ROOT_KEY or LATCHKEY_ROOT_KEY_FILE',
    'LATCHKEY_ADMIN_KEY',
    'DATABASE_URL',
  ]);
});

test('malformed settings are listed together with missing and contradictory ones', () => {
  const problems = problemsOf({
    NODE_ENV: 'production',
    PORT: 'http',
    LATCHKEY_ROLE: 'boss',
    LATCHKEY_PUBLIC_URL: 'http://latchkey.example.com',
    LATCHKEY_LEASE_SECONDS: '10',
    LATCHKEY_PROVIDER_DEADLINE_SECONDS: '10',
    LATCHKEY_ADMIN_KEY: 'short',
  });
  expect(problems.map((problem) => problem.split(' ')[0])).toEqual([
    'PORT',
    'LATCHKEY_PUBLIC_URL',
    'LATCHKEY_ADMIN_KEY',
    'LATCHKEY_ROLE',
    'LATCHKEY_PROVIDER_DEADLINE_SECONDS',
    'LATCHKEY_ROOT_KEY',
    'DATABASE_URL',
  ]);
});

test('each setting is named once, with what it must be', () => {
  expect(problemsOf({ PORT: '65536' })).toEqual(['PORT must be a whole number from 0 to 65535.']);
  expect(problemsOf({ PORT: '-1' })).toEqual(['PORT must be a whole number from 0 to 65535.']);
  expect(problemsOf({ LATCHKEY_SANDBOX: 'yes' })).toEqual(['LATCHKEY_SANDBOX must be 0 or 1.']);
  expect(problemsOf({ DATABASE_URL: 'mysql://x' })).toEqual(['DATABASE_URL must begin with postgres://.']);
  expect(problemsOf({ LATCHKEY_MIGRATION_DATABASE_URL: 'postgres://x' })).toEqual([
    'LATCHKEY_MIGRATION_DATABASE_URL needs DATABASE_URL beside it.',
  ]);
  expect(problemsOf({ LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '10.0.0.0/8,10.1.2.3' })).toEqual([
    'LATCHKEY_WEBHOOK_ALLOW_PRIVATE must be address ranges such as 10.0.0.0/8,fd00::/8.',
  ]);
  expect(problemsOf({ LATCHKEY_ROOT_KEY: ROOT_KEY, LATCHKEY_ROOT_KEY_FILE: '/x' })).toEqual([
    'LATCHKEY_ROOT_KEY and LATCHKEY_ROOT_KEY_FILE are both set; set one.',
  ]);
});

test('private ranges for webhooks are read as they are written', () => {
  const { webhookAllowPrivate } = readConfig({ LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '10.0.0.0/8, fd00:1::/32' });
  expect(webhookAllowPrivate).toEqual(['10.0.0.0/8', 'fd00:1::/32']);
});

test('no problem repeats the value of a setting', () => {
  const value = 'S3CRET value';
  for (const name of [
    'LATCHKEY_ADMIN_KEY',
    'DATABASE_URL',
    'LATCHKEY_MIGRATION_DATABASE_URL',
    'PORT',
    'ZOOM_API_URL',
    'LATCHKEY_PUBLIC_URL',
    'LATCHKEY_ROLE',
    'LATCHKEY_WEBHOOK_ALLOW_PRIVATE',
  ]) {
    const problems = problemsOf({ [name]: value });
    expect(problems.length).toBeGreaterThan(0);
    expect(problems.join()).not.toContain('S3CRET');
  }
});

test('the provider deadline must end before the lease does', () => {
  const problem = 'LATCHKEY_PROVIDER_DEADLINE_SECONDS must be below LATCHKEY_LEASE_SECONDS.';
  expect(problemsOf({ LATCHKEY_LEASE_SECONDS: '15' })).toEqual([problem]);
  expect(problemsOf({ LATCHKEY_PROVIDER_DEADLINE_SECONDS: '30' })).toEqual([problem]);
  expect(problemsOf({ LATCHKEY_LEASE_SECONDS: '2', LATCHKEY_PROVIDER_DEADLINE_SECONDS: '1' })).toEqual([]);
});

test.each([
  ['https://latchkey.example.com', 'https://latchkey.example.com'],
  ['https://latchkey.example.com/', 'https://latchkey.example.com'],
  ['https://LATCHKEY.example.com:443', 'https://latchkey.example.com'],
  ['http://localhost:8080', 'http://localhost:8080'],
  ['http://127.0.0.1:1', 'http://127.0.0.1:1'],
  ['http://[::1]:8080', 'http://[::1]:8080'],
])('%s may be the public URL', (given, publicUrl) => {
  expect(readConfig({ LATCHKEY_PUBLIC_URL: given }).publicUrl).toBe(publicUrl);
});

test.each([
  'http://latchkey.example.com',
  'http://localhost.example.com',
  'https://latchkey.example.com/path',
  'https://latchkey.example.com/?a',
  'https://latchkey.example.com/#',
  'https://user:password@latchkey.example.com',
  'https://latchkey.example.com.',
  'ftp://latchkey.example.com',
  'latchkey.example.com',
])('%s may not be the public URL', (given) => {
  expect(problemsOf({ LATCHKEY_PUBLIC_URL: given })).toHaveLength(1);
  expect(problemsOf({ ...PRODUCTION, LATCHKEY_PUBLIC_URL: given })).toHaveLength(1);
});

test('tokens are never sent over a network without TLS', () => {
  for (const name of ['ZOOM_OAUTH_URL', 'ZOOM_API_URL', 'ZOOM_GOV_OAUTH_URL', 'ZOOM_GOV_API_URL']) {
    expect(problemsOf({ [name]: 'http://zoom.example' })).toEqual([`${name} must be https (http for loopback only).`]);
    expect(problemsOf({ [name]: 'http://127.0.0.1:9' })).toEqual([]);
  }
});

test('a Zoom address that is set is used beside the sandbox as well', () => {
  expect(readConfig({ ZOOM_OAUTH_URL: 'http://127.0.0.1:9/' }).zoom?.COMMERCIAL).toEqual({
    oauthUrl: 'http://127.0.0.1:9',
    apiUrl: 'https://api.zoom.us/v2',
  });
});

test('an empty value counts as absent', () => {
  expect(readConfig({ PORT: '', DATABASE_URL: '', LATCHKEY_ADMIN_KEY: '' })).toMatchObject({
    port: 4000,
    adminKey: null,
  });
  expect(problemsOf({ ...PRODUCTION, LATCHKEY_ROOT_KEY: '' })).toHaveLength(1);
});

test('what is printed of the settings holds no key', () => {
  expect(JSON.stringify(readConfig(PRODUCTION))).not.toMatch(new RegExp(`${ADMIN_KEY}|${ROOT_KEY.slice(0, 8)}`));
});

const pkcs11 = {
  LATCHKEY_PKCS11_MODULE: '/usr/lib/softhsm/libsofthsm2.so',
  LATCHKEY_PKCS11_TOKEN: 'latchkey',
  LATCHKEY_PKCS11_KEYS: 'new, old',
  LATCHKEY_PKCS11_PIN_FILE: '/run/pin',
};
const kmsKey = 'arn:aws:kms:eu-central-1:111122223333:key/11111111-2222-3333-4444-555555555555';

test('root keys may be with several providers, newest first', () => {
  const { rootKeySources, rootKeyTimeoutMs } = readConfig({
    LATCHKEY_ROOT_KEY_PROVIDER: 'aws-kms, pkcs11,env',
    LATCHKEY_ROOT_KEY_TIMEOUT_MS: '500',
    LATCHKEY_AWS_KMS_KEYS: kmsKey,
    LATCHKEY_AWS_KMS_ENDPOINT: 'https://vpce.example/',
    LATCHKEY_ROOT_KEY: ROOT_KEY,
    ...pkcs11,
  });
  expect(rootKeyTimeoutMs).toBe(500);
  expect(rootKeySources).toEqual([
    { kind: 'aws-kms', keyArns: [kmsKey], endpoint: 'https://vpce.example' },
    {
      kind: 'pkcs11',
      module: '/usr/lib/softhsm/libsofthsm2.so',
      tokenLabel: 'latchkey',
      keyLabels: ['new', 'old'],
      pinFile: '/run/pin',
    },
    { kind: 'env' },
  ]);
  expect(readConfig({ LATCHKEY_ROOT_KEY: ROOT_KEY }).rootKeySources).toEqual([{ kind: 'env' }]);
  expect(readConfig({ LATCHKEY_ROOT_KEY_FILE: '/run/key' }).rootKeySources).toEqual([{ kind: 'file' }]);
});

test.each<[Record<string, string>, string[]]>([
  [{ LATCHKEY_ROOT_KEY_PROVIDER: 'vault' }, ['must be env, file, pkcs11, aws-kms']],
  [{ LATCHKEY_ROOT_KEY_PROVIDER: 'env,env', LATCHKEY_ROOT_KEY: ROOT_KEY }, ['must not name one twice']],
  [{ LATCHKEY_ROOT_KEY_PROVIDER: 'env' }, ['LATCHKEY_ROOT_KEY is missing']],
  [{ LATCHKEY_ROOT_KEY_PROVIDER: 'file' }, ['LATCHKEY_ROOT_KEY_FILE is missing']],
  [
    { LATCHKEY_ROOT_KEY_PROVIDER: 'pkcs11', LATCHKEY_PKCS11_TOKEN: 'latchkey' },
    ['LATCHKEY_PKCS11_MODULE is missing', 'LATCHKEY_PKCS11_KEYS is missing', 'LATCHKEY_PKCS11_PIN_FILE is missing'],
  ],
  [{ LATCHKEY_ROOT_KEY_PROVIDER: 'aws-kms' }, ['LATCHKEY_AWS_KMS_KEYS is missing']],
  [
    { LATCHKEY_PKCS11_TOKEN: 'latchkey' },
    ['LATCHKEY_PKCS11_TOKEN is set, but LATCHKEY_ROOT_KEY_PROVIDER does not name'],
  ],
  [
    { LATCHKEY_ROOT_KEY_PROVIDER: 'pkcs11', ...pkcs11, LATCHKEY_ROOT_KEY: ROOT_KEY },
    ['LATCHKEY_ROOT_KEY is set, but LATCHKEY_ROOT_KEY_PROVIDER does not name env'],
  ],
  [
    { LATCHKEY_ROOT_KEY_PROVIDER: 'aws-kms', LATCHKEY_AWS_KMS_KEYS: kmsKey.replace('key/', 'alias/') },
    ['LATCHKEY_AWS_KMS_KEYS.0 must be ARNs of keys'],
  ],
  [
    {
      LATCHKEY_ROOT_KEY_PROVIDER: 'aws-kms',
      LATCHKEY_AWS_KMS_KEYS: kmsKey,
      LATCHKEY_AWS_KMS_ENDPOINT: 'http://kms.example',
    },
    ['LATCHKEY_AWS_KMS_ENDPOINT must be https'],
  ],
])('settings of root keys that do not fit each other stop the start: %j', (settings, expected) => {
  const problems = problemsOf(settings);
  expect(problems).toHaveLength(expected.length);
  for (const [at, text] of expected.entries()) expect(problems[at]).toContain(text);
});

test('a provider of root keys is enough for production', () => {
  const { LATCHKEY_ROOT_KEY: _none, ...others } = PRODUCTION;
  expect(problemsOf({ ...others, LATCHKEY_ROOT_KEY_PROVIDER: 'pkcs11', ...pkcs11 })).toEqual([]);
});
