import { answers } from './answers.js';
import { clocks } from './clocks.js';
import { deployments } from './deployments.js';
import { disks } from './disks.js';
import { endings } from './endings.js';
import type { Experiment } from './experiment.js';
import { floods } from './floods.js';
import { idleStreams } from './idle-streams.js';
import { keys } from './keys.js';
import { killing } from './kill.js';
import { masses } from './mass.js';
import { memories } from './memory.js';
import { networks } from './network.js';
import { outages } from './outages.js';
import { pauses } from './pauses.js';
import { refusals } from './refusals.js';
import { singleFlight } from './single-flight.js';
import { storms } from './storms.js';
import { throttling } from './throttling.js';
import { wires } from './wires.js';

const GROUPS = [
  singleFlight,
  killing,
  storms,
  pauses,
  outages,
  wires,
  floods,
  throttling,
  answers,
  refusals,
  networks,
  keys,
  endings,
  masses,
  clocks,
  memories,
  disks,
  idleStreams,
  deployments,
];

/** Everything that is run, in the order of the table. */
export const EXPERIMENTS: readonly Experiment[] = GROUPS.flat();
