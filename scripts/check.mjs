// npm run check: everything that must hold before a change lands. Stops at the first step that fails.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, seconds } from './run.mjs';

const STEPS = [
  'generate',
  'schema:check',
  'schema:breaking',
  'format:check',
  'lint',
  'typecheck',
  'migrations:check',
  'test:run',
];

const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));

for (const name of STEPS) {
  const start = performance.now();
  const inherit = name === 'test:run';
  process.stdout.write(inherit ? '' : `check: ${name} ... `);
  const { ok, output } = await run(scripts[name], { inherit });
  process.stdout.write(`${inherit ? `check: ${name} ... ` : ''}${ok ? '' : 'FAILED after '}${seconds(start)}\n`);
  if (!ok) {
    process.stdout.write(output);
    process.exit(1);
  }
}
