import sql from 'sql-template-tag';
import { calls, connectUser, expire, makeDue, stored, type Connection } from '../support/connections.js';
import { deliver } from '../support/webhook.js';
import { readiness, summary } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import { createWrongClock, hasFakeTime } from './fake-time.js';
import type { Server, Stage } from './stage.js';
import { connectMany } from './storms.js';
import { pass, waitUntil } from './waiting.js';

const HOUR = 3_600;
const OFFSETS: Record<string, number> = { '+2 h': 2 * HOUR, '-2 h': -2 * HOUR, '+1 d': 24 * HOUR, '-1 d': -24 * HOUR };
/** When a clock that was set must have been noticed: libfaketime looks after a second or more. */
const READY_SECONDS = 5;
const TOOL = hasFakeTime ? 'libfaketime' : 'a Date of our own';

/** Seconds until the stored token runs out and until it is taken up again, by the database's clock. */
async function plan({ db }: Stage, { rowId }: Connection): Promise<{ life: number; due: number }> {
  const [row] = await db.query<{ life: number; due: number }>(sql`
    SELECT extract(epoch FROM expires_at - now())::float8 AS life,
      extract(epoch FROM next_refresh_at - now())::float8 AS due FROM credential WHERE grant_id = ${rowId}::uuid`);
  return row ?? { life: 0, due: 0 };
}

/** Zoom's own clock is right: whose is wrong must not refuse what it signed. */
async function webhookStatus(server: Server, { app }: Connection): Promise<number> {
  const url = `${server.url}${new URL(app.webhookUrl).pathname}`;
  const body = { event: 'meeting.started', event_ts: Date.now(), payload: { account_id: 'a' } };
  return (await deliver(url, body, { secret: app.atZoom.webhookSecret })).status;
}

const wrongProcess: Experiment = {
  id: 'X-19',
  injected: `a process whose clock is off by ${Object.keys(OFFSETS).join(', ')} beside one whose clock is right (${TOOL})`,
  expected:
    'it is not ready; it serves the valid token without a refresh, renews the expired one and the due one once, plans the next refresh by the time of the database, and takes a webhook that is signed now',
  run: async ({ openStage }) => {
    const check = createCheck();
    const seen: string[] = [];
    for (const [name, offset] of Object.entries(OFFSETS)) {
      const stage = await openStage();
      const clock = await createWrongClock(offset);
      const right = await stage.start({ settings: { LATCHKEY_ROLE: 'api' } });
      // The only one that refreshes by schedule.
      const wrong = await stage.start(clock.options);
      const [valid, gone, due] = (await connectMany(right, 3)) as [Connection, Connection, Connection];
      await expire(right, gone);
      const [kept, renewed] = await Promise.all([stage.read(wrong, valid), stage.read(wrong, gone)]);
      await makeDue(right, due);
      await waitUntil('the due one is renewed', async () => (await stored(right, due))?.version === 2);
      await pass(1.5);
      check.equal(`${name}: valid`, [kept.version, renewed.version], [1, 2]);
      check.equal(`${name}: token requests`, calls(right, valid).length, 2);
      for (const connection of [gone, due]) {
        const { life, due: next } = await plan(stage, connection);
        check.that(life > HOUR - 60 && life <= HOUR + 1, `${name}: the new token is taken to live for ${life} s`);
        check.that(next > HOUR / 2 && next < HOUR, `${name}: the next refresh is planned in ${next} s`);
      }
      check.equal(`${name}: ready`, [await readiness(right), await readiness(wrong)], [200, 503]);
      check.equal(`${name}: webhook`, await webhookStatus(wrong, valid), 200);
      seen.push(`${name} not ready, ${summary([kept])}, ${summary([renewed])}`);
    }
    return check.done(`${seen.join('; ')}; 2 calls and webhook 200 each`);
  },
};

const jumpingProcess: Experiment = {
  id: 'X-19',
  injected: `the clock of a process jumps a day ahead while a refresh is at Zoom, two days back, and right again (${TOOL})`,
  expected:
    'one call and the first answer; the token is served all the while, without another refresh; not ready within 5 s of each jump, and ready again within 5 s',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ deadline: 6, lease: 8, doubt: 2 });
    const clock = await createWrongClock();
    const server = await stage.start(clock.options);
    const connection = await connectUser(server);
    await expire(server, connection);
    stage.control.setKnobs({ tokenDelayMs: 3_000 });
    const reading = stage.read(server, connection);
    await stage.control.waitFor(({ grantType }) => grantType === 'refresh_token');
    const states: number[] = [];
    const versions: (number | null)[] = [];
    for (const [index, offset] of [24 * HOUR, -24 * HOUR, 0].entries()) {
      await clock.set(offset);
      await pass(1.6);
      if (index === 0) stage.control.setKnobs({ tokenDelayMs: 0 });
      if (index === 1) versions.push((await reading).version);
      if (index > 0) versions.push((await stage.read(server, connection)).version);
      if (offset !== 0)
        await waitUntil('the jump is seen', async () => (await readiness(server)) === 503, READY_SECONDS);
      if (offset !== 0) states.push(await readiness(server));
    }
    const rightedAt = performance.now();
    await waitUntil('the process is ready again', async () => (await readiness(server)) === 200, READY_SECONDS);
    const readyAfter = (performance.now() - rightedAt) / 1_000;
    await pass(1.5);
    check.equal('versions', versions, [2, 2, 2]);
    check.equal('readiness', states, [503, 503]);
    check.equal('token requests', calls(server, connection).length, 1);
    return check.done(
      `1 call, versions ${versions.join(' ')}, /readyz ${states.join(' ')}, then 200 after ${readyAfter.toFixed(1)} s more`,
    );
  },
};

const CREDENTIALS = 60;
const PER_SECOND = 20;

const jumpingDatabase: Experiment = {
  id: 'X-20',
  injected: `the clock of PostgreSQL jumps an hour ahead (libfaketime): ${CREDENTIALS} tokens run out at once; at most ${PER_SECOND} refreshes/s are set, for 3 processes together`,
  expected: `one burst, at most ${PER_SECOND}/s and a tenth: each is renewed with 1 call, and none again; processes are not ready meanwhile`,
  run: async ({ openStage, openCluster }) => {
    const check = createCheck();
    const clock = await createWrongClock();
    if (clock.env === null) throw new Error('libfaketime is not installed (Debian: libfaketime)');
    const cluster = await openCluster({ env: clock.env });
    const settings = { LATCHKEY_REFRESHES_PER_SECOND: String(PER_SECOND) };
    const stage = await openStage({ clusterUrl: cluster.url, deadline: 5, lease: 8, settings });
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const connections = await connectMany(servers[0], CREDENTIALS);
    const before = await Promise.all(servers.map(readiness));
    await clock.set(HOUR);
    const startedAt = performance.now();
    const renewed = async () => {
      const [row] = await stage.db.query<{ count: number }>(sql`
        SELECT count(*)::int AS count FROM credential WHERE version = 2 AND expires_at > now() + interval '50 minutes'`);
      return row?.count ?? 0;
    };
    await waitUntil('all are renewed', async () => (await renewed()) === CREDENTIALS, 30);
    const seconds = (performance.now() - startedAt) / 1_000;
    const after = await Promise.all(servers.map(readiness));
    await pass(4);
    const requests = calls(servers[0], connections[0] as Connection);
    const times = requests.map(({ at }) => Date.parse(at));
    const most = Math.max(...times.map((from) => times.filter((at) => at >= from && at < from + 1_000).length));
    check.equal('token requests', requests.length, CREDENTIALS);
    check.that(most <= PER_SECOND * 1.1 + 3, `${most} requests in one second`);
    check.equal('readiness', [before, after].flat(), [200, 200, 200, 503, 503, 503]);
    return check.done(
      `${requests.length} calls in ${seconds.toFixed(1)} s, at most ${most} in a second, none in the 4 s after; /readyz ${after.join(' ')}`,
    );
  },
};

export const clocks: readonly Experiment[] = [wrongProcess, jumpingProcess, jumpingDatabase];
