import sql from 'sql-template-tag';
import {
  ask,
  calls,
  connectUser,
  events,
  expire,
  health,
  makeDue,
  spoilRefresh,
  type Connection,
} from '../support/connections.js';
import { createTenant, registerApp } from '../support/story.js';
import { summary } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server } from './stage.js';
import { pass, waitUntil } from './waiting.js';

/** What Zoom says when a grant has ended, and the reason that is told for it. */
const ENDS: readonly [name: string, body: Record<string, unknown>, reason: string][] = [
  ['invalid_grant', { error: 'invalid_grant', reason: 'Invalid Token!' }, 'GRANT_REJECTED'],
  ['4733', { error: 'invalid_request', reason: 'code expired', code: 4733 }, 'GRANT_EXPIRED'],
  ['4735', { error: 'invalid_request', reason: 'owner not found', code: 4735 }, 'PROVIDER_USER_REMOVED'],
  ['4737', { error: 'invalid_request', reason: 'token not found', code: 4737 }, 'GRANT_REJECTED'],
  ['4738', { error: 'invalid_request', reason: 'disabled by admin', code: 4738 }, 'DISABLED_BY_ADMIN'],
  ['4741', { error: 'invalid_request', reason: 'token revoked', code: 4741 }, 'SUPERSEDED'],
];

const terminal: Experiment = {
  id: 'X-15',
  injected: `a refresh is answered with 400 and ${ENDS.map(([name]) => name).join(', ')}`,
  expected: 'each connection ends with its own reason and one event; 0 further token requests, whoever asks',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const [via] = servers;
    const seen: string[] = [];
    for (const [name, body, reason] of ENDS) {
      const connection = await connectUser(via);
      await expire(via, connection);
      spoilRefresh(via, connection, { kind: 'status', status: 400, body });
      const first = await stage.read(via, connection);
      check.equal(name, first.reason, reason);
      await makeDue(via, connection);
      await Promise.all([...servers, ...servers].map((server) => stage.read(server, connection)));
      await ask(via, 'refreshGrant', connection);
      seen.push(`${name} ${first.reason}`);
      check.equal(`${name}: events`, await events(via, connection), ['CONNECTED', reason]);
    }
    // As long as two rounds of the schedulers.
    await pass(2);
    const requests = stage.control.journal().filter(({ grantType }) => grantType === 'refresh_token');
    check.equal('token requests', requests.length, ENDS.length);
    return check.done(`${seen.join(', ')}; ${requests.length} token requests in all`);
  },
};

const CONNECTIONS = 9;
const MOST_CALLS = 3;

async function incidentOf(via: Server, { clientId }: Connection['app']): Promise<string | null> {
  const [row] = await via.db.query<{ reason: string | null }>(sql`
    SELECT incident_reason AS reason FROM provider_app WHERE client_id = ${clientId}`);
  return row?.reason ?? null;
}

const wrongSecret: Experiment = {
  id: 'X-16',
  injected: `the client secret of an app is changed at Zoom; ${CONNECTIONS} of its tokens run out and are asked for one after the other at 3 processes`,
  expected: `at most ${MOST_CALLS} token requests, one incident that is logged once, no connection marked; with the new secret all recover`,
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const [via] = servers;
    const app = await registerApp(via, 'USER_MANAGED');
    const tenantId = await createTenant(via);
    const connections: Connection[] = [];
    for (let index = 0; index < CONNECTIONS; index += 1) {
      connections.push(await connectUser(via, { app, tenantId, userId: `user_${index}` }));
    }
    const { clientSecret } = stage.control.rotateSecret(app.clientId);
    await expire(via, ...connections);
    await makeDue(via, ...connections.slice(0, 3));
    const readings = [];
    for (const [index, connection] of connections.entries()) {
      readings.push(await stage.read(servers[index % 3] as Server, connection));
    }
    const calledBefore = calls(via, { app }).length;
    check.that(calledBefore <= MOST_CALLS, `${calledBefore} token requests`);
    check.equal('answers', summary(readings), `${CONNECTIONS} × ProviderUnavailableError APP_REJECTED`);
    check.equal('incident', await incidentOf(via, app), 'APP_REJECTED');
    for (const connection of connections) check.equal('health', await health(via, connection), 'HEALTHY CONNECTED');
    const logged =
      servers
        .map(({ process }) => process.output())
        .join('')
        .split('Zoom refuses the credentials').length - 1;
    check.equal('times the incident is logged', logged, 1);

    await via.data(
      `mutation ($input: UpdateProviderAppInput!) {
        updateProviderApp(input: $input) { __typename ... on Error { message } }
      }`,
      { input: { id: app.id, clientSecret } },
    );
    const startedAt = performance.now();
    const isRenewed = async (connection: Connection) => (await stage.read(via, connection)).version === 2;
    await waitUntil('all recover', async () => (await Promise.all(connections.map(isRenewed))).every(Boolean), 45);
    const seconds = (performance.now() - startedAt) / 1_000;
    check.equal('incident afterwards', await incidentOf(via, app), null);
    return check.done(
      `${calledBefore} token requests, ${summary(readings)}, logged ${logged} time; all recovered ${seconds.toFixed(1)} s after the new secret`,
    );
  },
};

export const refusals: readonly Experiment[] = [terminal, wrongSecret];
