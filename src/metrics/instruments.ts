import { holdBack } from '../diagnostics.js';
import type { Database } from '../database/database.js';
import type { HealthEventStream } from '../feed/event-stream.js';
import type { Feed } from '../feed/feed.js';
import type { Log } from '../log.js';
import type { Job } from '../scheduler/scheduler.js';
import type { Keep, Spool } from '../spool/spool.js';
import { VaultOpenError, VaultUnavailableError } from '../vault/errors.js';
import type { RootKeyProvider } from '../vault/root-key.js';
import type { VerifiableVault } from '../vault/vault.js';
import { ZoomError, ZoomUnavailableError } from '../zoom/errors.js';
import type { Zoom } from '../zoom/zoom.js';
import type { Meters } from './meters.js';

/** Puts a part of the server into one that counts and otherwise does the same. */
export interface Instruments {
  log(log: Log): Log;
  database(database: Database): Database;
  rootKeys(rootKeys: RootKeyProvider): RootKeyProvider;
  vault(vault: VerifiableVault): VerifiableVault;
  zoom<Z extends Zoom>(zoom: Z): Z;
  spool(spool: Spool): Spool;
  feed(feed: Feed): Feed;
  healthEvents(stream: HealthEventStream): HealthEventStream;
  jobs(jobs: readonly Job[]): readonly Job[];
}

const same = <T>(part: T): T => part;

/** For a server that nobody watches: everything stays as it is. */
export const NO_INSTRUMENTS: Instruments = {
  log: same,
  database: same,
  rootKeys: same,
  vault: same,
  zoom: same,
  spool: same,
  feed: same,
  healthEvents: same,
  jobs: same,
};

export function createInstruments(meters: Meters): Instruments {
  return {
    log: (log) => ({
      ...log,
      warn: (...line) => {
        meters.logLines.inc({ level: 'warn' });
        log.warn(...line);
      },
      error: (...line) => {
        meters.logLines.inc({ level: 'error' });
        log.error(...line);
      },
    }),
    database: tellingDatabase,
    rootKeys: (rootKeys) => {
      const count = (operation: string) => (outcome: string, seconds: number) => {
        meters.rootKeyOperations.inc({ operation, outcome });
        meters.rootKeySeconds.observe({ operation }, seconds);
      };
      return {
        ...rootKeys,
        wrap: measured(rootKeys.wrap, count('wrap'), vaultOutcome),
        unwrap: measured(rootKeys.unwrap, count('unwrap'), vaultOutcome),
        health: measured(rootKeys.health, count('health'), vaultOutcome),
      };
    },
    vault: (vault) => {
      const count = (operation: string) => (outcome: string) => meters.vaultOperations.inc({ operation, outcome });
      return {
        ...vault,
        open: measured(vault.open, count('open'), vaultOutcome),
        seal: measured(vault.seal, count('seal'), vaultOutcome),
        sealer: measured(vault.sealer, count('sealer'), vaultOutcome),
      };
    },
    zoom: (zoom) => {
      const observe = (operation: string) => (outcome: string, seconds: number) => {
        meters.providerRequests.inc({ operation, outcome });
        meters.providerSeconds.observe({ operation }, seconds);
      };
      const { authorizationUrl: _pure, meetings, ...calls } = zoom;
      const measuredCalls = measureAll(calls, ['close'], observe);
      return { ...zoom, ...measuredCalls, meetings: measureAll(meetings, [], observe) };
    },
    spool: (spool) => instrumentSpool(spool, meters),
    feed: (feed) => ({
      ...feed,
      wakeUps: (topic, signal) => {
        const inner = feed.wakeUps(topic, signal);
        // Health events have one reader for all who listen; they are counted where they subscribe.
        return topic.startsWith('authorization:')
          ? counted(inner, meters, 'authorization_session', () => undefined)
          : inner;
      },
    }),
    healthEvents: (stream) => ({
      ...stream,
      subscribe: (options) =>
        counted(stream.subscribe(options), meters, 'health_events', () => meters.eventsDelivered.inc()),
    }),
    jobs: (jobs) => jobs.map((job) => instrumentJob(job, meters)),
  };
}

const tellingDatabase = (database: Database): Database => ({
  ...database,
  transaction: (run) => tellingTransaction(database, run),
  tenant: (tenantId) => {
    const view = database.tenant(tenantId);
    return { ...view, transaction: (run) => tellingTransaction(view, run) };
  },
  shareOf: (holder) => tellingDatabase(database.shareOf(holder)),
});

/** What is told of a transaction is told after its commit, and not at all where there is none. */
async function tellingTransaction<T>(
  database: Pick<Database, 'transaction'>,
  run: Parameters<typeof database.transaction<T>>[0],
) {
  let release = () => undefined as void;
  const result = await database.transaction((tx) => {
    // A repeated run begins anew.
    release = holdBack(tx);
    return run(tx);
  });
  release();
  return result;
}

type Call<A extends unknown[], R> = (...args: A) => Promise<R>;

function measured<A extends unknown[], R>(
  call: Call<A, R>,
  count: (outcome: string, seconds: number) => void,
  outcomeOf: (error: unknown) => string,
): Call<A, R> {
  return async (...args) => {
    const sinceMs = performance.now();
    let outcome = 'ok';
    try {
      return await call(...args);
    } catch (error) {
      outcome = outcomeOf(error);
      throw error;
    } finally {
      count(outcome, (performance.now() - sinceMs) / 1_000);
    }
  };
}

function measureAll<T extends object>(
  calls: T,
  but: readonly string[],
  observe: (operation: string) => (outcome: string, seconds: number) => void,
): T {
  const entries = Object.entries(calls as Record<string, Call<unknown[], unknown>>).map(([name, call]) => [
    name,
    but.includes(name) ? call : measured(call, observe(snakeCase(name)), zoomOutcome),
  ]);
  return Object.fromEntries(entries) as T;
}

const snakeCase = (name: string) => name.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);

function vaultOutcome(error: unknown): string {
  if (error instanceof VaultOpenError) return 'refused';
  return error instanceof VaultUnavailableError ? 'unavailable' : 'error';
}

/** `ZoomRateLimitedError` → `rate_limited`; what Zoom left unanswered is told from what it was not sent. */
function zoomOutcome(error: unknown): string {
  if (!(error instanceof ZoomError)) return 'error';
  if (error instanceof ZoomUnavailableError) return `unavailable_${error.stage.replace('-', '_')}`;
  return snakeCase(error.constructor.name.replace(/^Zoom/, '').replace(/Error$/, '')).slice(1);
}

function instrumentSpool(spool: Spool, meters: Meters): Spool {
  return {
    ...spool,
    prepare: async () => {
      const keep = await spool.prepare();
      const counting: Keep = async (entry) => {
        const end = meters.spoolSeconds.startTimer();
        const spooled = await keep(entry);
        end();
        meters.spoolWrites.inc({ result: spooled.isDurable ? 'disk' : 'memory' });
        return spooled;
      };
      return counting;
    },
    unsettled: async (options) => {
      const found = await spool.unsettled(options);
      meters.spoolFound.inc(found.length);
      return found;
    },
  };
}

/** Counts an iteration as being served from its first step to its end. */
async function* counted<T>(
  inner: AsyncGenerator<T, void, void>,
  meters: Meters,
  subscription: string,
  onEach: () => void,
): AsyncGenerator<T, void, void> {
  meters.subscribers.inc({ subscription });
  try {
    for await (const one of inner) {
      onEach();
      yield one;
    }
  } finally {
    meters.subscribers.dec({ subscription });
  }
}

function instrumentJob(job: Job, meters: Meters): Job {
  meters.jobs.inc({ task: job.name, result: 'failed' }, 0);
  return {
    ...job,
    run: async (signal) => {
      try {
        const more = await job.run(signal);
        meters.jobs.inc({ task: job.name, result: 'ok' });
        meters.jobSucceeded.set({ task: job.name }, Date.now() / 1_000);
        return more;
      } catch (error) {
        meters.jobs.inc({ task: job.name, result: 'failed' });
        throw error;
      }
    },
  };
}
