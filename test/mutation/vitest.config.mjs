import { createRequire } from 'node:module';
import { defineConfig } from 'vitest/config';
import { BaseSequencer } from 'vitest/node';
import { group } from './groups.mjs';
import { reusedWorker } from './reused-worker.mjs';

const root = new URL('../..', import.meta.url).pathname;
const alias = [{ find: /^graphql$/, replacement: createRequire(import.meta.url).resolve('graphql') }];
const { tests, database = false, ownProcess = false, timeoutMs = 20_000 } = group();
const files = tests.map((name) => `test/${name}.test.ts`);

/** The files in the order of the group: those that find most in the least time come first. */
class InOrder extends BaseSequencer {
  async sort(specifications) {
    const place = ({ moduleId }) => files.findIndex((file) => moduleId.endsWith(`/${file}`));
    return specifications.toSorted((one, other) => place(one) - place(other));
  }
}

/** What finds the mutants of one group. */
export default defineConfig({
  root,
  resolve: { alias },
  plugins: [reusedWorker(ownProcess ? 'process' : 'thread')],
  test: {
    maxWorkers: 1,
    // A library that a module holds is to be begun anew with it.
    isolate: ownProcess,
    testTimeout: timeoutMs,
    hookTimeout: 60_000,
    sequence: { hooks: 'stack', sequencer: InOrder },
    include: files,
    setupFiles: ['test/mutation/no-mutant.mjs'],
    // A copy of a template on a server takes less time than to start an embedded database for each mutant.
    ...(database ? { globalSetup: 'test/support/setup.ts', env: { LATCHKEY_TEST_DATABASE: 'postgres' } } : {}),
  },
});
