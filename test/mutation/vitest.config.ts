import { createRequire } from 'node:module';
import { defineConfig } from 'vitest/config';

const root = new URL('../..', import.meta.url).pathname;
const alias = [{ find: /^graphql$/, replacement: createRequire(import.meta.url).resolve('graphql') }];

/** What shows a mutant of the vault: tests of it alone, on the embedded database. */
export default defineConfig({
  root,
  resolve: { alias },
  test: {
    globalSetup: 'test/support/setup.ts',
    maxWorkers: 1,
    testTimeout: 20_000,
    hookTimeout: 60_000,
    sequence: { hooks: 'stack' },
    include: ['test/vault-envelope.test.ts', 'test/vault-known-answers.test.ts', 'test/vault-root-key.test.ts'],
    env: { LATCHKEY_TEST_DATABASE: 'embedded' },
  },
});
