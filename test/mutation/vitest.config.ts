import { createRequire } from 'node:module';
import { defineConfig } from 'vitest/config';

const root = new URL('../..', import.meta.url).pathname;
const alias = [{ find: /^graphql$/, replacement: createRequire(import.meta.url).resolve('graphql') }];

/** What finds mutants of the vault: the tests of it that open no database, since all of them run for each mutant. */
export default defineConfig({
  root,
  resolve: { alias },
  test: {
    maxWorkers: 1,
    testTimeout: 20_000,
    include: ['vault-envelope', 'vault-known-answers', 'vault-root-key', 'root-key-watch'].map(
      (name) => `test/${name}.test.ts`,
    ),
  },
});
