import { createRequire } from 'node:module';
import { join } from 'node:path';
import { type App, createApp } from './app.js';
import { systemClock } from './clock.js';
import type { Config } from './config.js';
import { type Cleanup, createCleanup } from './cleanup.js';
import { BACKGROUND, type Database } from './database/database.js';
import { readDevelopmentAdminKey } from './development.js';
import { withAudit } from './domain/audit.js';
import { createAuditKey } from './domain/audit-key.js';
import { createReadLog } from './domain/audit-read-log.js';
import { createAuditTrail } from './domain/audit-trail.js';
import { createCandidateReader } from './domain/credential-reader.js';
import { createDeployment } from './domain/deployment.js';
import { createDeliverer } from './domain/deliverer.js';
import type { Deps } from './domain/deps.js';
import { createHealthEventLog } from './domain/health-event.js';
import { createPrincipalDirectory } from './domain/principal-directory.js';
import { createSpoolCipher } from './domain/renewal.js';
import { holdProvider, holdRefresher } from './domain/quarantine.js';
import { createRateLimiter } from './domain/rate-limit.js';
import { createRefresher } from './domain/refresh.js';
import { createKeyUse } from './domain/server-key.js';
import { createBroadcast } from './feed/broadcast.js';
import { readDomainSettings } from './domain-settings.js';
import { readEngineOptions } from './engine-options.js';
import { createHealthEventStream } from './feed/event-stream.js';
import { createFeed } from './feed/feed.js';
import { createRedisFeed } from './feed/redis-wake-ups.js';
import { createAddressOf } from './http/address.js';
import { createAuthenticate } from './http/authenticate.js';
import { createFailedAttempts } from './http/failed-attempts.js';
import { closeServer, createHttpServer, listen, ListenError } from './http/listener.js';
import { createRateGate } from './http/rate-gate.js';
import { createReadiness } from './http/readiness.js';
import { readClockOffset } from './domain/clock-offset.js';
import { countGrants, readFigures } from './domain/figures.js';
import { respondJson } from './http/respond.js';
import { NO_INSTRUMENTS } from './metrics/instruments.js';
import { createMetrics, type Metrics } from './metrics/metrics.js';
import type { Log } from './log.js';
import { createWebhookSender } from './outgoing/webhook-sender.js';
import { openDatabase } from './open-database.js';
import { openRootKeys } from './root-keys.js';
import { createSandbox, type Sandbox } from './sandbox/sandbox.js';
import { createJobs } from './scheduler/jobs.js';
import { createScheduler } from './scheduler/scheduler.js';
import { createSpool } from './spool/spool.js';
import { startTracing } from './tracing/start-tracing.js';
import { createVault } from './vault/vault.js';
import { createZoom } from './zoom/zoom.js';

const { version: VERSION } = createRequire(import.meta.url)('../package.json') as { version: string };
/** Connections to the provider beyond those that scheduled refreshes may take. */
const CONNECTIONS_FOR_READERS = 100;

/** A running server. */
export interface Latchkey {
  /** Where this process listens. */
  url: string;
  /** What browsers and Zoom are told. */
  publicUrl: string;
  sandbox: Sandbox | null;
  /** Where figures for Prometheus are served; null: nowhere. */
  metricsUrl: string | null;
  database: Database['kind'];
  /** The file that the development admin key is kept in; null where the setting gives one. */
  adminKeyFile: string | null;
  /** Whether that file was made by this start, so that its key is shown once. */
  adminKeyIsNew: boolean;
  /** Takes no more work, waits for what is running, releases everything. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * Puts the parts together and starts them: the only code that knows them all.
 *
 * @param open gives the database, which is closed with the server; another than the settings name, where the caller has one.
 * @throws ConfigError, RootKeyMismatchError, FolderLockedError, ListenError and whatever the database reports; nothing
 * is left running then.
 */
export async function startLatchkey(config: Config, log: Log, open = openDatabase): Promise<Latchkey> {
  const cleanup = createCleanup(log);
  try {
    return await start(config, log, open, cleanup);
  } catch (error) {
    await cleanup.run();
    throw error;
  }
}

async function start(config: Config, plainLog: Log, open: typeof openDatabase, cleanup: Cleanup): Promise<Latchkey> {
  const clock = systemClock;
  const metrics = createMetrics({ enabled: config.metrics !== null });
  cleanup.add(() => metrics.close());
  const { instruments } = metrics;
  const traced = await startTracing(config.traces, { version: VERSION, role: config.role, log: plainLog });
  // Closed last, so that an end can be traced, too.
  cleanup.add(() => traced.close());
  const log = traced.log(instruments.log(plainLog));
  const rootKeys = instruments.rootKeys(await openRootKeys(config));
  cleanup.add(() => rootKeys.close());
  const server = createHttpServer();
  const running: { app?: App } = {};
  server.on('request', (req, res) => {
    if (running.app !== undefined) return running.app.handle(req, res);
    return respondJson(res, req.url === '/livez' ? 200 : 503, { starting: true }, { 'retry-after': '1' });
  });
  server.on('upgrade', (req, socket, head) => {
    if (running.app === undefined) socket.destroy();
    else running.app.upgrade(req, socket, head);
  });
  // First of all, so that a taken address is told at once and the port is known; the answer is 503 until all is there.
  const port = await listen(server, config.host, config.port);
  cleanup.add(() => closeServer(server));
  const metricsUrl = await listenForMetrics(config, metrics, cleanup);
  const publicUrl = config.publicUrl ?? `http://localhost:${port}`;

  const plainDb = instruments.database(traced.database(await open(config, log)));
  cleanup.add(() => plainDb.close());
  const vault = instruments.vault(createVault({ rootKeys }));
  const trail = createAuditTrail({ vault });
  const db = withAudit(plainDb, trail);
  await vault.verify(db);
  await vault.createTenantKey(db, null);
  await createAuditKey(vault, db);

  const deployment = createDeployment({ db, log, names: config, beforeLeaving: () => replayAll() });
  await deployment.check();

  const sandbox = await startSandbox(config, log);
  if (sandbox !== null) cleanup.add(() => sandbox.close());
  const provider = createZoom({
    hosts: hostsOf(config, sandbox),
    deadlineMs: config.providerDeadlineSeconds * 1_000,
    connections: CONNECTIONS_FOR_READERS + config.refreshConcurrency,
    clock,
  });
  const zoom = instruments.zoom(holdProvider(provider, deployment));
  cleanup.add(() => zoom.close());
  const localFeed = createFeed({ clock, pollMs: config.eventPollMs });
  const feed = instruments.feed(
    config.redisUrl === null ? localFeed : createRedisFeed(localFeed, { url: config.redisUrl, log }),
  );
  cleanup.add(() => feed.close());
  const disk = config.spool
    ? { folder: join(config.dataDir, 'spool'), cipher: createSpoolCipher({ vault, db }) }
    : null;
  // One that is off writes nothing that could be counted.
  const spool = traced.spool((disk === null ? NO_INSTRUMENTS : instruments).spool(createSpool({ disk, log })));
  const deps: Deps = {
    db,
    vault,
    zoom,
    feed,
    spool,
    clock,
    log,
    settings: readDomainSettings(config, publicUrl),
  };
  const reads = createReadLog({ db, trail, clock, log, mode: config.auditMode, maxPending: config.auditBuffer });
  cleanup.add(() => reads.close());
  const refreshes = createRefresher(deps);
  const refresher = holdRefresher(refreshes, deployment);
  const replayAll = () => refreshes.replay({ all: true });
  cleanup.add(() => refresher.drain());
  // Before anything is read or refreshed: what a crash has left here may be the only live tokens of their grants.
  await refresher.replay({ all: true });
  const webhookSender = createWebhookSender({
    clock,
    allowPrivate: config.webhookAllowPrivate,
    httpsOnly: config.production,
  });
  cleanup.add(() => webhookSender.close());
  const background = { ...deps, db: db.shareOf(BACKGROUND) };
  const deliverer = createDeliverer({ ...background, webhookSender });
  cleanup.add(() => deliverer.drain());
  const eventLog = createHealthEventLog(db);
  const eventStream = traced.healthEvents(createHealthEventStream(eventLog, feed));
  const healthEvents = instruments.healthEvents(eventStream);
  const candidates = createCandidateReader(db);
  const renewals = new Map();
  const { adminKey, ...adminKeyOrigin } = await readDevelopmentAdminKey(config);
  const development = !config.production;
  const principals = createPrincipalDirectory(deps);
  cleanup.add(() => principals.close());
  const keyUse = createKeyUse(deps);
  cleanup.add(() => keyUse.record());
  const readiness = createReadiness({ db, clock, vault, isQuarantined: deployment.isQuarantined });
  const limiter = createRateLimiter(deps);
  cleanup.add(() => limiter.close());
  const addressOf = createAddressOf(config.trustedProxies);
  const app = createApp({
    readiness,
    rateGate: createRateGate({ limiter, limits: config.rateLimits, addressOf }),
    addressOf,
    deps: { ...deps, refresher, healthEvents, candidates, renewals, principals, reads, webhookSender },
    broadcast: createBroadcast({ log: eventLog, stream: eventStream, sizeOf: ({ bytes }) => bytes }),
    authenticate: traced.authenticate(
      createAuthenticate({
        adminKey,
        ownOrigin: development ? publicUrl : null,
        principals,
        keyUse,
        failedAttempts: createFailedAttempts(config.maxFailedAttempts),
        addressOf,
      }),
    ),
    engine: await readEngineOptions(config),
    slowConsumerMs: config.slowConsumerSeconds * 1_000,
    api: config.role !== 'worker',
  });

  const jobs = createJobs(
    { ...background, refresher, candidates, renewals, keyUse, deployment, deliverer },
    {
      schedules: config.role !== 'api',
      concurrency: config.refreshConcurrency,
      auditRetentionDays: config.auditRetentionDays,
      deliveryRetentionDays: config.deliveryRetentionDays,
      deliveryPollMs: config.eventPollMs,
    },
  );
  const scheduler = createScheduler({ jobs: traced.jobs(instruments.jobs(jobs)), clock, log });
  scheduler.start();
  metrics.observe(
    { version: VERSION, role: config.role, database: db.kind },
    {
      load: refresher.load,
      cachedKeys: () => vault.keyCacheStats().size,
      rootKeyFailing: () => vault.rootKeyHealth().failingMs / 1_000,
      postponed: spool.postponed,
      pool: db.pool,
      webSockets: app.webSockets,
      notReady: readiness.reasons,
      clockOffset: () => readClockOffset(deps),
      unrecordedReads: reads.pending,
      figures: () => readFigures(deps),
      grants: () => countGrants(deps),
    },
  );
  cleanup.add(async () => {
    app.drain();
    await clock.sleep(config.drainSeconds * 1_000);
    feed.close();
    await Promise.all([scheduler.stop(), app.close(), closeServer(server)]);
  });
  running.app = app;
  const address = originOf(config.host, port);
  log.info('listening', { url: address, database: db.kind, role: config.role });
  return { url: address, publicUrl, metricsUrl, sandbox, database: db.kind, ...adminKeyOrigin, close: cleanup.run };
}

/** @returns where; null where nobody watches. Closed last but for what was opened before: an end can be watched, too. */
async function listenForMetrics(
  { metrics: address }: Config,
  { server }: Metrics,
  cleanup: Cleanup,
): Promise<string | null> {
  if (address === null || server === null) return null;
  const port = await listen(server, address.host, address.port, 'LATCHKEY_METRICS_HOST and LATCHKEY_METRICS_PORT');
  cleanup.add(() => closeServer(server));
  return `${originOf(address.host, port)}/metrics`;
}

const originOf = (host: string, port: number) => `http://${host.includes(':') ? `[${host}]` : host}:${port}`;

function hostsOf(config: Config, sandbox: Sandbox | null): NonNullable<Config['zoom']> {
  if (config.zoom !== null) return config.zoom;
  if (sandbox === null) throw new Error('Without a sandbox the provider must be configured.');
  const host = { oauthUrl: sandbox.origin, apiUrl: `${sandbox.origin}/v2` };
  return { COMMERCIAL: host, GOVERNMENT: host };
}

async function startSandbox(config: Config, log: Log): Promise<Sandbox | null> {
  if (config.sandboxPort === null) return null;
  const { host, sandboxPort: port } = config;
  try {
    return await createSandbox({
      host,
      port,
      clock: systemClock,
      log,
      persistTo: join(config.dataDir, 'sandbox.json'),
    });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE' && code !== 'EACCES') throw error;
    throw new ListenError(host, port, code);
  }
}
