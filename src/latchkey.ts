import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { type App, createApp } from './app.js';
import { systemClock } from './clock.js';
import type { Config } from './config.js';
import type { Database } from './database/database.js';
import { openEmbedded } from './database/embedded.js';
import { openPostgres } from './database/postgres.js';
import { readDevelopmentAdminKey, readRootKeys } from './development.js';
import { createCandidateReader } from './domain/credential-reader.js';
import type { Deps } from './domain/deps.js';
import { createHealthEventLog } from './domain/health-event.js';
import { createSpoolCipher } from './domain/renewal.js';
import { createRefresher } from './domain/refresh.js';
import { createHealthEventStream } from './feed/event-stream.js';
import { createFeed } from './feed/feed.js';
import { createAuthenticate } from './http/authenticate.js';
import { respondJson } from './http/respond.js';
import type { Log } from './log.js';
import { createSandbox, type Sandbox } from './sandbox/sandbox.js';
import { createJobs } from './scheduler/jobs.js';
import { createScheduler } from './scheduler/scheduler.js';
import { createSpool } from './spool/spool.js';
import { createLocalRootKeys } from './vault/root-key.js';
import { createVault } from './vault/vault.js';
import { createZoom } from './zoom/zoom.js';

const SESSION_SECONDS = 600;
const CONNECT_CODE_SECONDS = 120;
const FAILURES_BEFORE_DEGRADED = 3;
/** Connections to the provider beyond those that scheduled refreshes may take. */
const CONNECTIONS_FOR_READERS = 100;
/** How long running requests may take after the listener has closed. */
const DRAIN_MS = 10_000;
const IDLE_SWEEP_MS = 100;

/** A running server. */
export interface Latchkey {
  /** Where this process listens. */
  url: string;
  /** What browsers and Zoom are told. */
  publicUrl: string;
  sandbox: Sandbox | null;
  database: Database['kind'];
  /** The file that the development admin key is kept in; null where the setting gives one. */
  adminKeyFile: string | null;
  /** Whether that file was made by this start, so that its key is shown once. */
  adminKeyIsNew: boolean;
  /** Takes no more work, waits for what is running, releases everything. Safe to call twice. */
  close(): Promise<void>;
}

/** The address is taken, or may not be used. */
export class ListenError extends Error {
  constructor(host: string, port: number, code: string | undefined) {
    const reason =
      code === 'EADDRINUSE' ? 'it is in use by another program' : `the system answers ${code ?? 'an error'}`;
    super(`Cannot listen on ${host}:${port}: ${reason}. Set HOST and PORT to something else.`);
    this.name = 'ListenError';
  }
}

function listen(server: Server, host: string, port: number): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(new ListenError(host, port, error.code)));
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port));
  });
}

/** Runs what releases a resource for each that was taken, the last first, also when one of them fails. */
function createCleanup(log: Log) {
  const steps: (() => unknown)[] = [];
  let running: Promise<void> | undefined;
  const run = async () => {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      try {
        await step();
      } catch (error) {
        log.error('a part did not close cleanly', {}, error);
      }
    }
  };
  return { add: (step: () => unknown) => void steps.push(step), run: () => (running ??= run()) };
}

/** Opens the database that the settings name. */
const openDatabase = (config: Config, log: Log): Promise<Database> =>
  config.databaseUrl === null
    ? openEmbedded(config.dataDir)
    : openPostgres({
        connectionString: config.databaseUrl,
        log,
        poolSize: config.databasePoolSize,
        queryTimeoutMs: config.databaseTimeoutMs,
      });

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

async function start(
  config: Config,
  log: Log,
  open: typeof openDatabase,
  cleanup: ReturnType<typeof createCleanup>,
): Promise<Latchkey> {
  const clock = systemClock;
  const rootKeys = createLocalRootKeys(await readRootKeys(config));
  const server = createServer({ requestTimeout: 30_000, headersTimeout: 10_000, keepAliveTimeout: 65_000 });
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
  const publicUrl = config.publicUrl ?? `http://localhost:${port}`;

  const db = await open(config, log);
  cleanup.add(() => db.close());
  const vault = createVault({ rootKeys });
  await vault.verify(db);
  await vault.createTenantKey(db, null);

  const sandbox = await startSandbox(config, log);
  if (sandbox !== null) cleanup.add(() => sandbox.close());
  const zoom = createZoom({
    hosts: hostsOf(config, sandbox),
    deadlineMs: config.providerDeadlineSeconds * 1_000,
    connections: CONNECTIONS_FOR_READERS + config.refreshConcurrency,
    clock,
  });
  cleanup.add(() => zoom.close());
  const feed = createFeed({ clock, pollMs: config.eventPollMs });
  const spool = createSpool({
    disk: config.spool ? { folder: join(config.dataDir, 'spool'), cipher: createSpoolCipher({ vault, db }) } : null,
    log,
  });
  const deps: Deps = {
    db,
    vault,
    zoom,
    feed,
    spool,
    clock,
    log,
    settings: {
      publicUrl,
      sessionSeconds: SESSION_SECONDS,
      connectCodeSeconds: CONNECT_CODE_SECONDS,
      maxOpenSessions: config.maxOpenSessions,
      webhookToleranceSeconds: config.webhookToleranceSeconds,
      keyRetirementSeconds: config.keyRetirementSeconds,
      refreshMarginSeconds: config.refreshMarginSeconds,
      leaseSeconds: config.leaseSeconds,
      doubtSeconds: config.doubtSeconds,
      providerDeadlineSeconds: config.providerDeadlineSeconds,
      refreshesPerTenant: config.refreshesPerTenant,
      refreshesPerSecond: config.refreshesPerSecond,
      probeIntervalSeconds: config.probeIntervalSeconds,
      meetingListIntervalSeconds: config.meetingListIntervalSeconds,
      failuresBeforeDegraded: FAILURES_BEFORE_DEGRADED,
    },
  };
  const refresher = createRefresher(deps);
  cleanup.add(() => refresher.drain());
  // Before anything is read or refreshed: what a crash has left here may be the only live tokens of their grants.
  await refresher.replay({ all: true });
  const healthEvents = createHealthEventStream(createHealthEventLog(db), feed);
  const candidates = createCandidateReader(db);
  const renewals = new Map();
  const { adminKey, ...adminKeyOrigin } = await readDevelopmentAdminKey(config);
  const development = !config.production;
  const app = createApp({
    deps: { ...deps, refresher, healthEvents, candidates, renewals },
    authenticate: createAuthenticate({ adminKey, ownOrigin: development ? publicUrl : null }),
    development,
    api: config.role !== 'worker',
  });

  const jobs = createJobs(
    { ...deps, refresher, candidates, renewals },
    {
      schedules: config.role !== 'api',
      concurrency: config.refreshConcurrency,
    },
  );
  const scheduler = createScheduler({ jobs, clock, log });
  scheduler.start();
  cleanup.add(async () => {
    app.drain();
    feed.close();
    await Promise.all([scheduler.stop(), app.close(), closeServer(server)]);
  });
  running.app = app;
  const address = `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`;
  log.info('listening', { url: address, database: db.kind, role: config.role });
  return { url: address, publicUrl, sandbox, database: db.kind, ...adminKeyOrigin, close: cleanup.run };
}

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

/** Stops listening and waits for the running requests; what is not done by then is cut off. */
async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  // A connection that falls idle from now on is not wanted either.
  const idle = setInterval(() => server.closeIdleConnections(), IDLE_SWEEP_MS);
  const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
}
