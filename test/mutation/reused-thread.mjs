import { ThreadsPoolWorker } from 'vitest/node';

const NAME = 'reused-thread';
/** What a thread leaves behind of each run adds up. */
const RUNS_PER_THREAD = 25;

let kept = null;
let runs = 0;

/**
 * A thread that stays for the next run: starting one for each mutant, and loading everything anew, takes longer than its
 * tests. Mutants of what is made when a module is loaded get a thread of their own.
 */
class ReusedThread extends ThreadsPoolWorker {
  name = NAME;
  #isStatic;
  #listeners = [];

  constructor(options) {
    super(options);
    this.#isStatic = options.project.getProvidedContext().mutantActivation === 'static';
  }

  async start() {
    if (kept !== null && (this.#isStatic || runs >= RUNS_PER_THREAD)) {
      await kept.terminate();
      kept = null;
    }
    this._thread = kept ?? undefined;
    if (kept === null) {
      await super.start();
      runs = 0;
    }
    runs += 1;
    kept = this._thread;
    kept.setMaxListeners(0);
  }

  on(event, listener) {
    this.#listeners.push([event, listener]);
    super.on(event, listener);
  }

  send(message) {
    if (message.type !== 'stop') return super.send(message);
    const { thread } = this;
    setImmediate(() => thread.emit('message', { type: 'stopped', __vitest_worker_response__: true }));
  }

  async stop() {
    for (const [event, listener] of this.#listeners) this.thread.off(event, listener);
    if (!this.#isStatic) return;
    kept = null;
    await super.stop();
  }
}

/** Puts the thread in the place of those that Stryker asks for. */
export const reusedThread = {
  name: NAME,
  configureVitest({ project }) {
    project.config.pool = NAME;
    project.config.poolRunner = { name: NAME, createPoolWorker: (options) => new ReusedThread(options) };
  },
};
