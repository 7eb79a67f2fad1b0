// npm run chaos:interleavings: the refresh machine in ten thousand orders of its steps, instead of the hundred of the
// tests. INTERLEAVINGS and INTERLEAVING_SEED change how many and which.
import { spawnSync } from 'node:child_process';

const { status } = spawnSync(
  'npx',
  ['vitest', 'run', '--config', 'test/vitest.config.ts', 'test/refresh-interleaving.test.ts'],
  {
    stdio: 'inherit',
    env: { INTERLEAVINGS: '10000', ...process.env },
  },
);
process.exit(status ?? 1);
