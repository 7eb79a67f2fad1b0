// npm run chaos: breaks three real processes and a real PostgreSQL in known ways, and compares what comes of it with
// what must come of it. `npm run chaos -- X-03 X-04` runs those alone, as CHAOS_ONLY=X-03,X-04 does. CHAOS_SEED and
// CHAOS_ROUNDS change what is random; the last counts the random kills, and everything else that is repeated grows with
// it.
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startCluster } from '../support/postgres-cluster.js';
import { EXPERIMENTS } from './experiments.js';
import { markdown, tableRow, type Result } from './report.js';
import { runExperiment } from './run.js';

const DEFAULT_SEED = 20_261_126;
const STANDARD_ROUNDS = 20;

const seed = Number(process.env['CHAOS_SEED'] ?? DEFAULT_SEED);
const rounds = Number(process.env['CHAOS_ROUNDS'] ?? STANDARD_ROUNDS);
const scale = rounds / STANDARD_ROUNDS;
const only = [...process.argv.slice(2), ...(process.env['CHAOS_ONLY'] ?? '').split(',')].filter((id) => id !== '');
const chosen = EXPERIMENTS.filter(({ id }) => only.length === 0 || only.includes(id));

const folder = await mkdtemp(join(tmpdir(), 'latchkey-chaos-cluster-'));
const startedAt = performance.now();
const cluster = await startCluster(folder);
const results: Result[] = [];
try {
  for (const experiment of chosen) {
    const result = await runExperiment(experiment, { cluster, seed, scale });
    results.push(result);
    process.stdout.write(`${tableRow(result)}\n`);
    if (result.problems.length > 0) await keepOutputs(result, results.length);
  }
} finally {
  await cluster.stop();
  await rm(folder, { recursive: true, force: true });
}

/** What the servers of a failed experiment wrote, for whoever looks for the cause. */
async function keepOutputs({ id, outputs }: Result, place: number): Promise<void> {
  const folder = new URL('../../.reports/chaos/', import.meta.url);
  await mkdir(folder, { recursive: true });
  await writeFile(new URL(`${place}-${id}.log`, folder), outputs.join('\n=== next process\n'));
}

const seconds = (performance.now() - startedAt) / 1_000;
const failed = results.filter(({ problems }) => problems.length > 0).length;
process.stdout.write(`chaos: ${results.length} run, ${failed} failed, ${seconds.toFixed(0)} s, seed ${seed}\n`);
if (only.length === 0) {
  await writeFile(new URL('../../docs/chaos.md', import.meta.url), markdown(results, { seed, rounds, seconds }));
}
process.exit(failed > 0 || results.length === 0 ? 1 : 0);
