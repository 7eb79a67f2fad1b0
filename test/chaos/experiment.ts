import type { Cluster } from '../support/postgres-cluster.js';
import type { Random } from './random.js';
import type { Stage, StageOptions } from './stage.js';

/** What came of an experiment. It is as expected where there are no problems. */
export interface Observation {
  observed: string;
  problems: string[];
}

/** What an experiment is given. */
export interface World {
  /** The PostgreSQL server that all stages have their databases on. */
  cluster: Cluster;
  /** Starts another PostgreSQL server, for an experiment that breaks it. It ends with the experiment. */
  openCluster(options?: { env?: Record<string, string> }): Promise<Cluster>;
  /** A database, a Zoom and servers of its own. Afterwards it is healed and its history checked. */
  openStage(options?: StageOptions): Promise<Stage>;
  random: Random;
  /** Scales what is repeated: 1 for the standard run. */
  scale: number;
}

export interface Experiment {
  id: string;
  injected: string;
  expected: string;
  run(world: World): Promise<Observation>;
}

/** Gathers what is not as expected, so that one experiment tells all of it. */
export interface Check {
  that(holds: boolean, otherwise: string): void;
  equal(what: string, actual: unknown, expected: unknown): void;
  done(observed: string): Observation;
}

export function createCheck(): Check {
  const problems: string[] = [];
  const that = (holds: boolean, otherwise: string): void => {
    if (!holds) problems.push(otherwise);
  };
  return {
    that,
    equal: (what, actual, expected) => {
      const [is, should] = [JSON.stringify(actual), JSON.stringify(expected)];
      that(is === should, `${what}: ${is} instead of ${should}`);
    },
    done: (observed) => ({ observed, problems }),
  };
}
