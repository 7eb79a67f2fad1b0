import { group } from './groups.mjs';

const { name, files } = group();

/** Run by `npm run test:mutation`, once for each group. */
export default {
  testRunner: 'vitest',
  vitest: { configFile: 'test/mutation/vitest.config.mjs', related: false },
  mutate: files.map((file) => `src/vault/${file}.ts`),
  concurrency: 1,
  coverageAnalysis: 'perTest',
  ignoreStatic: true,
  tempDirName: '.reports/stryker',
  cleanTempDir: 'always',
  tsconfigFile: 'none',
  ignorePatterns: ['dist', '.reports', '.latchkey', 'docs', 'test/bench', 'test/chaos'],
  reporters: ['clear-text', 'json', 'progress-append-only'],
  jsonReporter: { fileName: `.reports/mutation/${name}.json` },
  // A busy machine must not be taken for a mutant that never ends.
  timeoutMS: 120_000,
  clearTextReporter: { reportTests: false, allowColor: false, logTests: false },
  thresholds: { high: 95, low: 95, break: 95 },
  allowConsoleColors: false,
};
