import { calls, connectUser, expire, health, makeDue, stored, type Connection } from '../support/connections.js';
import type { Halt } from '../support/postgres-cluster.js';
import { registerApp } from '../support/story.js';
import { readiness, summary, type Reading } from './client.js';
import { asAdmin } from './databases.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { pass, waitUntil } from './waiting.js';

const CREDENTIALS = 6;

async function connectSome(via: Server, count: number): Promise<Connection[]> {
  const app = await registerApp(via, 'USER_MANAGED');
  const connections: Connection[] = [];
  for (let index = 0; index < count; index += 1)
    connections.push(await connectUser(via, { app, userId: `user_${index}` }));
  return connections;
}

/** Reads a credential that needs no refresh again and again, ten times a second. */
async function watch(stage: Stage, server: Server, connection: Connection, signal: AbortSignal): Promise<Reading[]> {
  const readings: Promise<Reading>[] = [];
  while (!signal.aborted) {
    readings.push(stage.read(server, connection));
    await pass(0.1);
  }
  return Promise.all(readings);
}

const restarted = (how: Halt, injected: string): Experiment => ({
  id: 'X-07',
  injected: `PostgreSQL is ended (${injected}) while ${CREDENTIALS} refreshes are at Zoom, and started again after they are answered`,
  expected:
    'all answers are stored after the restart, 1 call each, none lost; reads fail at most until 2 s after it, with a failure that says so',
  run: async ({ openStage, openCluster }) => {
    const check = createCheck();
    const cluster = await openCluster();
    const stage = await openStage({ clusterUrl: cluster.url, deadline: 5, lease: 10, doubt: 4 });
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const connections = await connectSome(servers[0], CREDENTIALS);
    const calm = await connectUser(servers[0]);
    await expire(servers[0], ...connections);
    stage.control.setKnobs({ tokenDelayMs: 1_200 });
    const stop = new AbortController();
    const watching = watch(stage, servers[1], calm, stop.signal);
    const asked = connections.map((connection, index) => stage.read(servers[index % 3] as Server, connection));
    const outcomes = () => calls(servers[0], connections[0] as Connection).map(({ outcome }) => outcome);
    await waitUntil('all requests are at Zoom', () => outcomes().length === CREDENTIALS);
    stage.interruptions.push(Date.now());
    await cluster.halt(how);
    await waitUntil(
      'all are answered',
      () => outcomes().filter((outcome) => outcome === 'rotated').length === CREDENTIALS,
    );
    await pass(0.5);
    await cluster.resume();
    const upAt = Date.now();
    await waitUntil('all are stored', async () =>
      (await Promise.all(connections.map((connection) => stored(servers[0], connection)))).every(
        (row) => row?.version === 2,
      ),
    ).catch((error: Error) => check.that(false, error.message));
    const storedAfter = ((Date.now() - upAt) / 1_000).toFixed(1);
    await pass(Math.max(0, 2.5 - (Date.now() - upAt) / 1_000));
    stop.abort();
    const watched = await watching;
    const failed = watched.filter(({ kind }) => kind !== 'Credential');
    const last = Math.max(0, ...failed.map(({ endedAt }) => endedAt - upAt)) / 1_000;
    check.that(last <= 2, `a read failed ${last} s after the restart`);
    check.that(
      failed.every(({ kind }) => /UNAVAILABLE/i.test(kind)),
      `reads failed as ${summary(failed)}`,
    );
    const callers = await Promise.all(asked);
    for (const { kind } of callers) check.that(kind !== 'ReauthorizationRequiredError', `a caller was told ${kind}`);
    check.equal('token requests', outcomes(), Array(CREDENTIALS).fill('rotated'));
    return check.done(
      `stored ${storedAfter} s after the restart, ${outcomes().length} calls; callers ${summary(callers)}; ${summary(failed)} until ${last.toFixed(1)} s after it`,
    );
  },
});

const readOnly: Experiment = {
  id: 'X-09',
  injected:
    'PostgreSQL becomes read-only (default_transaction_read_only, sessions ended) with one token valid, one run out, one due',
  expected:
    'no refresh is started: 0 token requests; the valid tokens are served; /readyz says 503; afterwards all recover',
  run: async ({ openStage, cluster }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const [one, two, three] = servers;
    const [valid, gone, due] = [await connectUser(one), await connectUser(one), await connectUser(one)];
    await expire(one, gone);
    await makeDue(one, due);
    const sentBefore = calls(one, due).length;
    await asAdmin(
      cluster.url,
      `ALTER DATABASE ${stage.databaseName} SET default_transaction_read_only = on`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${stage.databaseName}'`,
    );
    stage.interruptions.push(Date.now());
    await waitUntil(
      'the end of their sessions is over',
      async () => (await stage.read(one, valid)).kind === 'Credential',
    );
    const sinceReadOnly = stage.control.journal().at(-1)?.seq ?? 0;
    await pass(2.5);
    const asked = await Promise.all([one, two, three].map((server) => stage.read(server, valid)));
    const askedDue = await stage.read(two, due);
    const unavailable = await Promise.all([one, two, three].map((server) => stage.read(server, gone)));
    const ready = await Promise.all(servers.map(readiness));
    const requests = stage.control.journal(sinceReadOnly).filter(({ grantType }) => grantType === 'refresh_token');
    check.equal('token requests', requests.length, 0);
    check.equal('valid tokens', summary([...asked, askedDue]).replace(/ v\d+/g, ''), '4 × Credential');
    check.that(
      unavailable.every(({ token }) => token === null),
      'a token that ran out was served',
    );
    check.equal('/readyz', ready, [503, 503, 503]);
    await asAdmin(
      cluster.url,
      `ALTER DATABASE ${stage.databaseName} RESET default_transaction_read_only`,
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '${stage.databaseName}'`,
    );
    await waitUntil('the token is renewed', async () => (await stage.read(three, gone)).version === 2);
    await waitUntil('the servers are ready', async () =>
      (await Promise.all(servers.map(readiness))).every((status) => status === 200),
    );
    check.equal('health', await health(one, gone), 'HEALTHY CONNECTED');
    return check.done(
      `${requests.length} token requests (${sentBefore} before), ${summary(asked)}, due ${summary([askedDue])}, run out ${summary(unavailable)}, /readyz ${ready.join(' ')}; then renewed and ready`,
    );
  },
};

export const outages: readonly Experiment[] = [
  restarted('fast', 'fast shutdown'),
  restarted('immediate', 'immediate shutdown'),
  restarted('kill', 'kill -9 of the postmaster'),
  readOnly,
];
