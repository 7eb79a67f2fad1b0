// Prints `N passed, N failed` from vitest's report. Its argument is the exit code of the whole check: when that failed
// though no test did, the check itself counts as one failure, and so does a run without tests.
import { readFileSync } from 'node:fs';

const REPORT = new URL('../.reports/vitest.json', import.meta.url);

function readReport() {
  try {
    return JSON.parse(readFileSync(REPORT, 'utf8'));
  } catch {
    return { numPassedTests: 0, numFailedTests: 0, testResults: [] };
  }
}

const { numPassedTests: passed, numFailedTests, testResults } = readReport();
const neverRan = ({ status, assertionResults }) =>
  status === 'failed' && !assertionResults.some((result) => result.status === 'failed');
let failed = numFailedTests + testResults.filter(neverRan).length;
if (failed === 0 && (passed === 0 || process.argv[2] !== '0')) failed = 1;
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
