import { request } from 'undici';
import { calls, connectUser, expire } from '../support/connections.js';
import { summary, type Reading } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import type { Server } from './stage.js';
import { pass, within } from './waiting.js';

/** The owner of a lease is frozen when Zoom has rotated and not answered; another process is asked meanwhile. */
async function freezeOwner({ openStage }: World, refreshMode: 'strict' | 'tolerance', seconds: number) {
  const stage = await openStage({ refreshMode, deadline: 3, lease: 4, doubt: 1 });
  const [owner, second] = (await stage.startMany(2)) as [Server, Server];
  const connection = await connectUser(second);
  await expire(second, connection);
  stage.control.addFault({ route: 'token', fault: { kind: 'hang', when: 'after', ms: 300 } });
  const sleeping = stage.read(owner, connection);
  await stage.control.waitFor(({ outcome }) => outcome === 'rotated');
  stage.freeze(owner);
  const other = stage.read(second, connection);
  await pass(seconds);
  stage.thaw(owner);
  const [slept, taken] = await Promise.all([sleeping, other]);
  const outcomes = calls(second, connection).map(({ outcome }) => outcome);
  return {
    slept,
    taken,
    outcomes,
    text: `${refreshMode}: owner ${summary([slept])}, other ${summary([taken])}, ${outcomes.length} calls`,
  };
}

const same = (a: Reading, b: Reading): boolean => a.token !== null && a.token.fingerprint === b.token?.fingerprint;

const shortPause: Experiment = {
  id: 'X-06',
  injected: 'SIGSTOP of the owner for half of lease + doubt (2.5 s) after Zoom has rotated, then SIGCONT',
  expected: 'both get the first answer, 1 call',
  run: async (world) => {
    const check = createCheck();
    const all = await Promise.all((['strict', 'tolerance'] as const).map((mode) => freezeOwner(world, mode, 2.5)));
    for (const { slept, taken, outcomes } of all) {
      check.that(same(slept, taken) && slept.version === 2, `owner ${summary([slept])}, other ${summary([taken])}`);
      check.equal('token requests', outcomes, ['rotated']);
    }
    return check.done(all.map(({ text }) => text).join('; '));
  },
};

const longPause: Experiment = {
  id: 'X-06',
  injected: 'SIGSTOP of the owner for three times lease + doubt (15 s) after Zoom has rotated, then SIGCONT',
  expected:
    'strict: ROTATION_LOST for both, 2 calls; tolerance: the second answer for both, 2 calls; the owner never gives what was fenced off',
  run: async (world) => {
    const check = createCheck();
    const [strict, tolerant] = await Promise.all([
      freezeOwner(world, 'strict', 15),
      freezeOwner(world, 'tolerance', 15),
    ]);
    for (const { reason } of [strict.slept, strict.taken]) check.equal('strict', reason, 'ROTATION_LOST');
    check.equal('strict: token requests', strict.outcomes, ['rotated', 'reused-token']);
    check.that(same(tolerant.slept, tolerant.taken), `tolerance: owner and other have different tokens`);
    check.equal('tolerance: token requests', tolerant.outcomes, ['rotated', 'rotated']);
    return check.done(`${strict.text}; ${tolerant.text}`);
  },
};

const blockedLoop: Experiment = {
  id: 'X-21',
  injected: 'the event loop of the owner stands still for 5 s while Zoom answers; lease + doubt are 10 s',
  expected: 'one refresh, both readers get its token; /livez does not answer meanwhile and does afterwards',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ deadline: 7, lease: 8, doubt: 2 });
    const [owner, second] = (await Promise.all([stage.start({ blockMs: 5_000 }), stage.start()])) as [Server, Server];
    const connection = await connectUser(second);
    await expire(second, connection);
    stage.control.addFault({ route: 'token', fault: { kind: 'hang', when: 'after', ms: 500 } });
    const owning = stage.read(owner, connection);
    await stage.control.waitFor(({ outcome }) => outcome === 'rotated');
    owner.process.signal('SIGUSR2');
    const other = stage.read(second, connection);
    const live = async () => (await request(`${owner.url}/livez`)).statusCode;
    // The signal is taken up by the loop itself: what is asked half a second later meets a loop that stands.
    await pass(0.5);
    const meanwhile = await within(1, live());
    const [first, taken] = await Promise.all([owning, other]);
    const afterwards = await within(2, live());
    check.equal('liveness while blocked', meanwhile, null);
    check.equal('liveness afterwards', afterwards, 200);
    check.that(same(first, taken) && first.version === 2, `owner ${summary([first])}, other ${summary([taken])}`);
    const outcomes = calls(second, connection).map(({ outcome }) => outcome);
    check.equal('token requests', outcomes, ['rotated']);
    return check.done(
      `owner ${summary([first])}, other ${summary([taken])}, ${outcomes.length} call; /livez silent, then ${afterwards}`,
    );
  },
};

export const pauses: readonly Experiment[] = [shortPause, longPause, blockedLoop];
