import { setMaxListeners } from 'node:events';
import type { Clock } from '../clock.js';
import type { Log } from '../log.js';

/** Something that is done again and again. */
export interface Job {
  name: string;
  /** Pause after a run that found nothing to do. */
  intervalMs: number;
  /** @returns whether there may be more to do at once. */
  run(signal: AbortSignal): Promise<boolean>;
}

export interface Scheduler {
  start(): void;
  /** Starts no further run; resolves when the running ones have ended. */
  stop(): Promise<void>;
}

/** Runs each job by itself until stopped. A run that fails is logged and followed by the next after the pause. */
export function createScheduler({ jobs, clock, log }: { jobs: readonly Job[]; clock: Clock; log: Log }): Scheduler {
  const stopping = new AbortController();
  // Each job waits on it; Node takes more than ten listeners for a leak.
  setMaxListeners(jobs.length + 1, stopping.signal);
  let loops: Promise<void>[] = [];

  async function loop(job: Job): Promise<void> {
    while (!stopping.signal.aborted) {
      let more = false;
      try {
        more = await job.run(stopping.signal);
      } catch (error) {
        log.error('a job failed', { job: job.name }, error);
      }
      if (!more) await clock.sleep(job.intervalMs, stopping.signal);
    }
  }

  return {
    start: () => {
      loops = jobs.map(loop);
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(loops);
    },
  };
}
