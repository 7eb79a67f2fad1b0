import {
  calls,
  connectUser,
  disconnect,
  events,
  expire,
  health,
  read,
  stored,
  type Connection,
} from '../support/connections.js';
import { newTrackingId, post, webhookHeaders } from '../../src/sandbox/webhook-request.js';
import { meStatus } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';

/** A refresh that Zoom has carried out and answers `ms` later. */
async function refreshSlowly(stage: Stage, server: Server, connection: Connection, ms: number) {
  await expire(server, connection);
  const { clientId } = connection.app;
  stage.control.addFault({
    route: 'token',
    clientId,
    grantType: 'refresh_token',
    fault: { kind: 'hang', when: 'after', ms },
  });
  const reading = stage.read(server, connection);
  await stage.control.waitFor((entry) => entry.clientId === clientId && entry.outcome === 'rotated');
  return { reading };
}

const isAtZoom = (stage: Stage, { app, zoomUserId }: Connection): boolean =>
  stage.control.grants().some(({ clientId, userId }) => clientId === app.clientId && userId === zoomUserId);

const disconnected: Experiment = {
  id: 'X-27',
  injected: 'the user disconnects at one process while another refreshes',
  expected: 'DISCONNECTED in the end, with one event; the fresh token is revoked at Zoom and not stored',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const [one, two] = (await stage.startMany(3)) as [Server, Server];
    const connection = await connectUser(one);
    const { reading } = await refreshSlowly(stage, two, connection, 800);
    const ended = await disconnect(one, connection);
    const late = await reading;
    check.equal('health', ended, { status: 'REVOKED', reason: 'DISCONNECTED' });
    check.that(late.token === null, 'the reader got a token of an ended connection');
    await waitUntil('Zoom has no grant left', () => !isAtZoom(stage, connection));
    check.equal('stored credential', await stored(one, connection), undefined);
    check.equal('events', await events(one, connection), ['CONNECTED', 'DISCONNECTED']);
    check.equal('token requests', calls(one, connection).length, 1);
    return check.done(
      `${await health(one, connection)}, reader ${late.kind} ${late.reason ?? ''}, nothing left at Zoom`,
    );
  },
};

const reconnected: Experiment = {
  id: 'X-28',
  injected: 'the same user completes a new consent while a refresh of the old tokens is unanswered',
  expected: 'the new tokens stay and work, the late answer is discarded',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ deadline: 4, lease: 6 });
    const [one, two] = (await stage.startMany(3)) as [Server, Server];
    const connection = await connectUser(one);
    const { reading } = await refreshSlowly(stage, two, connection, 2_000);
    const { app, tenantId, userId, zoomUserId } = connection;
    await connectUser(one, { app, tenantId, userId, zoomUserId });
    const fresh = await stage.read(one, connection);
    const late = await reading;
    const last = await stage.read(two, connection);
    check.equal('versions', [fresh.version, last.version], [2, 2]);
    check.equal('tokens', last.token?.fingerprint, fresh.token?.fingerprint);
    check.that(
      late.token === null || late.token.fingerprint === fresh.token?.fingerprint,
      'the old refresh gave its token',
    );
    const status = last.token === null ? null : await meStatus(stage.callers, last.token);
    check.equal('Zoom answers the token with', status, 200);
    check.equal('events', await events(one, connection), ['CONNECTED', 'CONNECTED']);
    const row = await stored(one, connection);
    check.equal('state', row?.state, 'IDLE');
    return check.done(
      `version ${last.version} of the new consent for all, Zoom answers ${status}; fence ${row?.fence}`,
    );
  },
};

/** A deauthorization that overtakes the answer, one that follows it, and an old one that comes after a new consent. */
const deauthorized: Experiment = {
  id: 'X-29',
  injected:
    'app_deauthorized, four times each, before and after the answer of a refresh, and again after a new consent',
  expected: 'DEAUTHORIZED_AT_PROVIDER with one event each; what was consented later stays',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage();
    const [one, two] = (await stage.startMany(3)) as [Server, Server];
    stage.control.setKnobs({ webhookDuplicates: 3 });
    const before = await connectUser(one);
    const after = await connectUser(one);
    const again = await connectUser(one);

    const overtaken = await refreshSlowly(stage, two, before, 1_000);
    await remove(stage, before);
    const late = await overtaken.reading;
    check.that(late.token === null, 'the reader got a token of an ended connection');
    const settled = await refreshSlowly(stage, two, after, 10);
    await settled.reading;
    await remove(stage, after);

    const removedAt = await removeUntold(stage, again);
    const { app, tenantId, userId, zoomUserId } = again;
    await connectUser(one, { app, tenantId, userId, zoomUserId });
    const statuses = await Promise.all([1, 2, 3, 4].map(() => deliver(stage, again, removedAt)));
    check.equal('late deliveries', statuses, [200, 200, 200, 200]);

    for (const connection of [before, after]) {
      check.equal('health', await health(one, connection), 'REVOKED DEAUTHORIZED_AT_PROVIDER');
      check.equal('events', await events(one, connection), ['CONNECTED', 'DEAUTHORIZED_AT_PROVIDER']);
      check.equal('stored credential', await stored(one, connection), undefined);
    }
    check.equal('health after the new consent', await health(one, again), 'HEALTHY CONNECTED');
    check.equal('events', await events(one, again), ['CONNECTED', 'CONNECTED']);
    check.equal('read', (await read(two, again)).__typename, 'Credential');
    const attempts = stage.control.journal().filter(({ route }) => route === 'webhook').length + statuses.length;
    return check.done(`${attempts} deliveries, 2 ends with one event each, the new consent stays`);
  },
};

/** The user removes the app at Zoom. Resolves when all copies of the event are accepted. */
async function remove(stage: Stage, { app, zoomUserId }: Connection): Promise<void> {
  const since = stage.control.journal().at(-1)?.seq ?? 0;
  stage.control.removeGrant({ clientId: app.clientId, userId: zoomUserId });
  await waitUntil(
    'all copies are accepted',
    () => stage.control.journal(since).filter(({ outcome }) => outcome === 'delivered').length === 4,
  );
}

/** The user removes the app at Zoom, whose event gets lost for now. @returns when that was. */
async function removeUntold(stage: Stage, { app, zoomUserId }: Connection): Promise<Date> {
  stage.control.updateApp(app.clientId, { webhookUrl: null });
  stage.control.removeGrant({ clientId: app.clientId, userId: zoomUserId });
  stage.control.updateApp(app.clientId, { webhookUrl: app.webhookUrl });
  return new Date();
}

/** Brings the event of an earlier removal, signed now, as a repeated delivery is. @returns the answer's status. */
async function deliver(stage: Stage, { app, zoomUserId }: Connection, removedAt: Date): Promise<number> {
  const grant = stage.control
    .grants()
    .find(({ userId, clientId }) => userId === zoomUserId && clientId === app.clientId);
  const body = JSON.stringify({
    event: 'app_deauthorized',
    event_ts: removedAt.getTime(),
    payload: {
      account_id: grant?.accountId,
      user_id: zoomUserId,
      deauthorization_time: removedAt.toISOString(),
      client_id: app.clientId,
    },
  });
  const message = { body, timestamp: Math.floor(Date.now() / 1_000), trackingId: newTrackingId() };
  const signal = AbortSignal.timeout(5_000);
  const { status } = await post(app.webhookUrl, {
    headers: webhookHeaders(stage.control.app(app.clientId), message),
    body,
    signal,
  });
  return status;
}

export const endings: readonly Experiment[] = [disconnected, reconnected, deauthorized];
