import type { Experiment } from './experiment.js';
import { singleFlight } from './single-flight.js';

/** Everything that is run, in the order of the table. */
export const EXPERIMENTS: readonly Experiment[] = [...singleFlight];
