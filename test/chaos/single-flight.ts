import { calls, connectUser, events, expire, type Connection } from '../support/connections.js';
import { createTenant, registerApp } from '../support/story.js';
import { percentile, summary, type Reading } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';

const READERS = 1_000;
const LATENCY_MS = 1_000;
const ALLOWANCE_MS = 250;

/** All readers at once, evenly over the servers. */
const readEverywhere = (stage: Stage, servers: readonly Server[], connection: Connection, count: number) =>
  Promise.all(Array.from({ length: count }, (_, index) => stage.read(at(servers, index), connection)));

const at = <T>(items: readonly T[], index: number): T => items[index % items.length] as T;

const durations = (readings: readonly Reading[]) => readings.map(({ startedAt, endedAt }) => endedAt - startedAt);

/** Reads one credential again and again until told to stop. */
async function keepReading(stage: Stage, servers: readonly Server[], connection: Connection, signal: AbortSignal) {
  const readings: Reading[] = [];
  while (!signal.aborted) readings.push(await stage.read(at(servers, readings.length), connection));
  return readings;
}

const storm: Experiment = {
  id: 'X-01',
  injected: `${READERS} readers at 3 processes ask at once for one expired credential; Zoom takes ${LATENCY_MS} ms`,
  expected: `1 token request; ${READERS} times the same token; no second event; p99 below Zoom's latency + ${ALLOWANCE_MS} ms + p99 of the same readers without a refresh; another tenant waits no longer than beside those`,
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = await stage.startMany(3);
    const app = await registerApp(at(servers, 0), 'USER_MANAGED');
    const hot = await connectUser(at(servers, 0), { app });
    const other = await connectUser(at(servers, 0), { app, tenantId: await createTenant(at(servers, 0)) });
    // The first burst opens connections and warms everything up; the second is what the storm is compared with.
    await readEverywhere(stage, servers, hot, READERS);
    const measure = async (burst: () => Promise<Reading[]>) => {
      const stop = new AbortController();
      const beside = keepReading(stage, servers, other, stop.signal);
      const readings = await burst();
      stop.abort();
      return {
        readings,
        p99: percentile(durations(readings), 0.99),
        beside: percentile(durations(await beside), 0.99),
      };
    };
    const calm = await measure(() => readEverywhere(stage, servers, hot, READERS));
    await expire(at(servers, 0), hot);
    stage.control.setKnobs({ tokenDelayMs: LATENCY_MS });
    const hit = await measure(() => readEverywhere(stage, servers, hot, READERS));

    const tokens = new Set(hit.readings.map(({ token }) => token?.fingerprint));
    check.equal(
      'token requests',
      calls(at(servers, 0), hot).map(({ outcome }) => outcome),
      ['rotated'],
    );
    check.equal('answers', summary(hit.readings), `${READERS} × Credential v2`);
    check.equal('distinct tokens', tokens.size, 1);
    check.equal('events', await events(at(servers, 0), hot), ['CONNECTED']);
    check.that(hit.p99 < LATENCY_MS + ALLOWANCE_MS + calm.p99, `p99 is ${hit.p99} ms`);
    check.that(hit.beside <= calm.beside * 1.2 + 50, `the other tenant's p99 is ${hit.beside} ms`);
    return check.done(
      `1 token request, ${summary(hit.readings)}, ${tokens.size} token; p99 ${hit.p99} ms (without a refresh ${calm.p99} ms); other tenant p99 ${hit.beside} ms (${calm.beside} ms)`,
    );
  },
};

const slowZoom: Experiment = {
  id: 'X-02',
  injected: '300 readers at 3 processes ask for one expired credential; Zoom answers after 3.5 s, the lease lasts 3 s',
  expected:
    '1 token request, none refused; callers get the token or are told to come back; after the doubt one more request settles it',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ refreshMode: 'tolerance', deadline: 2, lease: 3, doubt: 5 });
    const servers = await stage.startMany(3);
    const connection = await connectUser(at(servers, 0));
    await expire(at(servers, 0), connection);
    stage.control.addFault({ route: 'token', fault: { kind: 'hang', when: 'after', ms: 3_500 } });
    const readings = await readEverywhere(stage, servers, connection, 300);
    const during = calls(at(servers, 0), connection).map(({ outcome }) => outcome);
    check.equal('token requests while callers waited', during, ['rotated']);
    check.that(
      readings.every(({ kind, version, retryAfterSeconds }) =>
        kind === 'Credential' ? version === 2 : kind === 'ProviderUnavailableError' && (retryAfterSeconds ?? 0) > 0,
      ),
      `answers: ${summary(readings)}`,
    );
    await waitUntil('the doubt is settled', async () => (await stage.read(at(servers, 1), connection)).version === 2);
    const all = calls(at(servers, 0), connection).map(({ outcome }) => outcome);
    check.equal('token requests in all', all, ['rotated', 'rotated']);
    check.equal('events', await events(at(servers, 0), connection), ['CONNECTED']);
    return check.done(`${during.length} token request for ${summary(readings)}; ${all.length} in all, then version 2`);
  },
};

export const singleFlight: readonly Experiment[] = [storm, slowZoom];
