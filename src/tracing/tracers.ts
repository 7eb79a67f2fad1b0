import type { Database } from '../database/database.js';
import type { HealthEventStream } from '../feed/event-stream.js';
import type { Authenticate } from '../http/authenticate.js';
import type { Log } from '../log.js';
import type { Job } from '../scheduler/scheduler.js';
import type { Spool } from '../spool/spool.js';

/** Puts a part of the server into one that is traced and otherwise does the same. */
export interface Tracers {
  /** Lines say which trace they belong to. */
  log(log: Log): Log;
  database(database: Database): Database;
  spool(spool: Spool): Spool;
  healthEvents(stream: HealthEventStream): HealthEventStream;
  /** Who has a server key may continue a trace; nobody else may choose its ids, or whether it is sampled. */
  authenticate(authenticate: Authenticate): Authenticate;
  jobs(jobs: readonly Job[]): readonly Job[];
}

export interface Tracing extends Tracers {
  /** Traces no more, and sends what is left, as far as the collector takes it in two seconds. Never rejects. */
  close(): Promise<void>;
}

const same = <T>(part: T): T => part;

/** For a server that nobody traces: everything stays as it is. */
export const NOT_TRACED: Tracing = {
  log: same,
  database: same,
  spool: same,
  healthEvents: same,
  authenticate: same,
  jobs: same,
  close: async () => undefined,
};
