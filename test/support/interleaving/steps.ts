import type fc from 'fast-check';

/** One process of the model: what it does next waits for the scheduler, and it can be stopped at any of its steps. */
export interface Actor {
  readonly name: string;
  /** Killed: its steps never run again, and nobody hears of it. */
  dead: boolean;
  /** Stopped: its steps are put aside until it is resumed. */
  paused: boolean;
  /** The leases it took, as the history saw them. */
  readonly leases: { fence: number; life: number; at: number; refreshToken: string }[];
  /** Runs `run` when the scheduler says so; never, if the actor has died by then. */
  step<T>(label: string, run: () => Promise<T> | T): Promise<T>;
}

/** All steps of one run, in an order that `fc.scheduler()` decides. */
export interface Steps {
  createActor(name: string): Actor;
  /** A step of nobody: it happens whoever has died or is stopped. */
  step<T>(label: string, run: () => Promise<T> | T): Promise<T>;
  /** Steps that happen one after another, each anywhere among those of the others. */
  sequence(steps: readonly { label: string; run: () => unknown }[]): Promise<void>;
  resume(actor: Actor): void;
  /** Releases step after step until nothing is left to do; who is still stopped then goes on, as late as can be. */
  runAll(): Promise<void>;
  /** What happened, in order. */
  readonly trace: string[];
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
/** After a step its owner runs on to the next one; reads are gathered for one turn of the event loop. */
const TURNS_TO_SETTLE = 3;
/** Far above what any run needs: more says that somebody asks in circles. */
const MOST_STEPS = 3_000;

export function createSteps(scheduler: fc.Scheduler): Steps {
  const trace: string[] = [];
  const actors: Actor[] = [];
  const putAside = new Map<Actor, (() => void)[]>();

  function release<T>(label: string, run: () => Promise<T> | T, actor: Actor | null): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      const enter = () => {
        const builder = async () => {
          if (actor?.dead) return;
          if (actor?.paused) {
            putAside.set(actor, [...(putAside.get(actor) ?? []), enter]);
            return;
          }
          trace.push(label);
          try {
            resolve(await run());
          } catch (error) {
            reject(error as Error);
          }
        };
        // A sequence of one: unlike `schedule`, its work starts when it is released and is waited for.
        scheduler.scheduleSequence([{ label, builder }]);
      };
      enter();
    });
  }

  const resume = (actor: Actor) => {
    actor.paused = false;
    const entries = putAside.get(actor) ?? [];
    putAside.delete(actor);
    for (const enter of entries) enter();
  };

  return {
    trace,
    createActor: (name) => {
      const actor: Actor = {
        name,
        dead: false,
        paused: false,
        leases: [],
        step: (label, run) => release(`${name}: ${label}`, run, actor),
      };
      actors.push(actor);
      return actor;
    },
    step: (label, run) => release(label, run, null),
    sequence: async (steps) => {
      for (const { label, run } of steps) await release(label, run, null);
    },
    resume,
    runAll: async () => {
      for (let count = 0; ; count += 1) {
        for (let index = 0; index < TURNS_TO_SETTLE; index += 1) await turn();
        if (scheduler.count() === 0) {
          const stopped = actors.filter((actor) => actor.paused);
          if (stopped.length === 0) return;
          stopped.forEach(resume);
          continue;
        }
        if (count > MOST_STEPS) throw new Error(`Not at rest after ${MOST_STEPS} steps.`);
        await scheduler.waitNext(1);
      }
    },
  };
}
