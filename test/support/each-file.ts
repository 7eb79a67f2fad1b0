// Runs before each test file: modules of test/support are loaded once for many.
import { afterAll } from 'vitest';
import { killServers } from './process.js';

afterAll(killServers);
