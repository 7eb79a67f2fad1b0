// npm run check: everything that must hold before a change lands. Stops after the first stage in which a step fails.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, seconds } from './run.mjs';

/** What only reads goes two at a time, the longest first. */
const STAGES = [
  ['generate'],
  ['format:check', 'lint', 'typecheck', 'migrations:check', 'schema:check', 'schema:breaking'],
  ['test:run'],
];
const AT_ONCE = 2;

const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
let failed = false;

async function check(name) {
  const start = performance.now();
  const inherit = name === 'test:run';
  const { ok, output } = await run(scripts[name], { inherit });
  process.stdout.write(`check: ${name} ... ${ok ? '' : 'FAILED after '}${seconds(start)}\n${ok ? '' : output}`);
  failed ||= !ok;
}

for (const stage of STAGES) {
  const waiting = [...stage];
  const work = async () => {
    for (let name = waiting.shift(); name !== undefined && !failed; name = waiting.shift()) await check(name);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (failed) process.exit(1);
}
