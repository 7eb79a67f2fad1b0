import { calls, connectUser, expire, type Connection } from '../support/connections.js';
import { registerApp, type RegisteredApp } from '../support/story.js';
import type { Reading } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import type { Point } from './server-process.js';
import { endedByItself, type Server, type Stage } from './stage.js';
import { waitUntil } from './waiting.js';

type Mode = 'strict' | 'tolerance' | 'grace' | 'family-revoke';

const POINTS = ['P1', 'P2', 'P3', 'P4', 'P5', 'P6'] as const;
type Name = (typeof POINTS)[number];

/** Where a process is killed. Without a spool the fourth point is that the answer has been read. */
function pointOf(name: Name, hasSpool: boolean): Point {
  const points = { P1: 'leased', P2: 'sent', P3: 'headers', P5: 'committing', P6: 'committed' } as const;
  if (name === 'P4') return hasSpool ? 'spooled' : 'answered';
  return points[name];
}

/** What must come of it: the version and health in the end, and how many token requests it took. */
function outcomeOf(name: Name, mode: Mode, hasSpool: boolean): string {
  if (name === 'P1' || name === 'P6') return 'token after 1 call';
  if (hasSpool && (name === 'P4' || name === 'P5')) return 'token after 1 call';
  return mode === 'strict' || mode === 'family-revoke' ? 'ROTATION_LOST after 2 calls' : 'token after 2 calls';
}

interface Victim {
  name: Name;
  hasSpool: boolean;
  server: Server;
  connection: Connection;
}

const spoolSetting = (hasSpool: boolean): Record<string, string> => (hasSpool ? {} : { LATCHKEY_SPOOL: '0' });

async function startVictim(
  stage: Stage,
  app: RegisteredApp,
  via: Server,
  name: Name,
  hasSpool: boolean,
): Promise<Victim> {
  const [server, connection] = await Promise.all([
    stage.start({ at: { point: pointOf(name, hasSpool) }, settings: spoolSetting(hasSpool) }),
    connectUser(via, { app, userId: `user_${name}_${hasSpool}` }),
  ]);
  return { name, hasSpool, server, connection };
}

/** What the others get of the credential, in the words of `outcomeOf`. */
const told = (stage: Stage, via: Server, { connection }: Victim, { kind, version, reason }: Reading): string => {
  const sent = stage.control.journal().filter(({ tokenFingerprint }) => tokenFingerprint !== null);
  const own = sent.filter(({ seq }) => calls(via, connection).some((call) => call.seq === seq));
  const count = `${own.length} call${own.length === 1 ? '' : 's'}`;
  if (kind === 'Credential') return `${version === 2 ? 'token' : `version ${version}`} after ${count}`;
  return `${reason ?? kind} after ${count}`;
};

const sentence = (victims: readonly Victim[], answers: readonly string[], hasSpool: boolean): string =>
  victims
    .map(({ name, hasSpool: spools }, index) => (spools === hasSpool ? `${name} ${answers[index]}` : null))
    .filter((part) => part !== null)
    .join(', ');

/** Where a process that spools has left something behind. */
const SPOOLED: readonly Name[] = ['P4', 'P5', 'P6'];

/**
 * Another process is asked as soon as the victim is dead. One that has spooled is started again at once, as a supervisor
 * does; the others have nothing to bring back.
 */
async function readAfterDeath(stage: Stage, survivor: Server, { name, hasSpool, server, connection }: Victim) {
  await endedByItself(server);
  const revived = hasSpool && SPOOLED.includes(name) ? stage.start({ dataDir: server.dataDir }) : null;
  const reading = await stage.read(survivor, connection);
  await revived;
  return reading;
}

/** Kills a process at each point, with and without spool, all on one stage. */
async function killEverywhere({ openStage }: World, mode: Mode) {
  const check = createCheck();
  const stage = await openStage({ refreshMode: mode, deadline: 3, lease: 5, doubt: 4 });
  const survivor = await stage.start();
  const victims: Victim[] = [];
  for (const hasSpool of [true, false]) {
    const started = POINTS.map(async (name) =>
      startVictim(stage, await registerApp(survivor, 'USER_MANAGED'), survivor, name, hasSpool),
    );
    victims.push(...(await Promise.all(started)));
  }
  await expire(survivor, ...victims.map(({ connection }) => connection));
  const cut = victims.map(({ server, connection }) => stage.read(server, connection));
  const readings = await Promise.all(victims.map((victim) => readAfterDeath(stage, survivor, victim)));
  const answers = readings.map((reading, index) => told(stage, survivor, victims[index] as Victim, reading));
  for (const [index, { name, hasSpool }] of victims.entries()) {
    check.equal(`${name} with${hasSpool ? '' : 'out'} spool`, answers[index], outcomeOf(name, mode, hasSpool));
  }
  for (const reading of await Promise.all(cut)) check.that(reading.token === null, `a killed process gave a token`);
  return check.done(
    `spool: ${sentence(victims, answers, true)}; no spool: ${sentence(victims, answers, false)}; takeover after at most ${longest(readings)} s`,
  );
}

const longest = (readings: readonly Reading[]): string =>
  (Math.max(...readings.map(({ startedAt, endedAt }) => endedAt - startedAt)) / 1_000).toFixed(1);

const expectation = (mode: Mode): string =>
  mode === 'strict' || mode === 'family-revoke'
    ? 'P1 and P6: the first answer, 1 call. P2 and P3: ROTATION_LOST, 2 calls. P4 and P5: with spool the first answer, 1 call; without ROTATION_LOST, 2 calls'
    : 'P1 and P6: the first answer, 1 call. P2 and P3: the second answer, 2 calls. P4 and P5: with spool the first answer, 1 call; without the second, 2 calls';

const kills = (['strict', 'tolerance', 'grace', 'family-revoke'] as const).map((mode): Experiment => ({
  id: 'X-03',
  injected: `SIGKILL at P1 lease taken, P2 request sent, P3 headers read, P4 spooled (without spool: answer read), P5 within the transaction, P6 committed; Zoom: ${mode}`,
  expected: expectation(mode),
  run: (world) => killEverywhere(world, mode),
}));

/** One process spools and dies, another settles the doubt, and only then the first comes back. */
async function comeBackLate({ openStage }: World, mode: Mode): Promise<string> {
  const stage = await openStage({ refreshMode: mode });
  const survivor = await stage.start();
  const victim = await startVictim(stage, await registerApp(survivor, 'USER_MANAGED'), survivor, 'P4', true);
  await expire(survivor, victim.connection);
  const cut = stage.read(victim.server, victim.connection);
  await endedByItself(victim.server);
  await cut;
  const settled = told(stage, survivor, victim, await stage.read(survivor, victim.connection));
  await stage.start({ dataDir: victim.server.dataDir });
  let last = '';
  const isWanted = mode === 'strict' ? 'token' : mode === 'tolerance' ? 'token' : 'ROTATION_LOST';
  await waitUntil(
    'the late answer is judged',
    async () => {
      last = told(stage, survivor, victim, await stage.read(survivor, victim.connection));
      return last.startsWith(isWanted);
    },
    10,
  ).catch(() => undefined);
  return `${mode}: ${settled}, then ${last}`;
}

const LATE = [
  'strict: ROTATION_LOST after 2 calls, then token after 2 calls',
  'tolerance: token after 2 calls, then token after 2 calls',
  'family-revoke: ROTATION_LOST after 2 calls, then ROTATION_LOST after 2 calls',
];

const late: Experiment = {
  id: 'X-03',
  injected: 'SIGKILL at P4 with spool; the process comes back only after another has settled the doubt',
  expected: 'the spooled answer is taken up where its token still works and nothing newer is stored, else dropped',
  run: async (world) => {
    const check = createCheck();
    const seen = await Promise.all(
      (['strict', 'tolerance', 'family-revoke'] as const).map((mode) => comeBackLate(world, mode)),
    );
    for (const [index, one] of seen.entries()) check.equal('late answer', one, LATE[index]);
    return check.done(seen.join('; '));
  },
};

export const killing: readonly Experiment[] = [...kills, late];
