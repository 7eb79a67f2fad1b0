/**
 * The files of the vault, each with those tests that have something to say about it: they run for every mutant, so that
 * each group has its own, in the order in which they find most in the least time. Names are those of `src/vault` and `test`,
 * without what they end with. `database`: the tests open one. `ownProcess`: they need a process, and modules that are loaded
 * anew for each file. `timeoutMs`: a test that still waits then has found a mutant.
 */
export const GROUPS = {
  envelope: {
    files: ['aead', 'envelope', 'fields', 'hmac'],
    tests: ['vault-envelope', 'vault-memory', 'sealed-before'],
    database: true,
  },
  'root-key': { files: ['errors', 'root-key', 'wrapped-key'], tests: ['vault-root-key', 'vault-memory'] },
  'root-key-file': { files: ['root-key-file'], tests: ['root-key-file'] },
  providers: { files: ['deadline', 'root-key-set', 'root-key-watch'], tests: ['root-key-watch'], timeoutMs: 5_000 },
  'key-cache': { files: ['key-cache'], tests: ['key-cache'], timeoutMs: 10_000 },
  keyring: {
    files: ['keyring', 'root-key-check', 'root-key-rotation', 'vault'],
    tests: ['vault-provider', 'vault-keys', 'root-key-rotation'],
    database: true,
  },
  kms: { files: ['root-key-aws-kms'], tests: ['root-key-aws-kms'] },
  pkcs11: {
    files: ['pkcs11-module', 'pkcs11-token', 'root-key-pkcs11'],
    tests: ['pkcs11-library', 'root-key-providers', 'root-key-pkcs11'],
    ownProcess: true,
    timeoutMs: 15_000,
  },
};

/** The group that this run is about, by the environment. */
export function group() {
  // oxlint-disable-next-line node/no-process-env -- Stryker hands its children nothing else.
  const name = process.env['MUTATION_GROUP'] ?? '';
  if (!Object.hasOwn(GROUPS, name)) throw new Error(`MUTATION_GROUP is one of ${Object.keys(GROUPS).join(', ')}`);
  return { name, ...GROUPS[name] };
}
