import { request } from 'node:http';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { readFigures } from '../src/domain/figures.js';
import { recordTransitions } from '../src/domain/health-event.js';
import { healthOf } from '../src/domain/health.js';
import { countOccurrences } from '../src/metrics/count-occurrences.js';
import { createInstruments } from '../src/metrics/instruments.js';
import { createMeters } from '../src/metrics/meters.js';
import { createSampler, type Sources } from '../src/metrics/sampler.js';
import { ask, connectUser, disconnect, read, spoilRefresh } from './support/connections.js';
import { startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { openSse } from './support/streams.js';
import { flip, makeGrants } from './support/transitions.js';
import { until } from './support/until.js';
import { connectReceiver } from './support/webhook-endpoint.js';
import { deliver, nowSeconds } from './support/webhook.js';

const server = await startTestServer({ LATCHKEY_METRICS_PORT: '0', LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '127.0.0.1/32' });

const metricsUrl = server.metricsUrl ?? '';

const scrape = async (): Promise<string> => (await fetch(metricsUrl)).text();

/** The sum of the series of this name that have all these labels. */
function valueIn(text: string, name: string, labels: Record<string, string> = {}): number {
  const wanted = Object.entries(labels).map(([label, value]) => `${label}="${value}"`);
  const lines = text
    .split('\n')
    .filter((line) => /^[^ {]+/.exec(line)?.[0] === name && wanted.every((label) => line.includes(label)));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
}

const value = async (name: string, labels?: Record<string, string>) => valueIn(await scrape(), name, labels);

/** How much a figure grows while something is done. */
async function growth(name: string, labels: Record<string, string>, run: () => Promise<unknown>): Promise<number> {
  const before = await value(name, labels);
  await run();
  return (await value(name, labels)) - before;
}

test('figures are served on a listener of their own, and only there', async () => {
  expect(new URL(metricsUrl).hostname).toBe('127.0.0.1');
  expect(new URL(metricsUrl).port).not.toBe(new URL(server.url).port);
  const answer = await fetch(metricsUrl);
  expect([answer.status, answer.headers.get('content-type')]).toEqual([
    200,
    'text/plain; version=0.0.4; charset=utf-8',
  ]);
  expect((await fetch(`${server.url}/metrics`)).status).toBe(404);
  for (const path of ['/', '/graphql', '/readyz', '/metrics/', '/metrics?x']) {
    expect((await fetch(new URL(path, metricsUrl))).status).toBe(404);
  }
  expect((await fetch(metricsUrl, { method: 'POST' })).status).toBe(405);
});

test('a start whose port for figures is taken says which settings to change, and leaves nothing running', async () => {
  const { port } = new URL(metricsUrl);
  await expect(startSecondServer(server.db, { LATCHKEY_METRICS_PORT: port })).rejects.toThrow(
    `Cannot listen on 127.0.0.1:${port}: it is in use by another program. Set LATCHKEY_METRICS_HOST and LATCHKEY_METRICS_PORT to something else.`,
  );
});

test('a scrape tells what this process is and that it is ready', async () => {
  const text = await scrape();
  expect(valueIn(text, 'latchkey_info', { role: 'all' })).toBe(1);
  expect(valueIn(text, 'latchkey_ready')).toBe(1);
  expect(valueIn(text, 'latchkey_database_up')).toBe(1);
  expect(text).toMatch(/^nodejs_eventloop_lag_p99_seconds \d/m);
  expect(text).toMatch(/^process_resident_memory_bytes \d/m);
});

test('refreshes are counted by outcome and cause, and so are the requests to Zoom behind them', async () => {
  const it = await connectUser(server);
  const refreshed = { outcome: 'refreshed', cause: 'none', attempt: 'first' };
  expect(await growth('latchkey_refreshes_total', refreshed, () => ask(server, 'refreshGrant', it))).toBe(1);
  spoilRefresh(server, it, { kind: 'status', status: 503 } as never);
  const failed = { outcome: 'failed', cause: 'provider_unavailable' };
  const unavailable = { operation: 'refresh', outcome: 'unavailable_answered' };
  let requests = 0;
  const failures = await growth('latchkey_refreshes_total', failed, async () => {
    requests = await growth('latchkey_provider_requests_total', unavailable, () => ask(server, 'refreshGrant', it));
  });
  expect([failures, requests]).toEqual([1, 1]);
  expect(await value('latchkey_spool_writes_total', { result: 'disk' })).toBeGreaterThan(0);
});

test('reads of credentials are counted by outcome and timed apart from other operations', async () => {
  const it = await connectUser(server);
  const one = { operation: 'credential', outcome: 'ok' };
  expect(await growth('latchkey_graphql_operations_total', one, () => read(server, it))).toBe(1);
  expect(await growth('latchkey_credential_reads_total', { outcome: 'served' }, () => read(server, it))).toBe(1);
  expect(await growth('latchkey_vault_operations_total', { operation: 'open' }, () => read(server, it))).toBe(1);
  const unknown = { ...it, input: { ...it.input, userId: 'nobody' } };
  const missed = { outcome: 'GrantNotFoundError' };
  expect(await growth('latchkey_credential_reads_total', missed, () => read(server, unknown))).toBe(1);
});

test('operations that are refused are counted by why', async () => {
  const unsigned = { outcome: 'unauthenticated' };
  const withoutKey = () => server.graphql('{ viewer { kind } }', {}, { authorization: 'Bearer wrong' });
  expect(await growth('latchkey_graphql_operations_total', unsigned, withoutKey)).toBe(1);
  for (const wrong of ['{ nothing }', '{', 'query ($a: ID!) { node(id: $a) { id } }']) {
    const counted = await growth('latchkey_graphql_operations_total', { outcome: 'bad_request' }, () =>
      server.graphql(wrong),
    );
    expect([wrong, counted]).toEqual([wrong, 1]);
  }
});

test('webhooks are counted by what became of them, and a stale one that is signed points to a clock', async () => {
  const { app } = await connectUser(server);
  const { webhookSecret: secret } = app.atZoom;
  const body = { event: 'app_deauthorized', payload: {} };
  const counted = (outcome: string, run: () => Promise<unknown>) => growth('latchkey_webhooks_total', { outcome }, run);
  expect(await counted('bad_signature', () => deliver(app.webhookUrl, body, { secret: 'another' }))).toBe(1);
  const old = { secret, timestamp: nowSeconds() - 301 };
  expect(await counted('clock_skew_suspected', () => deliver(app.webhookUrl, body, old))).toBe(1);
  expect(await counted('without_effect', () => deliver(app.webhookUrl, { event: 'x', payload: {} }, { secret }))).toBe(
    1,
  );
  expect(await counted('unknown_app', () => deliver(`${server.url}/webhooks/zoom/none`, body, { secret }))).toBe(1);
  expect(await counted('too_large', () => deliver(app.webhookUrl, 'x'.repeat(1_048_577), { secret }))).toBe(1);
});

test('deliveries to webhook endpoints are counted by outcome, and endpoints that fail are told', async () => {
  const { tenantId } = await connectUser(server);
  const endpoint = await connectReceiver(server, { tenantId });
  const delivered = { outcome: 'delivered' };
  const [grant] = await makeGrants(server.db, 1, tenantId);
  const tellAndSettle = async (outcome: { outcome: string }) => {
    const before = await value('latchkey_deliveries_total', outcome);
    await flip(server.db, grant!, 1);
    await until(async () => (await value('latchkey_deliveries_total', outcome)) > before);
  };
  expect(await growth('latchkey_deliveries_total', delivered, () => tellAndSettle(delivered))).toBe(1);
  endpoint.receiver.answer = () => ({ status: 410 });
  await tellAndSettle({ outcome: 'refused' });
  await until(async () => (await readFigures(server)).endpointsDisabled === 1);
  expect(await readFigures(server)).toMatchObject({ deliveryOverdueSeconds: 0, endpointsFailing: 0 });
  const other = await connectReceiver(server, { tenantId });
  await server.db.query(sql`
    UPDATE webhook_endpoint SET failing_since = now() WHERE id = ${other.rowId}::uuid`);
  expect(await readFigures(server)).toMatchObject({ endpointsFailing: 1, endpointsDisabled: 1 });
});

test('transitions of health are counted once they are stored, and not where they are rolled back', async () => {
  const it = await connectUser(server);
  const ended = { status: 'revoked', reason: 'disconnected' };
  expect(await growth('latchkey_health_transitions_total', ended, () => disconnect(server, it))).toBe(1);

  const meters = createMeters();
  const stop = countOccurrences(meters);
  const database = createInstruments(meters).database(server.db);
  const [grant] = await server.db.query<{ tenantId: string }>(sql`
    SELECT tenant_id AS "tenantId" FROM provider_grant WHERE id = ${it.rowId}::uuid`);
  const transition = {
    grantId: it.rowId,
    tenantId: grant?.tenantId ?? '',
    previous: healthOf('DISCONNECTED'),
    next: healthOf('DEAUTHORIZED_AT_PROVIDER'),
  };
  const undone = database.transaction(async (tx) => {
    await recordTransitions(tx, [transition]);
    throw new Error('undone');
  });
  await expect(undone).rejects.toThrow('undone');
  stop();
  expect((await meters.healthTransitions.get()).values).toEqual([]);
});

test('subscriptions are counted while they last', async () => {
  const serving = { subscription: 'health_events' };
  const stream = await openSse(server.url, 'subscription { healthChanged { id } }');
  await until(async () => (await value('latchkey_subscribers', serving)) === 1);
  const delivered = await growth('latchkey_events_delivered_total', {}, async () => {
    await connectUser(server);
    await stream.next();
  });
  expect(delivered).toBeGreaterThan(0);
  await stream.close();
  await until(async () => (await value('latchkey_subscribers', serving)) === 0);
});

test('figures hold no name, id or secret, and few series', async () => {
  const it = await connectUser(server);
  await read(server, it);
  await ask(server, 'checkGrant', it);
  const text = await scrape();
  const { clientId, clientSecret, webhookSecret } = it.app.atZoom;
  for (const word of [it.tenantId, it.userId, it.rowId, it.id, it.zoomUserId, it.app.id]) {
    expect(text).not.toContain(word);
  }
  for (const word of [clientId, clientSecret, webhookSecret, server.adminKey, 'ZCANARY']) {
    expect(text).not.toContain(word);
  }
  const labels = new Set([...text.matchAll(/([a-z_]+)="/g)].map(([, label]) => label));
  for (const label of ['tenant', 'user', 'grant', 'app', 'client', 'url', 'path']) expect(labels).not.toContain(label);
  expect(text.split('\n').filter((line) => line.startsWith('latchkey_')).length).toBeLessThan(800);
});

test('what the database cannot tell at the moment is left out instead of being told as it was', async () => {
  const meters = createMeters();
  let away = false;
  const asked =
    <T>(answer: T) =>
    async () => {
      if (away) throw new Error('connection refused');
      return answer;
    };
  const sources: Sources = {
    load: () => ({ running: 0, queued: 0, pausedApps: 0 }),
    cachedKeys: () => 0,
    rootKeyFailing: () => 0,
    postponed: () => 0,
    unrecordedReads: () => 0,
    pool: () => ({ open: 3, idle: 1, waiting: 2, max: 20, shares: { held: 2, waiting: 1, waited: 5, refused: 3 } }),
    webSockets: () => 0,
    notReady: async () => (away ? (['database_unreachable'] as const) : []),
    clockOffset: asked(0),
    figures: asked({
      refreshLagSeconds: 7,
      appsBehind: 1,
      incidents: 0,
      revocationsPending: 4,
      oldestRevocationSeconds: 9,
      deliveryOverdueSeconds: 0,
      endpointsFailing: 0,
      endpointsDisabled: 0,
    }),
    grants: asked([{ status: 'HEALTHY', reason: 'CONNECTED', count: 5 } as const]),
  };
  await createSampler(meters, sources)();
  const before = await meters.registry.metrics();
  expect(valueIn(before, 'latchkey_refresh_lag_seconds')).toBe(7);
  expect(valueIn(before, 'latchkey_grants', { status: 'healthy' })).toBe(5);
  expect(valueIn(before, 'latchkey_database_pool_connections', { state: 'busy' })).toBe(2);
  expect(valueIn(before, 'latchkey_database_share_waits_total', { outcome: 'served' })).toBe(5);
  away = true;
  await createSampler(meters, sources)();
  await createSampler(meters, sources)();
  const after = await meters.registry.metrics();
  // Told as often as somebody asks, and not added up.
  expect(valueIn(after, 'latchkey_database_share_waits_total', { outcome: 'refused' })).toBe(3);
  expect(after).toMatch(/^latchkey_database_up 0$/m);
  expect(after).toMatch(/^latchkey_not_ready\{reason="database_unreachable"\} 1$/m);
  expect(after).not.toMatch(/^latchkey_(refresh_lag_seconds|grants|revocations_pending|clock_offset_seconds)[ {]/m);
});

test('a client that never ends its request does not hold up the figures of others', async () => {
  const { hostname, port } = new URL(metricsUrl);
  const slow = request({ hostname, port, path: '/metrics', method: 'POST', headers: { 'content-length': '10' } });
  slow.on('error', () => undefined);
  slow.write('x');
  expect(await scrape()).toContain('latchkey_ready');
  slow.destroy();
});
