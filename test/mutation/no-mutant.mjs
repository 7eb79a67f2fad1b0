// Runs before each test file, after what Stryker runs there: the mutant of the run before is still in the thread, and would be
// in what a file makes while its tests are collected.
import { inject } from 'vitest';

const stryker = globalThis[inject('globalNamespace')];
if (inject('mutantActivation') !== 'static') stryker.activeMutant = undefined;
