import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { effort, timeFor } from './support/interleaving/effort.js';
import type { Sabotage } from './support/interleaving/process.js';
import { Violation } from './support/interleaving/history.js';
import { anyCalmRounds, anyPlan, MOST_WORKERS, runCalm, runPlan } from './support/interleaving/run.js';
import {
  commitsWithoutFence,
  countsAnew,
  endsWithoutFence,
  leasesForEver,
  leasesWhatIsFresh,
  leasesWhatIsLeased,
  readsFromLaggingCopy,
  storesNothingSpooled,
  writesNoEvents,
} from './support/interleaving/sabotage.js';
import { openModelWorld } from './support/interleaving/world.js';

const world = await openModelWorld(MOST_WORKERS + 1);

/** @param isTold which violations make a run fail. */
function inAnyOrder<Input>(
  input: fc.Arbitrary<Input>,
  run: (scheduler: fc.Scheduler, input: Input) => Promise<void>,
  isTold: (violation: Violation) => boolean = () => true,
) {
  return fc.asyncProperty(fc.scheduler(), input, async (scheduler, drawn) => {
    try {
      await run(scheduler, drawn);
    } catch (error) {
      if (!(error instanceof Violation) || isTold(error)) throw error;
    }
  });
}

describe('in whatever order the steps of several workers come', () => {
  test(
    'and whatever is lost, killed, stopped, ended or consented to meanwhile, no promise of a refresh is broken',
    () =>
      fc.assert(
        inAnyOrder(anyPlan, (scheduler, plan) => runPlan(world, scheduler, plan)),
        effort,
      ),
    timeFor(effort.numRuns),
  );

  test(
    'a token that runs out is refreshed exactly once while nothing fails',
    () =>
      fc.assert(
        inAnyOrder(anyCalmRounds, (scheduler, rounds) => runCalm(world, scheduler, rounds)),
        { ...effort, numRuns: Math.ceil(effort.numRuns / 5) },
      ),
    timeFor(effort.numRuns),
  );
});

/** From this seed each is found soon; the bound is many times what that takes. */
const TRY_TO_FIND = { numRuns: 200, seed: 1, endOnFailure: true };

describe('the model finds out a machine', () => {
  test.each<[string, string, Sabotage]>([
    ['that stores tokens under a lease that was taken over', 'I3', commitsWithoutFence],
    ['that hands out a lease while another runs', 'I1', leasesWhatIsLeased],
    ['that gives a version of a credential twice', 'I3', countsAnew],
    ['that cannot store what a spool has kept', 'I6', storesNothingSpooled],
    ['that never takes over a lease', 'I6', leasesForEver],
    ['that ends a grant for a token that has been replaced', 'I6', endsWithoutFence],
    ['that changes health without an event', 'I4', writesNoEvents],
    ['that reads from a copy which lags behind', 'I2', readsFromLaggingCopy],
  ])(
    '%s',
    async (_what, invariant, sabotage) => {
      const property = inAnyOrder(
        anyPlan,
        (scheduler, plan) => runPlan(world, scheduler, plan, sabotage),
        (violation) => violation.invariants.has(invariant),
      );
      expect(await fc.check(property, TRY_TO_FIND)).toMatchObject({
        failed: true,
        errorInstance: expect.any(Violation),
      });
    },
    timeFor(TRY_TO_FIND.numRuns),
  );

  test(
    'that refreshes what has just been refreshed',
    async () => {
      const property = inAnyOrder(anyCalmRounds, (scheduler, rounds) =>
        runCalm(world, scheduler, rounds, leasesWhatIsFresh),
      );
      expect(await fc.check(property, TRY_TO_FIND)).toMatchObject({
        failed: true,
        errorInstance: expect.any(Violation),
      });
    },
    timeFor(TRY_TO_FIND.numRuns),
  );
});
