import { calls, connectUser, events, expire } from '../support/connections.js';
import { summary } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import { endedByItself, type Server } from './stage.js';

const LIMIT_MB = 128;

/** A process runs out of memory while one refresh is at Zoom, which has rotated. Another is asked then. */
async function exhaust({ openStage }: World, refreshMode: 'strict' | 'tolerance') {
  const stage = await openStage({ refreshMode, deadline: 4, lease: 5, doubt: 1 });
  const [survivor, victim] = (await Promise.all([
    stage.start(),
    stage.start({ preloads: ['fill-memory.mjs'], flags: [`--max-old-space-size=${LIMIT_MB}`] }),
  ])) as [Server, Server];
  const [inFlight, calm] = [await connectUser(survivor), await connectUser(survivor)];
  await expire(survivor, inFlight);
  stage.control.addFault({ route: 'token', fault: { kind: 'hang', when: 'after', ms: 3_500 } });
  const cut = stage.read(victim, inFlight);
  await stage.control.waitFor(({ outcome }) => outcome === 'rotated');
  victim.process.signal('SIGUSR2');
  await endedByItself(victim);
  const { code, signal } = await victim.process.exited;
  const [beside, reading] = await Promise.all([stage.read(survivor, calm), stage.read(survivor, inFlight)]);
  const revived = await stage.start({ dataDir: victim.dataDir });
  const again = await stage.read(revived, calm);
  return {
    ended: signal ?? String(code),
    lost: await cut,
    beside,
    reading,
    again,
    calls: calls(survivor, inFlight).length,
    events: await events(survivor, inFlight),
  };
}

const outOfMemory: Experiment = {
  id: 'X-22',
  injected: `a process with a heap of ${LIMIT_MB} MB runs out of memory while a refresh is at Zoom, which has rotated; it is started again`,
  expected:
    'as SIGKILL. strict: ROTATION_LOST with one event, 2 calls; tolerance: the second answer, 2 calls; other connections are served meanwhile and after the restart',
  run: async (world) => {
    const check = createCheck();
    const seen: string[] = [];
    for (const mode of ['strict', 'tolerance'] as const) {
      const { ended, lost, beside, reading, again, ...rest } = await exhaust(world, mode);
      check.that(ended.startsWith('SIG'), `${mode}: the process ended with ${ended}`);
      check.that(lost.token === null, `${mode}: the dead process gave a token`);
      check.equal(`${mode}: others`, summary([beside, again]), '2 × Credential v1');
      check.equal(`${mode}: token requests`, rest.calls, 2);
      if (mode === 'strict') check.equal('strict', reading.reason, 'ROTATION_LOST');
      else check.equal('tolerance', reading.version, 2);
      check.equal(`${mode}: events`, rest.events, mode === 'strict' ? ['CONNECTED', 'ROTATION_LOST'] : ['CONNECTED']);
      seen.push(`${mode}: ended by ${ended}, then ${summary([reading])} after ${rest.calls} calls`);
    }
    return check.done(`${seen.join('; ')}; others ${'Credential v1'}`);
  },
};

export const memories: readonly Experiment[] = [outOfMemory];
