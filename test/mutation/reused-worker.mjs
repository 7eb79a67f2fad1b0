import { ForksPoolWorker, ThreadsPoolWorker } from 'vitest/node';

const NAME = 'reused-worker';
/** What a thread or process leaves behind of each run adds up. */
const RUNS_PER_WORKER = 25;

let kept = null;
let runs = 0;

process.once('exit', () => kept?.kill?.());

/**
 * A worker that stays for the next run: starting one for each mutant, and loading everything anew, takes longer than its
 * tests. Mutants of what is made when a module is loaded get a worker of their own.
 *
 * @param field where `Base` has its thread or process.
 */
const reusing = (Base, field) =>
  class ReusedWorker extends Base {
    name = NAME;
    #isStatic;
    #listeners = [];

    constructor(options) {
      super(options);
      this.#isStatic = options.project.getProvidedContext().mutantActivation === 'static';
    }

    async start() {
      if (kept !== null && (this.#isStatic || runs >= RUNS_PER_WORKER)) {
        this[field] = kept;
        kept = null;
        await super.stop();
      }
      this[field] = kept ?? undefined;
      if (kept === null) {
        await super.start();
        const started = this[field];
        // A mutant can bring a process down; the next run gets another.
        started.once('exit', () => void (kept === started && (kept = null)));
        started.setMaxListeners(0);
        kept = started;
        runs = 0;
      }
      runs += 1;
    }

    on(event, listener) {
      this.#listeners.push([event, listener]);
      super.on(event, listener);
    }

    send(message) {
      if (message.type !== 'stop') return super.send(message);
      const worker = this[field];
      setImmediate(() => worker.emit('message', { type: 'stopped', __vitest_worker_response__: true }));
    }

    async stop() {
      for (const [event, listener] of this.#listeners) this[field].off(event, listener);
      if (!this.#isStatic) return;
      kept = null;
      await super.stop();
    }
  };

const KINDS = { process: reusing(ForksPoolWorker, '_fork'), thread: reusing(ThreadsPoolWorker, '_thread') };

/**
 * Puts such a worker in the place of those that Stryker asks for.
 *
 * @param kind `process`: for libraries that read the environment of the process, which a thread has only a copy of.
 */
export const reusedWorker = (kind) => ({
  name: NAME,
  configureVitest({ project }) {
    project.config.pool = NAME;
    project.config.poolRunner = { name: NAME, createPoolWorker: (options) => new KINDS[kind](options) };
  },
});
