// npm run conformance: runs the outside suites and writes what came of them to docs/CONFORMANCE.md.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { root, run } from './run.mjs';

const REPORT = join(root, '.reports/conformance.json');
const PAGE = join(root, 'docs/CONFORMANCE.md');

/** Where each suite runs: the package it comes from, if it is one, its test file and the tests in it. */
const SUITES = [
  {
    name: 'GraphQL over HTTP, audits of `graphql-http`, in development',
    package: 'graphql-http',
    file: 'http.test.ts',
    tests: /^all 61 audits/,
  },
  {
    name: 'GraphQL over HTTP, audits of `graphql-http`, in production with a key that may read the schema',
    package: 'graphql-http',
    file: 'introspection.test.ts',
    tests: /all 61 audits/,
  },
  {
    name: "GraphQL Cop's twelve probes, done again, in production with a frontend session",
    file: 'introspection.test.ts',
    tests: /^the probe for /,
  },
  {
    name: 'Consent trips against `oidc-provider`, a certified OpenID Connect server',
    package: 'oidc-provider',
    file: 'certified-connect.test.ts',
  },
  {
    name: 'Refreshes against `oidc-provider`, with its rotation and reuse detection',
    package: 'oidc-provider',
    file: 'certified-refresh.test.ts',
  },
  { name: "Webhooks verified by Zoom's own `@zoom/rivet`", package: '@zoom/rivet', file: 'rivet.test.ts' },
  { name: 'Answers of the vault to published test vectors', file: 'vault-known-answers.test.ts' },
  {
    name: "All 15 750 of NIST's AES-256-GCM cases, RFC 4231 and RFC 5869, by the vault's own functions",
    file: 'vault-vectors.test.ts',
  },
  { name: 'The clients `@urql/core` and `@apollo/client`', package: '@urql/core', file: 'frontend-clients.test.ts' },
];

const files = [...new Set(SUITES.map(({ file }) => `test/${file}`))].join(' ');
await run(
  `vitest run --config test/vitest.config.ts --reporter=default --reporter=json --outputFile.json=${REPORT} ${files}`,
  {
    inherit: true,
  },
);
const { testResults } = JSON.parse(await readFile(REPORT, 'utf8'));

async function versionOf(name) {
  if (name === undefined) return '';
  return JSON.parse(await readFile(join(root, 'node_modules', name, 'package.json'), 'utf8')).version;
}

const rows = [];
let failed = 0;
for (const { name, package: source, file, tests = /^/ } of SUITES) {
  const results = testResults
    .filter((result) => result.name.endsWith(`/${file}`))
    .flatMap(({ assertionResults }) => assertionResults)
    .filter(({ title }) => tests.test(title));
  const passed = results.filter(({ status }) => status === 'passed').length;
  failed += results.length === 0 ? 1 : results.length - passed;
  rows.push(`| ${name} | ${await versionOf(source)} | \`test/${file}\` | ${passed} of ${results.length} |`);
}

await writeFile(
  PAGE,
  `# Conformance

Suites and peers that others made, and what came of them. Written by \`npm run conformance\`; each is also part of
\`npm test\`.

| Suite | Version | Runs in | Tests that pass |
| --- | --- | --- | --- |
${rows.join('\n')}

A test of the audits holds all 61 of them, and passes when each is \`ok\`. GraphQL Cop reports any query by GET as a
weakness; here one needs an \`Authorization\` header, which no link and no form can send, so its probe is done without one.
`,
);
await run(`prettier --write --log-level warn ${PAGE}`);
if (failed > 0) process.exitCode = 1;
