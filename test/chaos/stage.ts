import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Agent } from 'undici';
import { systemClock } from '../../src/clock.js';
import type { Database } from '../../src/database/database.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import type { Knobs } from '../../src/sandbox/knobs.js';
import { createSandbox, type Sandbox } from '../../src/sandbox/sandbox.js';
import type { TestServer } from '../support/server.js';
import { createCallers, postOperation, readOnce, type Reading } from './client.js';
import { createDatabase, dropDatabase } from './databases.js';
import { recordHistory } from './history.js';
import { isStopped, spawnServer, type ServerProcess, type SpawnOptions } from './server-process.js';
import { startTcpProxy } from './tcp-proxy.js';
import { waitUntil } from './waiting.js';

/** One server process; it can be used wherever the stories of the test suite are played. */
export interface Server extends TestServer {
  process: ServerProcess;
  /** Folder that outlives the process, so that a successor can be given it. */
  dataDir: string;
  isFrozen: boolean;
}

export interface StartOptions extends Omit<SpawnOptions, 'settings'> {
  settings?: Record<string, string>;
  dataDir?: string;
}

export interface StageOptions {
  refreshMode?: Knobs['refreshMode'];
  settings?: Record<string, string>;
  /** Seconds that a call to Zoom may take, that a lease lasts, and that a doubt is waited for. */
  deadline?: number;
  lease?: number;
  doubt?: number;
  /** Another PostgreSQL server than the one all share. */
  clusterUrl?: string;
  /** Puts something between the servers and PostgreSQL; given the port that it listens on. */
  throughPort?: (port: number) => Promise<number>;
  /** Puts something between the servers and the token endpoint of Zoom; given Zoom's origin. */
  throughOrigin?: (origin: string) => Promise<string>;
}

/** Servers that share a database, a root key and a Zoom, and everything that is known of what they did. */
export interface Stage {
  sandbox: Sandbox;
  control: Sandbox['control'];
  db: Database;
  callers: Agent;
  seconds: { deadline: number; lease: number; doubt: number };
  rootKey: string;
  databaseName: string;
  /** All that were ever started. */
  servers: Server[];
  readings: Reading[];
  /** When a process or the database was cut off in the middle of what it did. */
  interruptions: number[];
  /**
   * Fingerprints of refresh tokens whose answer was changed on its way: `unread` where it cannot be understood, `kept`
   * where it leaves the token as it was.
   */
  excused: Map<string, 'unread' | 'kept'>;
  /** What was answered apart from credentials, for the search for secrets. */
  texts: string[];
  start(options?: StartOptions): Promise<Server>;
  startMany(count: number, options?: StartOptions): Promise<Server[]>;
  read(server: Server, connection: Target, more?: Record<string, unknown>): Promise<Reading>;
  freeze(server: Server): void;
  thaw(server: Server): void;
  /** Ends a server and waits for its end. */
  end(server: Server, signal: 'SIGKILL' | 'SIGTERM'): Promise<void>;
  /** The servers that can answer now. */
  live(): Server[];
  close(): Promise<void>;
}

/** A connection as far as its credential is read. */
export interface Target {
  rowId: string;
  input: { tenantId: string; credentialFor: 'USER'; userId: string };
}

const ADMIN_KEY = 'chaos-admin-key-of-at-least-32-characters';

export async function openStage(options: StageOptions & { clusterUrl: string }): Promise<Stage> {
  const seconds = { deadline: options.deadline ?? 2, lease: options.lease ?? 3, doubt: options.doubt ?? 1 };
  const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
  sandbox.control.setKnobs({ refreshMode: options.refreshMode ?? 'strict' });
  const database = await createDatabase(options.clusterUrl);
  const db = await openPostgres({ connectionString: database.url, log: createLog('silent'), poolSize: 5 });
  await recordHistory(db);
  const serverDatabase = new URL(database.url);
  if (options.throughPort !== undefined) {
    serverDatabase.port = String(await options.throughPort(Number(serverDatabase.port)));
  }
  const oauthUrl = (await options.throughOrigin?.(sandbox.origin)) ?? sandbox.origin;
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-chaos-'));
  const rootKey = randomBytes(32).toString('base64');
  const callers = createCallers();
  const servers: Server[] = [];
  const readings: Reading[] = [];
  const interruptions: number[] = [];
  const texts: string[] = [];

  const live = (): Server[] => servers.filter((server) => server.process.isRunning() && !server.isFrozen);
  // What browsers and Zoom are sent to is whichever server can answer, as behind a load balancer.
  const front = await startTcpProxy(() => {
    const [server] = live().filter(({ url }) => url !== '');
    return server === undefined ? null : Number(new URL(server.url).port);
  });

  const settings = {
    DATABASE_URL: serverDatabase.href,
    PORT: '0',
    LATCHKEY_PUBLIC_URL: `http://127.0.0.1:${front.port}`,
    LATCHKEY_ROOT_KEY: rootKey,
    LATCHKEY_ADMIN_KEY: ADMIN_KEY,
    LATCHKEY_SANDBOX: '0',
    LATCHKEY_LOG_LEVEL: 'info',
    LATCHKEY_PROVIDER_DEADLINE_SECONDS: String(seconds.deadline),
    LATCHKEY_LEASE_SECONDS: String(seconds.lease),
    LATCHKEY_DOUBT_SECONDS: String(seconds.doubt),
    LATCHKEY_EVENT_POLL_MS: '200',
    ZOOM_OAUTH_URL: oauthUrl,
    ZOOM_API_URL: `${sandbox.origin}/v2`,
    // Listing a host's meetings renews an expired token; here nothing is to be asked of Zoom but what an experiment asks.
    LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
    ...options.settings,
  };

  async function start({ settings: own = {}, dataDir, ...spawning }: StartOptions = {}): Promise<Server> {
    const home = dataDir ?? join(folder, `server-${servers.length + 1}`);
    const process = spawnServer({ settings: { ...settings, LATCHKEY_DATA_DIR: home, ...own }, ...spawning });
    void process.exited.then(({ signal }) => {
      if (signal !== null) interruptions.push(Date.now());
    });
    const server = serverOf({ process, dataDir: home, db, sandbox, callers, texts });
    servers.push(server);
    server.url = await process.listening;
    return server;
  }

  const stage: Stage = {
    sandbox,
    control: sandbox.control,
    db,
    callers,
    seconds,
    rootKey,
    databaseName: database.name,
    servers,
    readings,
    interruptions,
    excused: new Map(),
    texts,
    start,
    startMany: (count, given) => Promise.all(Array.from({ length: count }, () => start(given))),
    read: async (server, { rowId, input }, more = {}) => {
      const reading = await readOnce(callers, server, { rowId, input: { ...input, ...more } });
      readings.push(reading);
      return reading;
    },
    freeze: (server) => {
      server.isFrozen = true;
      interruptions.push(Date.now());
      server.process.signal('SIGSTOP');
    },
    thaw: (server) => {
      server.process.signal('SIGCONT');
      server.isFrozen = false;
      interruptions.push(Date.now());
    },
    end: async (server, signal) => {
      server.process.signal(signal);
      await server.process.exited;
    },
    live,
    close: async () => {
      await Promise.all(
        servers.map(async ({ process }) => {
          process.signal('SIGKILL');
          await process.exited;
        }),
      );
      await callers.destroy();
      await front.close();
      await sandbox.close();
      await db.close();
      await dropDatabase(options.clusterUrl, database.name);
      await rm(folder, { recursive: true, force: true });
    },
  };
  return stage;
}

function serverOf(parts: {
  process: ServerProcess;
  dataDir: string;
  db: Database;
  sandbox: Sandbox;
  callers: Agent;
  texts: string[];
}): Server {
  const { process, dataDir, db, sandbox, callers, texts } = parts;
  const server: Server = {
    process,
    dataDir,
    isFrozen: false,
    url: '',
    adminKey: ADMIN_KEY,
    sandbox,
    db,
    logs: [],
    graphql: async (query, variables) => {
      const answer = await postOperation(callers, server, { query, variables });
      if (!query.includes('accessToken')) texts.push(answer.text);
      return answer;
    },
    data: async (query, variables) => {
      const { data, errors } = await server.graphql(query, variables);
      if (errors !== undefined) throw new Error(`Answered with errors: ${JSON.stringify(errors)}`);
      return data;
    },
    close: async () => {
      process.signal('SIGTERM');
      await process.exited;
    },
  };
  return server;
}

/** Waits until the process has met the point where it ends or freezes. */
export const endedByItself = (server: Server): Promise<void> =>
  waitUntil('the process has ended itself', () => !server.process.isRunning());

/** Waits until the process has met the point where it freezes, and takes note of that. */
export async function frozenByItself(stage: Pick<Stage, 'interruptions'>, server: Server): Promise<void> {
  await waitUntil('the process has frozen itself', () => isStopped(server.process));
  server.isFrozen = true;
  stage.interruptions.push(Date.now());
}
