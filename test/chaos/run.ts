import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Cluster, startCluster } from '../support/postgres-cluster.js';
import type { Experiment, Observation } from './experiment.js';
import { brokenInvariants } from './invariants.js';
import { createRandom } from './random.js';
import type { Result } from './report.js';
import { openStage, type Stage } from './stage.js';

/**
 * Runs one experiment, heals every stage it opened and checks its history, and takes everything down. Whatever is thrown
 * counts as a problem.
 */
export async function runExperiment(
  experiment: Experiment,
  { cluster, seed, scale }: { cluster: Cluster; seed: number; scale: number },
): Promise<Result> {
  const startedAt = performance.now();
  const stages: Stage[] = [];
  const leftovers: (() => Promise<unknown>)[] = [];
  const { id, injected, expected } = experiment;
  let observation: Observation = { observed: 'nothing', problems: [] };
  try {
    observation = await experiment.run({
      cluster,
      openCluster: async (options) => {
        const folder = await mkdtemp(join(tmpdir(), 'latchkey-chaos-cluster-'));
        const own = await startCluster(folder, options);
        leftovers.push(() => own.stop().then(() => rm(folder, { recursive: true, force: true })));
        return own;
      },
      openStage: async (options = {}) => {
        const stage = await openStage({ clusterUrl: cluster.url, ...options });
        stages.push(stage);
        return stage;
      },
      random: createRandom(seed, `${id} ${injected}`),
      scale,
    });
    for (const stage of stages) observation.problems.push(...(await brokenInvariants(stage)));
  } catch (error) {
    observation.problems.push(error instanceof Error ? error.message : 'unknown failure');
    observation.problems.push(
      ...stages.flatMap(({ servers }) => servers.flatMap(({ process }) => process.crash() ?? [])),
    );
  }
  const errors = stages.flatMap(({ servers }) => servers).map(({ process }) => process.output());
  for (const stage of stages) await stage.close().catch((error: Error) => observation.problems.push(error.message));
  for (const leave of leftovers) await leave().catch((error: Error) => observation.problems.push(error.message));
  const seconds = (performance.now() - startedAt) / 1_000;
  return { id, injected, expected, ...observation, seconds, outputs: errors };
}
