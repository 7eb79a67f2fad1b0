import {
  calls,
  connectUser,
  events,
  expire,
  health,
  makeDue,
  spoilRefresh,
  stored,
  type Connection,
} from '../support/connections.js';
import { createTenant, registerApp } from '../support/story.js';
import { summary } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server } from './stage.js';
import { pass, waitUntil } from './waiting.js';

/** What `Retry-After` says, and how long nobody may ask again. */
const WISHES: readonly [name: string, header: () => Record<string, string>, seconds: number][] = [
  ['1', () => ({ 'retry-after': '1' }), 1],
  ['120', () => ({ 'retry-after': '120' }), 120],
  ['a date in 3 s', () => ({ 'retry-after': new Date(Date.now() + 3_500).toUTCString() }), 2.5],
  ['absent', () => ({}), 0.1],
  ['garbage', () => ({ 'retry-after': 'soon, -5; @@' }), 0.1],
];

const WATCHED_SECONDS = 7;

const limited: Experiment = {
  id: 'X-12',
  injected: `429 with Retry-After ${WISHES.map(([name]) => name).join(', ')}; readers at 3 processes go on asking`,
  expected: 'the next token request comes no sooner than told, then succeeds; nobody is marked',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const [via] = servers;
    const connections: Connection[] = [];
    for (const [,] of WISHES) connections.push(await connectUser(via));
    await expire(via, ...connections);
    for (const [index, [, headers]] of WISHES.entries()) {
      spoilRefresh(via, connections[index] as Connection, { kind: 'status', status: 429, headers: headers() });
    }
    const first = await Promise.all(connections.map((connection) => stage.read(via, connection)));
    check.equal('first answers', summary(first), `${WISHES.length} × ProviderUnavailableError RATE_LIMITED`);
    const end = Date.now() + WATCHED_SECONDS * 1_000;
    while (Date.now() < end) {
      await Promise.all(servers.flatMap((server) => connections.map((connection) => stage.read(server, connection))));
      await pass(0.1);
    }
    const seen: string[] = [];
    for (const [index, [name, , seconds]] of WISHES.entries()) {
      const connection = connections[index] as Connection;
      const [refused, next] = calls(via, connection).map(({ at }) => Date.parse(at));
      const waited = next === undefined ? null : (next - (refused ?? 0)) / 1_000;
      if (seconds > WATCHED_SECONDS) check.equal(`${name}: asked again after`, waited, null);
      else check.that(waited !== null && waited >= seconds - 0.05, `${name}: asked again after ${waited} s`);
      check.equal(`${name}: health`, await health(via, connection), 'HEALTHY CONNECTED');
      seen.push(`${name}: ${waited === null ? `not within ${WATCHED_SECONDS} s` : `after ${waited.toFixed(1)} s`}`);
    }
    return check.done(seen.join('; '));
  },
};

const STATUSES = [500, 502, 503, 504] as const;
const PER_STATUS = 16;
const OUTAGE_SECONDS = 14;
const PROCESSES = 3;
/** Failures in a row that open the breaker of an app in one process, and how often it is tried then. */
const BREAKER_FAILURES = 10;
const TRIALS = 5;
/** One first attempt each, and what each process needs to find out, for each app, that Zoom is down. */
const BUDGET = STATUSES.length * (PER_STATUS + PROCESSES * (BREAKER_FAILURES + TRIALS));

const outage: Experiment = {
  id: 'X-13',
  injected: `Zoom answers ${STATUSES.join(', ')} to the refreshes of one app each for ${OUTAGE_SECONDS} s; half of the tokens are valid, half have run out`,
  expected: `at most ${BUDGET} token requests; valid tokens are served throughout; DEGRADED after 3 failures, with one event; all recover by themselves`,
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = (await stage.startMany(PROCESSES)) as [Server, Server, Server];
    const [via] = servers;
    const all: { connection: Connection; isValid: boolean }[] = [];
    for (const status of STATUSES) {
      const app = await registerApp(via, 'USER_MANAGED');
      const tenantId = await createTenant(via);
      for (let index = 0; index < PER_STATUS; index += 1) {
        const connection = await connectUser(via, { app, tenantId, userId: `user_${index}` });
        all.push({ connection, isValid: index % 2 === 0 });
      }
      const fault = { kind: 'status', status } as const;
      stage.control.addFault({
        route: 'token',
        clientId: app.clientId,
        grantType: 'refresh_token',
        times: 10_000,
        fault,
      });
    }
    const connections = all.map(({ connection }) => connection);
    await expire(via, ...all.filter(({ isValid }) => !isValid).map(({ connection }) => connection));
    await makeDue(via, ...connections);
    const end = Date.now() + OUTAGE_SECONDS * 1_000;
    const served = [];
    while (Date.now() < end) {
      for (const { connection, isValid } of all) {
        const server = servers[served.length % 3] as Server;
        served.push({ isValid, reading: await stage.read(server, connection) });
      }
      await pass(0.2);
    }
    const requests = stage.control.journal().filter(({ grantType }) => grantType === 'refresh_token').length;
    const states = await Promise.all(connections.map(async (connection) => (await health(via, connection)) ?? 'gone'));
    const valid = served.filter(({ isValid }) => isValid).map(({ reading }) => reading);
    check.that(requests <= BUDGET, `${requests} token requests`);
    check.that(
      valid.every(({ kind }) => kind === 'Credential'),
      `valid tokens: ${summary(valid)}`,
    );
    check.that(
      states.every((state) => state === 'HEALTHY CONNECTED' || state === 'DEGRADED PROVIDER_UNAVAILABLE'),
      `health: ${[...new Set(states)].join(', ')}`,
    );
    const degraded = states.filter((state) => state.startsWith('DEGRADED')).length;
    check.that(degraded > 0, 'nothing is degraded');

    stage.control.clearFaults();
    const startedAt = performance.now();
    await waitUntil(
      'all are renewed',
      async () => (await Promise.all(connections.map((one) => stored(via, one)))).every((row) => row?.version === 2),
      45,
    ).catch((error: Error) => check.that(false, error.message));
    const seconds = (performance.now() - startedAt) / 1_000;
    const stories = new Set(
      (await Promise.all(connections.map((one) => events(via, one)))).map((story) => story.join(' ')),
    );
    const told = ['CONNECTED', 'CONNECTED PROVIDER_UNAVAILABLE RECOVERED'];
    check.that(
      [...stories].every((story) => told.includes(story)),
      `events: ${[...stories].join(', ')}`,
    );
    return check.done(
      `${requests} token requests in ${OUTAGE_SECONDS} s for ${all.length} connections; valid ${summary(valid)}; ${degraded} degraded; all renewed ${seconds.toFixed(1)} s after the end`,
    );
  },
};

export const throttling: readonly Experiment[] = [limited, outage];
