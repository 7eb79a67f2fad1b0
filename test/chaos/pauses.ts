import { request } from 'undici';
import { calls, connectUser, events, expire, stored } from '../support/connections.js';
import { summary, type Reading } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import { frozenByItself, type Server } from './stage.js';
import { pass, waitUntil, within } from './waiting.js';

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

/** The owner is frozen with the answer in its hands; when it goes on, the doubt has long been settled without it. */
async function freezeWithAnswer({ openStage }: World, refreshMode: 'strict' | 'tolerance' | 'family-revoke') {
  const stage = await openStage({ refreshMode });
  const [owner, second] = (await Promise.all([
    stage.start({ at: { point: 'answered', signal: 'SIGSTOP' } }),
    stage.start(),
  ])) as [Server, Server];
  const connection = await connectUser(second);
  await expire(second, connection);
  const sleeping = stage.read(owner, connection);
  await frozenByItself(stage, owner);
  const taken = await stage.read(second, connection);
  stage.thaw(owner);
  const slept = await sleeping;
  const count = calls(second, connection).length;
  const told = await events(second, connection);
  return {
    slept,
    taken,
    count,
    told,
    text: `${refreshMode}: other ${summary([taken])}, owner ${summary([slept])}, ${count} calls`,
  };
}

const lateAnswer: Experiment = {
  id: 'X-06',
  injected:
    'SIGSTOP of the owner when it has read the answer, until another process has settled the doubt, then SIGCONT',
  expected:
    'strict: the other is told ROTATION_LOST, then the late answer is proved to work and revives the connection; tolerance: the second answer stays and the owner gives it; family-revoke: ROTATION_LOST for both',
  run: async (world) => {
    const check = createCheck();
    const [strict, tolerant, revoked] = await Promise.all([
      freezeWithAnswer(world, 'strict'),
      freezeWithAnswer(world, 'tolerance'),
      freezeWithAnswer(world, 'family-revoke'),
    ]);
    check.equal('strict: other', strict.taken.reason, 'ROTATION_LOST');
    check.equal('strict: owner', strict.slept.version, 2);
    check.equal('strict: events', strict.told.slice(0, 2), ['CONNECTED', 'ROTATION_LOST']);
    check.equal('strict: number of events', strict.told.length, 3);
    check.that(same(tolerant.slept, tolerant.taken), 'tolerance: owner and other have different tokens');
    for (const { reason } of [revoked.slept, revoked.taken]) check.equal('family-revoke', reason, 'ROTATION_LOST');
    const all = [strict, tolerant, revoked];
    check.equal(
      'token requests',
      all.map(({ count }) => count),
      [2, 2, 2],
    );
    return check.done(all.map(({ text }) => text).join('; '));
  },
};

const frozenCommit: Experiment = {
  id: 'X-06',
  injected: 'SIGSTOP of the owner within the transaction that stores the answer, for 6 s; lease + doubt are 4 s',
  expected:
    'nobody can take the lease meanwhile: the other waits, or is told UNAVAILABLE; then both get the first answer, 1 call; other connections are served',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const [owner, second] = (await Promise.all([
      stage.start({ at: { point: 'committing', signal: 'SIGSTOP' } }),
      stage.start(),
    ])) as [Server, Server];
    const connection = await connectUser(second);
    const bystander = await connectUser(second);
    await expire(second, connection, bystander);
    const sleeping = stage.read(owner, connection);
    await frozenByItself(stage, owner);
    const other = stage.read(second, connection);
    const beside = await stage.read(second, bystander);
    await pass(6);
    stage.thaw(owner);
    const [slept, taken] = await Promise.all([sleeping, other]);
    await waitUntil('the answer is stored', async () => (await stored(second, connection))?.version === 2);
    const last = await stage.read(second, connection);
    check.that(same(slept, last) && slept.version === 2, `owner ${summary([slept])}, other ${summary([last])}`);
    check.that(taken.kind === 'errors UNAVAILABLE' || same(slept, taken), `meanwhile ${summary([taken])}`);
    check.equal('bystander', summary([beside]), '1 × Credential v2');
    const outcomes = calls(second, connection).map(({ outcome }) => outcome);
    check.equal('token requests', outcomes, ['rotated']);
    return check.done(
      `owner ${summary([slept])}, other ${summary([taken])}, then ${summary([last])}, bystander ${summary([beside])}, ${outcomes.length} call`,
    );
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

export const pauses: readonly Experiment[] = [shortPause, longPause, lateAnswer, frozenCommit, blockedLoop];
