import { connectUser, createZoomUser, expire, type Connection } from '../support/connections.js';
import { createTenant, registerApp } from '../support/story.js';
import sql from 'sql-template-tag';
import { summary, type Reading } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { pass, waitUntil } from './waiting.js';

const ROUNDS = 20;
const CREDENTIALS = 20;

/** Connections of one tenant to one app. */
export async function connectMany(via: Server, count: number): Promise<Connection[]> {
  const app = await registerApp(via, 'USER_MANAGED');
  const tenantId = await createTenant(via);
  const connections: Connection[] = [];
  for (let index = 0; index < count; index += 1) {
    const zoomUserId = createZoomUser(via);
    connections.push(await connectUser(via, { app, tenantId, userId: `user_${index}`, zoomUserId }));
  }
  return connections;
}

const lostNow = async (stage: Stage): Promise<Set<string>> => {
  const rows = await stage.db.query<{ id: string }>(sql`
    SELECT id FROM provider_grant WHERE health_status NOT IN ('HEALTHY', 'DEGRADED')`);
  return new Set(rows.map(({ id }) => id));
};

/** Kills one of three servers at a random moment of a burst of refreshes, and starts it again. */
async function killAtRandom({ openStage, random, scale }: World) {
  const check = createCheck();
  const stage = await openStage({ deadline: 1, lease: 2, doubt: 1 });
  const fleet = await stage.startMany(3);
  const [first] = fleet as [Server];
  const connections = await connectMany(first, CREDENTIALS);
  stage.control.setKnobs({ tokenDelayMs: 30 });
  const rounds = Math.ceil(ROUNDS * scale);
  const pending = new Map<string, Server>();
  const reads: Promise<Reading>[] = [];
  let [kills, inFlight] = [0, 0];
  const present = () => fleet.filter(({ url }) => url !== '');
  for (let round = 0; round < rounds; round += 1) {
    await waitUntil('two servers are back', () => present().length >= 2);
    const lost = await lostNow(stage);
    const gone = connections.filter(({ rowId }) => lost.has(rowId));
    await Promise.all(
      gone.map(({ app, tenantId, userId, zoomUserId }) =>
        connectUser(random.pick(present()), { app, tenantId, userId, zoomUserId }),
      ),
    );
    const idle = connections.filter(({ rowId }) => !pending.has(rowId));
    await expire(first, ...idle);
    for (const connection of idle) {
      const server = random.pick(present());
      pending.set(connection.rowId, server);
      reads.push(stage.read(server, connection).finally(() => pending.delete(connection.rowId)));
    }
    await pass(random.number(0.15));
    const victim = random.pick(present());
    const index = fleet.indexOf(victim);
    inFlight += [...pending.values()].filter((server) => server === victim).length;
    kills += 1;
    await stage.end(victim, 'SIGKILL');
    // A place that is filled again shortly; until then it answers nobody.
    fleet[index] = { ...victim, url: '' };
    void stage.start({ dataDir: victim.dataDir }).then((successor) => {
      fleet[index] = successor;
    });
  }
  const readings = await Promise.all(reads);
  await waitUntil('all servers are back', () => present().length === fleet.length);
  for (const connection of connections) await stage.read(fleet[0] as Server, connection);
  const rows = await stage.db.query<{ reason: string; count: number }>(sql`
    SELECT reason, count(*)::int AS count FROM health_event WHERE current NOT IN ('HEALTHY', 'DEGRADED') GROUP BY reason`);
  const losses = rows.reduce((sum, { count }) => sum + count, 0);
  check.that(
    rows.every(({ reason }) => reason === 'ROTATION_LOST'),
    `other ends: ${JSON.stringify(rows)}`,
  );
  check.that(losses <= inFlight, `${losses} lost of ${inFlight} in flight`);
  const kinds = new Set(readings.map(({ kind }) => kind.replace(/ .*/, '')));
  for (const kind of kinds) {
    check.that(
      ['Credential', 'ProviderUnavailableError', 'ReauthorizationRequiredError', 'cut'].includes(kind),
      `answered ${kind}`,
    );
  }
  return check.done(
    `${kills} kills, ${inFlight} refreshes in flight at them, ${losses} lost, each with its event; ${readings.length} reads`,
  );
}

const randomKills: Experiment = {
  id: 'X-04',
  injected: `SIGKILL of one of 3 processes at a random moment, ${ROUNDS} rounds, ${CREDENTIALS} credentials refreshed in each; a supervisor starts it again`,
  expected: 'lost at most what was in flight in the killed process; each lost one says ROTATION_LOST with one event',
  run: killAtRandom,
};

const RESTARTS_EACH = 5;
const PER_SECOND = 50;
const POOL = 60;

/** A client that tries once more, elsewhere, when its connection breaks. */
async function readWithRetry(stage: Stage, fleet: readonly Server[], connection: Connection, first: number) {
  const reading = await stage.read(fleet[first % fleet.length] as Server, connection);
  return reading.kind.startsWith('cut') ? stage.read(fleet[(first + 1) % fleet.length] as Server, connection) : reading;
}

async function restartRolling({ openStage, scale }: World) {
  const check = createCheck();
  const stage = await openStage({ deadline: 3, lease: 5, doubt: 2 });
  const fleet = await stage.startMany(3);
  const connections = await connectMany(fleet[0] as Server, POOL);
  stage.control.setKnobs({ tokenDelayMs: 100 });
  const reads: Promise<Reading>[] = [];
  const busy = new Set<string>();
  let turn = 0;
  const load = setInterval(() => {
    const connection = connections[turn % connections.length] as Connection;
    const server = turn % fleet.length;
    turn += 1;
    if (busy.has(connection.rowId)) return;
    busy.add(connection.rowId);
    const one = expire(fleet[0] as Server, connection).then(() => readWithRetry(stage, fleet, connection, server));
    reads.push(one.finally(() => busy.delete(connection.rowId)));
  }, 1_000 / PER_SECOND);
  const codes: (number | null)[] = [];
  const startedAt = performance.now();
  for (let index = 0; index < Math.ceil(RESTARTS_EACH * scale) * fleet.length; index += 1) {
    const old = fleet[index % fleet.length] as Server;
    old.process.signal('SIGTERM');
    const { code } = await old.process.exited;
    codes.push(code);
    fleet[index % fleet.length] = await stage.start({ dataDir: old.dataDir });
  }
  clearInterval(load);
  const seconds = (performance.now() - startedAt) / 1_000;
  const readings = await Promise.all(reads);
  const failed = readings.filter(({ kind }) => kind !== 'Credential');
  const lost = await lostNow(stage);
  const rotated = stage.control.journal().filter(({ outcome }) => outcome === 'rotated').length;
  check.equal('failed reads', summary(failed), 'nothing');
  check.equal('lost connections', lost.size, 0);
  check.equal('exit codes', [...new Set(codes)], [0]);
  return check.done(
    `${codes.length} restarts, ${readings.length} reads, ${(rotated / seconds).toFixed(0)} refreshes/s, ${failed.length} failed, ${lost.size} lost`,
  );
}

const rollingRestart: Experiment = {
  id: 'X-05',
  injected: `SIGTERM and restart of 3 processes in turn, ${RESTARTS_EACH} times each, under ${PER_SECOND} refreshes/s; clients repeat a broken connection once`,
  expected: 'no failed read, no lost connection, every process ends with 0',
  run: restartRolling,
};

export const storms: readonly Experiment[] = [randomKills, rollingRestart];
