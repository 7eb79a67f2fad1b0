import { calls, connectUser, expire, spoilRefresh, stored, type Connection } from '../support/connections.js';
import { freePort } from '../support/free-port.js';
import { summary } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';

interface Trouble {
  name: string;
  /** The state that says whether the refresh token may be spent. */
  state: 'IDLE' | 'IN_DOUBT';
  /** What the ledger of Zoom says of the attempt. */
  outcomes: string[];
  /** Where Zoom is for the process that asks; null: where it is. */
  oauthUrl?: (stage: Stage) => Promise<string>;
  fault?: Parameters<typeof spoilRefresh>[2];
}

const TROUBLES: readonly Trouble[] = [
  {
    name: 'connection refused',
    state: 'IDLE',
    outcomes: [],
    oauthUrl: async () => `http://127.0.0.1:${await freePort()}`,
  },
  { name: 'name not found', state: 'IDLE', outcomes: [], oauthUrl: async () => 'https://zoom.invalid' },
  {
    name: 'TLS error',
    state: 'IDLE',
    outcomes: [],
    oauthUrl: async ({ sandbox }) => sandbox.origin.replace('http:', 'https:'),
  },
  {
    name: 'reset before it is done',
    state: 'IN_DOUBT',
    outcomes: ['not-performed'],
    fault: { kind: 'drop', when: 'before' },
  },
  { name: 'reset after it is done', state: 'IN_DOUBT', outcomes: ['rotated'], fault: { kind: 'drop', when: 'after' } },
  { name: 'one byte per second', state: 'IN_DOUBT', outcomes: ['rotated'], fault: { kind: 'slow', bytesPerSecond: 1 } },
];

async function meet(stage: Stage, via: Server, { name, oauthUrl, fault }: Trouble) {
  const connection: Connection = await connectUser(via);
  await expire(via, connection);
  if (fault !== undefined) spoilRefresh(via, connection, fault);
  const server =
    oauthUrl === undefined
      ? via
      : await stage.start({ settings: { ZOOM_OAUTH_URL: await oauthUrl(stage), LATCHKEY_ROLE: 'api' } });
  const reading = await stage.read(server, connection);
  const row = await stored(via, connection);
  const outcomes = calls(via, connection).map(({ outcome }) => outcome);
  if (server !== via) await stage.end(server, 'SIGTERM');
  return { name, connection, reading, state: row?.state, version: row?.version, outcomes };
}

const network: Experiment = {
  id: 'X-17',
  injected: `a refresh meets: ${TROUBLES.map(({ name }) => name).join(', ')}`,
  expected:
    'what was not sent leaves the token as it was; what was sent is in doubt, and tried again only after the wait; all are renewed in the end',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ refreshMode: 'tolerance', doubt: 2 });
    const via = await stage.start();
    const met = await Promise.all(TROUBLES.map((trouble) => meet(stage, via, trouble)));
    const seen: string[] = [];
    for (const [index, { name, state, outcomes }] of TROUBLES.entries()) {
      const one = met[index] as (typeof met)[number];
      check.equal(name, [one.state, one.version, one.outcomes], [state, 1, outcomes]);
      check.equal(`${name}: answer`, summary([one.reading]), '1 × ProviderUnavailableError PROVIDER_UNAVAILABLE');
      const { connection } = one;
      await waitUntil(`${name} is over`, async () => (await stage.read(via, connection)).version === 2);
      check.equal(`${name}: token requests`, calls(via, connection).length, outcomes.length + 1);
      seen.push(`${name} ${one.state}, ${calls(via, connection).length} calls`);
    }
    return check.done(seen.join('; '));
  },
};

export const networks: readonly Experiment[] = [network];
