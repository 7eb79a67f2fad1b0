import { expect, test } from 'vitest';
import { createLog } from '../src/log.js';
import { openTracing } from '../src/tracing/tracing.js';
import { summaryOf } from '../src/tracing/create-tracers.js';
import { attributesOf, failureOf } from '../src/tracing/attributes.js';
import { pathTemplate } from '../src/zoom/path-template.js';
import { findCanaries } from './support/canary.js';
import { type CollectedSpan, startCollector } from './support/collector.js';
import { age, connectUser, disconnect, expire, makeDue, read, spoilRefresh, stored } from './support/connections.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { CREDENTIAL } from './support/story.js';
import { openSse } from './support/streams.js';
import { until } from './support/until.js';
import { deliver, nowSeconds } from './support/webhook.js';

const collector = await startCollector();
const server = await startTestServer({ OTEL_EXPORTER_OTLP_ENDPOINT: `${collector.url}/` });

const CLIENT_TRACE = '4bf92f3577b34da6a3ce929d0e0e4736';
const CLIENT_SPAN = '00f067aa0ba902b7';
const OTHER_TRACE = '0af7651916cd43dd8448eb211c80319c';
const UNSAMPLED_TRACE = '1af7651916cd43dd8448eb211c80319c';

/** Plays everything first: the end of the server sends what it has gathered. */
const story = await (async () => {
  const connection = await connectUser(server);
  const credential = { input: connection.input };
  // A stream that is open meanwhile is served by what belongs to nobody's trace.
  const stream = await openSse(server.url, 'subscription Watch { healthChanged { id } }');
  await age(server, 600, connection);
  await expire(server, connection);
  await server.graphql(CREDENTIAL.replace('query', 'query ReadIt'), credential, {
    traceparent: `00-${CLIENT_TRACE}-${CLIENT_SPAN}-01`,
  });
  await server.graphql(CREDENTIAL, credential, { traceparent: `00-${UNSAMPLED_TRACE}-${CLIENT_SPAN}-00` });
  await server.graphql(CREDENTIAL, credential, {
    authorization: 'Bearer wrong',
    traceparent: `00-${OTHER_TRACE}-${CLIENT_SPAN}-01`,
  });
  await deliver(connection.app.webhookUrl, '{"event":"nothing"}', {
    secret: 'not-the-secret',
    timestamp: nowSeconds(),
    headers: { traceparent: `00-${OTHER_TRACE}-${CLIENT_SPAN}-01` },
  });
  await makeDue(server, connection);
  await until(async () => (await stored(server, connection))?.version === 3);
  const failing = await connectUser(server, { tenantId: connection.tenantId, userId: 'user_2' });
  spoilRefresh(server, failing, { kind: 'status', status: 500 });
  await expire(server, failing);
  await read(server, failing);
  await disconnect(server, connection);
  await fetch(`${server.url}/nothing/here?code=ZQUERY`, { headers: { 'user-agent': 'ZAGENT' } });
  await fetch(`${server.url}/livez`);
  await stream.close();
  await server.close();
  return { connection, failing };
})();

const spans = collector.spans();
const byId = new Map(spans.map((span) => [span.spanId, span]));
const ofTrace = (traceId: string) => spans.filter((span) => span.traceId === traceId);
const parentOf = ({ parentSpanId = '' }: CollectedSpan) => byId.get(parentSpanId);
const pathOf = (span: CollectedSpan): string[] => {
  const parent = parentOf(span);
  return [...(parent === undefined ? [] : pathOf(parent)), span.name];
};

test('one trace leads from the client through GraphQL and the refresh to Zoom and the database', () => {
  const trace = ofTrace(CLIENT_TRACE);
  const request = trace.find(({ name }) => name === 'POST /graphql');
  expect(request).toMatchObject({ parentSpanId: CLIENT_SPAN, kind: 2, status: 0 });
  expect(request?.attributes).toMatchObject({ 'http.response.status_code': 200, 'http.route': '/graphql' });
  const paths = trace.map((span) => pathOf(span).join(' > '));
  const credential = 'POST /graphql > GraphQL query > credential';
  expect(paths).toEqual(
    expect.arrayContaining([
      credential,
      `${credential} > SELECT tenant`,
      `${credential} > refresh`,
      expect.stringMatching(`^${credential} > refresh > refresh lease > (UPDATE|SELECT) \\w+`),
      `${credential} > refresh > POST /oauth/token`,
      `${credential} > refresh > refresh spool`,
      expect.stringMatching(`^${credential} > refresh > refresh commit > transaction > UPDATE credential`),
    ]),
  );
  const refresh = trace.find(({ name }) => name === 'refresh');
  expect(refresh?.events).toEqual(['leased', 'answered', 'spooled', 'committing', 'committed']);
  expect(refresh?.attributes).toMatchObject({
    'latchkey.grant.id': story.connection.rowId,
    'latchkey.refresh.trigger': 'request',
    'latchkey.outcome': 'refreshed',
    'latchkey.cause': 'none',
  });
  expect(trace.find(({ name }) => name === 'GraphQL query')?.attributes).toEqual({
    'graphql.operation.type': 'query',
    'graphql.operation.name': 'ReadIt',
  });
  expect(trace.find(({ name }) => name === 'credential')?.attributes).toMatchObject({ 'latchkey.outcome': 'served' });
  const provider = trace.find(({ name }) => name === 'POST /oauth/token');
  expect(provider?.attributes).toEqual({
    'http.request.method': 'POST',
    'http.response.status_code': 200,
    'peer.service': 'zoom',
    'server.address': '127.0.0.1',
    'url.template': '/oauth/token',
  });
});

test('every span begins after its parent, and has it in the same trace', () => {
  expect(spans.length).toBeGreaterThan(50);
  for (const span of spans) {
    const parent = parentOf(span);
    if (span.parentSpanId !== undefined && span.parentSpanId !== CLIENT_SPAN) expect(parent).toBeDefined();
    if (parent === undefined) continue;
    expect(parent.traceId).toBe(span.traceId);
    expect(span.startNano).toBeGreaterThanOrEqual(parent.startNano - 2_000_000n);
  }
});

test('nobody but the holder of a server key chooses the trace, and an unsampled one is not recorded', () => {
  expect(ofTrace(OTHER_TRACE)).toEqual([]);
  expect(ofTrace(UNSAMPLED_TRACE)).toEqual([]);
  const refused = spans.find((span) => span.attributes['http.response.status_code'] === 401);
  expect(refused).toMatchObject({ name: 'POST /graphql', parentSpanId: undefined, status: 0 });
});

test('Zoom is not sent the trace', () => {
  expect(JSON.stringify(server.sandbox.control.journal())).not.toMatch(/traceparent|4bf92f3577b34da6/);
});

test('a refresh by schedule is a trace of its own, and a job without work is none', () => {
  const scheduled = spans.find(({ attributes }) => attributes['latchkey.refresh.trigger'] === 'schedule');
  expect(scheduled).toMatchObject({ name: 'refresh', parentSpanId: undefined });
  const children = ofTrace(scheduled?.traceId ?? '').map(({ name }) => name);
  expect(children).toEqual(expect.arrayContaining(['POST /oauth/token', 'refresh spool', 'refresh commit']));
  const jobs = new Set(spans.filter(({ name }) => name.startsWith('job ')).map(({ name }) => name));
  expect(jobs).not.toContain('job watch-clock');
  expect(jobs).not.toContain('job forget-keys');
});

test('what fails says so by a code of ours', () => {
  const failed = spans.find(
    ({ name, attributes }) => name === 'refresh' && attributes['latchkey.grant.id'] === story.failing.rowId,
  );
  expect(failed?.attributes).toMatchObject({
    'latchkey.outcome': 'failed',
    'latchkey.cause': 'PROVIDER_UNAVAILABLE',
    'latchkey.refresh.attempt': 'first',
  });
  const [provider] = ofTrace(failed?.traceId ?? '').filter(({ name }) => name === 'POST /oauth/token');
  expect(provider).toMatchObject({ status: 2, attributes: { 'error.type': '500', 'http.response.status_code': 500 } });
});

test('webhooks, unknown paths and connecting are shown by route, and health checks are not', () => {
  const names = new Set(spans.map(({ name }) => name));
  for (const name of [
    'POST /webhooks/zoom/{id}',
    'webhook',
    'GET /oauth/start/{id}',
    'GET /oauth/callback/{id}',
    'GET *',
  ])
    expect(names).toContain(name);
  expect([...names].filter((name) => name.includes('livez'))).toEqual([]);
  expect(names).toContain('GET /v2/users/me');
});

test('a stream is shown until it has begun', () => {
  const stream = spans.find(({ attributes }) => attributes['graphql.operation.type'] === 'subscription');
  const request = spans.find(({ spanId }) => spanId === stream?.parentSpanId);
  expect(request?.name).toBe('POST /graphql');
  const served = ofTrace(request?.traceId ?? '');
  expect(served.length).toBeLessThan(6);
});

test('nothing secret is sent to the collector, and nothing that a caller, a browser or Zoom wrote', async () => {
  const bytes = collector.bytes();
  expect(bytes.length).toBeGreaterThan(20_000);
  const { app, userId, tenantId, zoomUserId } = story.connection;
  expect(await findCanaries({ spans: bytes }, undefined, [TEST_ADMIN_KEY, app.clientId, zoomUserId])).toEqual([]);
  for (const foreign of [userId, tenantId, 'acme.example', 'ZQUERY', 'ZAGENT', '$input', 'SELECT id', '::uuid']) {
    expect(bytes).not.toContain(foreign);
  }
  const statements = spans.filter(({ attributes }) => 'db.system.name' in attributes);
  const known = ['db.system.name', 'db.operation.name', 'db.collection.name'];
  expect(statements.flatMap(({ attributes }) => Object.keys(attributes)).filter((key) => !known.includes(key))).toEqual(
    [],
  );
});

test('who sends is said once: service, version and role', () => {
  expect(collector.resource()).toMatchObject({ 'service.name': 'latchkey', 'latchkey.role': 'all' });
  expect(collector.resource()['service.version']).toMatch(/^\d+\.\d+\.\d+/);
});

test('log lines name the trace and span that they were written in', () => {
  const lines = server.logs.map((line) => JSON.parse(line) as Record<string, string>);
  const webhook = lines.find(({ msg }) => msg === 'a webhook was refused');
  const span = byId.get(webhook?.['span_id'] ?? '');
  expect(span).toMatchObject({ name: 'webhook', traceId: webhook?.['trace_id'] });
  expect(lines.find(({ msg }) => msg === 'listening')).not.toHaveProperty('trace_id');
});

test('facts that have no place or no form of ours are left out', () => {
  const facts = { job: 'tend-keys', outcome: 'a message: with text', secret: 'ZCANARY', cause: 'x'.repeat(101) };
  expect(attributesOf(facts)).toEqual({ 'latchkey.job': 'tend-keys' });
  expect(failureOf(Object.assign(new Error('ZCANARY in a message'), { code: '23505' }))).toBe('23505');
  expect(failureOf(Object.assign(new Error('text'), { code: 'not a code' }))).toBe('Error');
  expect(failureOf('thrown text')).toBe('unknown');
});

test('statements are named by what they do and the table, paths without their ids', () => {
  expect(summaryOf(`SELECT extract(epoch FROM c.x) FROM unnest($1) JOIN y ON true CROSS JOIN z`)).toEqual({
    statement: 'SELECT',
  });
  expect(summaryOf(`WITH due AS (SELECT 1 FROM credential FOR UPDATE) UPDATE credential SET x = $1`)).toEqual({
    statement: 'UPDATE',
    table: 'credential',
  });
  expect(summaryOf(`SELECT id FROM tenant WHERE id = 'x' FOR UPDATE`).statement).toBe('SELECT');
  expect(pathTemplate('/v2/users/a%40b.example/meetings')).toBe('/v2/users/{id}/meetings');
  expect(pathTemplate('/v2/meetings/81234567890/jointoken/local_recording')).toBe(
    '/v2/meetings/{id}/jointoken/local_recording',
  );
});

test.each([
  ['that never answers', () => undefined],
  [
    'that refuses',
    (_req: unknown, res: { writeHead(status: number): { end(text: string): void } }) => res.writeHead(400).end('no'),
  ],
])('a collector %s costs a line a minute, and two seconds at the end', async (_what, answer) => {
  const slow = await startCollector(answer as never);
  const logs: string[] = [];
  const log = createLog('info', { write: (line) => void logs.push(line) });
  const tracing = openTracing({ url: `${slow.url}/v1/traces` }, { version: '0.0.0', role: 'all', log });
  const [job] = tracing.jobs([{ name: 'tend-keys', intervalMs: 1, run: async () => true }]);
  for (let run = 0; run < 5_000; run += 1) await job?.run(new AbortController().signal);
  const sinceMs = performance.now();
  await tracing.close();
  expect(performance.now() - sinceMs).toBeLessThan(2_500);
  expect(logs.length).toBeLessThanOrEqual(1);
  expect(logs.join('')).not.toContain('"no"');
});
