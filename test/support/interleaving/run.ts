import fc from 'fast-check';
import { isLive } from '../../../src/domain/health.js';
import { ReauthorizationRequiredError } from '../../../src/errors.js';
import type { Knobs } from '../../../src/sandbox/knobs.js';
import { createHistory, judgeEvents, type History } from './history.js';
import {
  createProcess,
  LEASE_IS_OVER_SECONDS,
  SETTINGS,
  type Break,
  type Process,
  type Sabotage,
  type Surroundings,
} from './process.js';
import { createProvider, TOKEN_SECONDS, type Fate, type Provider } from './provider.js';
import { createSteps, type Steps } from './steps.js';
import type { ModelWorld } from './world.js';

export const MOST_WORKERS = 3;

const none: Sabotage = (statements) => statements;

type WorkerCommand = 'read' | 'refresh now' | 'refresh due' | 'check' | 'replay' | 'crash' | 'pause' | 'resume';

/** What happens from outside, in this order, while the workers are at it. */
export type Command =
  { kind: WorkerCommand; worker: number } | { kind: 'disconnect' | 'connect' | 'lease runs out' | 'token runs out' };

export interface Plan {
  workers: number;
  mode: Knobs['refreshMode'];
  commands: Command[];
  fates: Fate[];
  breaks: Break[];
}

const worker = fc.nat(MOST_WORKERS - 1);
const command = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant<WorkerCommand>('read'), worker }) },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom<WorkerCommand>('refresh now', 'refresh due', 'check', 'replay', 'crash', 'pause', 'resume'),
      worker,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constantFrom(
        'disconnect' as const,
        'connect' as const,
        'lease runs out' as const,
        'token runs out' as const,
      ),
    }),
  },
);

const fate = fc.oneof(
  { weight: 6, arbitrary: fc.constant<Fate>('answer') },
  { weight: 3, arbitrary: fc.constantFrom<Fate>('lost', 'timeout', 'unheard') },
  { weight: 2, arbitrary: fc.constantFrom<Fate>('not-sent', 'unavailable', 'rate-limited', 'invalid-client') },
);

const breakage = fc.oneof(
  { weight: 12, arbitrary: fc.constant<Break>('none') },
  { weight: 1, arbitrary: fc.constantFrom<Break>('before', 'after') },
);

/** Everything that may go wrong, goes wrong at some time. */
export const anyPlan: fc.Arbitrary<Plan> = fc.record({
  workers: fc.integer({ min: 2, max: MOST_WORKERS }),
  mode: fc.constantFrom<Knobs['refreshMode']>('strict', 'tolerance', 'grace', 'family-revoke'),
  commands: fc.array(command, { minLength: 1, maxLength: 10, size: 'max' }),
  fates: fc.array(fate, { maxLength: 8, size: 'max' }),
  breaks: fc.array(breakage, { maxLength: 40, size: 'max' }),
});

/** Longer than any wait after a failure. */
const WAITS_SECONDS = 310;

interface Cast {
  steps: Steps;
  history: History;
  provider: Provider;
  surroundings: Surroundings;
  workers: Process[];
  /** Disconnects and connects; never fails. */
  admin: Process;
  /** Puts a new process in the place of one that has died. */
  replace(index: number): Process;
}

/** A grant whose token has just run out, and processes that know nothing yet. */
async function setUp(
  world: ModelWorld,
  scheduler: fc.Scheduler,
  plan: Omit<Plan, 'commands'>,
  sabotage: Sabotage,
): Promise<Cast> {
  await world.reset();
  const steps = createSteps(scheduler);
  const { time } = world;
  const { machines } = world;
  const [first] = machines;
  if (first === undefined) throw new RangeError('The world has no machine.');
  const history: History = createHistory({
    db: world.db,
    vault: first.vault,
    tenantId: world.tenant.id,
    time,
    steps,
    leaseIsOverSeconds: LEASE_IS_OVER_SECONDS,
    doubtSeconds: SETTINGS.doubtSeconds,
    provider: () => provider,
  });
  const { mode, fates } = plan;
  const { clientId } = world.app;
  const provider: Provider = createProvider({ steps, time, clientId, mode, fates, onPresent: history.present });
  const breaks = [...plan.breaks];
  const unbroken: Surroundings = { world, provider, history, sabotage, nextBreak: () => 'none' };
  const surroundings: Surroundings = { ...unbroken, nextBreak: () => breaks.shift() ?? 'none' };
  const admin = createProcess(steps.createActor('admin'), machines[MOST_WORKERS]!, unbroken);
  await Promise.all([admin.connect(provider.consent()), steps.runAll()]);
  await time.advance(TOKEN_SECONDS);
  let made = 0;
  const make = (index: number) =>
    createProcess(steps.createActor(`worker ${index}.${(made += 1)}`), machines[index]!, surroundings);
  const workers = Array.from({ length: plan.workers }, (_, index) => make(index));
  const replace = (index: number) => (workers[index] = make(index));
  return { steps, history, provider, surroundings, workers, admin, replace };
}

async function carryOut(world: ModelWorld, cast: Cast, command: Command): Promise<void> {
  const { steps, workers, admin, provider, replace } = cast;
  switch (command.kind) {
    case 'lease runs out':
      await world.time.advance(LEASE_IS_OVER_SECONDS + 1);
      return;
    case 'token runs out':
      await world.time.advance(TOKEN_SECONDS);
      return;
    case 'disconnect':
      void admin.disconnect();
      return;
    case 'connect':
      void steps.step('the user consents', () => void admin.connect(provider.consent()));
      return;
  }
  const index = command.worker % workers.length;
  const process = workers[index];
  switch (command.kind) {
    case 'read':
      void process?.read();
      return;
    case 'refresh now':
      void process?.refreshNow();
      return;
    case 'refresh due':
      void process?.refreshDue();
      return;
    case 'check':
      void process?.checkNow();
      return;
    case 'replay':
      void process?.replay();
      return;
    case 'pause':
      if (process !== undefined) process.actor.paused = true;
      return;
    case 'resume':
      if (process !== undefined) steps.resume(process.actor);
      return;
    case 'crash':
      if (process !== undefined) process.actor.dead = true;
      replace(index);
  }
}

/** Runs one plan in one order of steps, heals the world, and judges the history. @throws {Violation} */
export async function runPlan(
  world: ModelWorld,
  scheduler: fc.Scheduler,
  plan: Plan,
  sabotage: Sabotage = none,
): Promise<void> {
  const cast = await setUp(world, scheduler, plan, sabotage);
  const { steps, history, workers } = cast;
  for (const process of workers) void process.read();
  void steps.sequence(
    plan.commands.map((command) => ({
      label: 'worker' in command ? `${command.kind} ${command.worker}` : command.kind,
      run: () => carryOut(world, cast, command),
    })),
  );
  await steps.runAll();
  await heal(world, cast);
  await judgeEvents(history, world.db, world.tenant.id);
  history.conclude();
}

/** What happens in one life of a token where nothing fails: workers ask, and some are slow. */
export type CalmRound = { kind: 'read' | 'refresh due' | 'pause' | 'resume'; worker: number }[];

export const anyCalmRounds: fc.Arbitrary<CalmRound[]> = fc.array(
  fc.array(fc.record({ kind: fc.constantFrom('read', 'refresh due', 'pause', 'resume'), worker }), { maxLength: 8 }),
  { minLength: 1, maxLength: 3 },
);

/** Every token runs out and is asked for by everybody, with a strict provider and no failure. @throws {Violation} */
export async function runCalm(
  world: ModelWorld,
  scheduler: fc.Scheduler,
  rounds: CalmRound[],
  sabotage: Sabotage = none,
): Promise<void> {
  const plan = { workers: MOST_WORKERS, mode: 'strict' as const, fates: [], breaks: [] };
  const cast = await setUp(world, scheduler, plan, sabotage);
  const { steps, history, provider, workers } = cast;
  for (const [index, round] of rounds.entries()) {
    if (index > 0) await world.time.advance(TOKEN_SECONDS);
    for (const process of workers) void process.read();
    void steps.sequence(
      round.map((command) => ({
        label: `${command.kind} ${command.worker}`,
        run: () => carryOut(world, cast, command),
      })),
    );
    await steps.runAll();
    const sent = provider.presentations.length;
    if (sent !== index + 1) history.report('I1', `${sent} refreshes for ${index + 1} tokens that ran out`);
    const { accessToken = '' } = history.latest().credential ?? {};
    if (!provider.worksToRead(accessToken)) history.report('I6', `${accessToken} is stored and does not work`);
  }
  await judgeEvents(history, world.db, world.tenant.id);
  history.conclude();
}

/** Nothing fails any more and every wait is over: the credential is usable, or the grant says why it is not. */
async function heal({ time }: ModelWorld, cast: Cast): Promise<void> {
  const { steps, history, provider, surroundings, workers } = cast;
  steps.trace.push('--- healed');
  provider.heal();
  surroundings.nextBreak = () => 'none';
  const replayAll = () => workers.map((process) => process.replay());
  const refreshDue = () => workers[0]?.refreshDue();
  // Every wait is over, then every token is, so that nothing is left which a refresh would show to be spent. One worker
  // settles what is in doubt, the spools what was taken for lost; whoever comes last finds all of it settled.
  await time.advance(WAITS_SECONDS);
  for (const begin of [replayAll, () => workers[0]?.read(), replayAll, refreshDue]) {
    void begin();
    await steps.runAll();
  }
  await time.advance(TOKEN_SECONDS);
  for (const begin of [
    () => workers[0]?.read(),
    replayAll,
    refreshDue,
    () => workers.map((process) => process.read()),
  ]) {
    void begin();
    await steps.runAll();
  }
  const { credential, status, reason } = history.latest();
  for (const read of history.reads) {
    if (read.to === null && !read.actor.dead) history.report('I6', `a read of ${read.actor.name} never ended`);
  }
  if (status === null) return history.report('I6', 'the grant is gone');
  const last = history.reads.slice(-workers.length);
  if (isLive(status)) {
    if (credential?.state !== 'IDLE') history.report('I6', `left ${credential?.state} for ever`);
    if (!provider.worksToRefresh(credential?.refreshToken ?? '')) history.report('I6', 'what is stored is spent');
    if (!last.every(({ token }) => token !== null && provider.worksToRead(token))) {
      history.report('I6', `a ${reason} grant is not usable: ${last.map(({ error }) => error?.name).join(', ')}`);
    }
  } else if (!last.every(({ error }) => error instanceof ReauthorizationRequiredError)) {
    history.report('I6', `reads of a ${reason} grant are not told to authorize again`);
  }
  const saved = [...history.spooled].find((token) => provider.worksToRefresh(token));
  if (status === 'REAUTHORIZATION_REQUIRED' && saved !== undefined) {
    history.report('I6', `ended as ${reason} though ${saved}, which was spooled, still works`);
  }
}
