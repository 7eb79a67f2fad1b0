import { createRequire } from 'node:module';
import { defineConfig } from 'vitest/config';

const inCi = process.env['CI'] === 'true';
const nameOf = (name: string) => `test/${name}.test.ts`;

/**
 * Tests that open no database, or for which it has to be the embedded one: once is enough. What may have either kind is not
 * here: a copy of the template on a server takes a tenth of the time to open, so CI runs it there.
 */
const onceEnough = [
  'breaking-changes',
  'broadcast',
  'config',
  'deployment',
  'embedded-clone',
  'folder-lock',
  'health',
  'health-facts',
  'key-cache',
  'log',
  'operations',
  'outgoing-address',
  'process',
  'provider-guard',
  'refresh-interleaving',
  'rivet',
  'root-key-aws-kms',
  'root-key-file',
  'root-key-watch',
  'sandbox',
  'sandbox-meetings',
  'schema',
  'scope-catalogue',
  'vault-envelope',
  'vault-known-answers',
  'vault-root-key',
  'vault-vectors',
  'watching',
  'zoom-*',
].map(nameOf);

/** What stands for all the rest on the embedded database, where CI runs that on a server. */
const onBoth = [
  'audit-verification',
  'authorization',
  'credential',
  'database',
  'feed',
  'lists',
  'replay',
  'row-level-security',
  'shutdown',
  'spool',
  'story',
  'subscription',
  'tenancy',
  'tenant',
  'tenant-deletion',
  'tenant-references',
].map(nameOf);

// graphql ships an ES and a CommonJS build without an exports map: sources and dependencies must get the same one.
const alias = [{ find: /^graphql$/, replacement: createRequire(import.meta.url).resolve('graphql') }];
/**
 * A native library is begun anew by each of these, and so must be the module that holds it; a small memory is soon
 * searched.
 */
const alone = ['pkcs11-library', 'root-key-move', 'root-key-pkcs11', 'root-key-providers', 'vault-memory'].map(nameOf);

const root = new URL('..', import.meta.url).pathname;
const shared = {
  testTimeout: 20_000,
  hookTimeout: 60_000,
  // The modules that files share are loaded once for each of the two workers.
  isolate: false,
  setupFiles: ['test/support/each-file.ts'],
  sequence: { hooks: 'stack' as const },
};

/**
 * `embedded` runs what needs one process on the embedded database, in CI what stands for it; `postgres` runs, on a real
 * server, whatever races or needs several processes (`test/postgres/`), and in CI everything.
 */
export default defineConfig({
  root,
  resolve: { alias },
  test: {
    globalSetup: 'test/support/setup.ts',
    maxWorkers: 2,
    // Said by oidc-provider on Node 20, where everything that is used of it works.
    onConsoleLog: (text) => !text.includes('oidc-provider WARNING: Unsupported runtime'),
    projects: [
      {
        root,
        resolve: { alias },
        test: {
          ...shared,
          name: 'embedded',
          include: inCi ? [...onceEnough, ...onBoth] : ['test/*.test.ts'],
          exclude: alone,
          env: { LATCHKEY_TEST_DATABASE: 'embedded' },
        },
      },
      {
        root,
        resolve: { alias },
        test: {
          ...shared,
          name: 'alone',
          isolate: true,
          include: alone,
          env: { LATCHKEY_TEST_DATABASE: 'embedded' },
        },
      },
      {
        root,
        resolve: { alias },
        test: {
          ...shared,
          name: 'postgres',
          include: ['test/postgres/*.test.ts', ...(inCi ? ['test/*.test.ts'] : [])],
          exclude: [...onceEnough, ...alone],
          env: { LATCHKEY_TEST_DATABASE: 'postgres' },
        },
      },
    ],
  },
});
