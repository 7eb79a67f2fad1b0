// Runs before each test file: modules of test/support are loaded once for many. It loads little itself, which files that
// need no server would wait for.
import { afterAll } from 'vitest';
import { endChildren } from './child.js';

afterAll(endChildren);
