import { connect as connectSocket, type Socket } from 'node:net';
import { getIntrospectionQuery } from 'graphql';
import { expect, test } from 'vitest';
import { WebSocket } from 'ws';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { createTenant, PRODUCT } from './support/story.js';
import { openSse, openWebSocket, type OpenStream, type ResultStream, webSocketUrl } from './support/streams.js';
import { flip, makeGrants } from './support/transitions.js';
import { until } from './support/until.js';
import { codesOf, WAYS } from './support/ways.js';

const server = await startTestServer({
  LATCHKEY_MAX_STREAMS: '9',
  LATCHKEY_MAX_STREAMS_PER_TENANT: '7',
  LATCHKEY_SLOW_CONSUMER_SECONDS: '1',
  LATCHKEY_MAX_SERVER_KEY_COST: '100000000',
});
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };
const WATCH = 'subscription { healthChanged { cursor } }';

const TRANSPORTS: [string, OpenStream, (typeof WAYS)[number][1]][] = [
  ['server-sent events', openSse, WAYS[3]![1]],
  ['WebSocket', openWebSocket, WAYS[4]![1]],
];

/** Opens as many streams, and reads each so that it stays. */
async function hold(open: OpenStream, token: string, count: number): Promise<ResultStream[]> {
  const options = { adminKey: token, headers: token === TEST_ADMIN_KEY ? {} : { origin: PRODUCT } };
  const streams: ResultStream[] = [];
  for (let i = 0; i < count; i += 1) {
    const stream = await open(server.url, WATCH, options);
    stream.next().catch(() => null);
    streams.push(stream);
  }
  // Over WebSocket a stream is asked for some time after it was opened here.
  await new Promise((resolve) => setTimeout(resolve, 400));
  return streams;
}

const refusedWith = async (way: (typeof WAYS)[number][1], headers: Record<string, string>) =>
  codesOf(await way(server.url, { query: WATCH }, headers));

test.each(TRANSPORTS)(
  'over %s a session may have 5 streams, a tenant and the process what their settings say',
  async (_name, open, way) => {
    const tenantId = await createTenant(server);
    const [first, second] = await Promise.all(
      [1, 2].map(() => createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT)),
    );
    const held = await hold(open, first!.token, 5);
    expect(await refusedWith(way, first!.headers)).toEqual(['TOO_MANY_STREAMS']);
    held.push(...(await hold(open, second!.token, 2)));
    expect(await refusedWith(way, second!.headers)).toEqual(['TOO_MANY_STREAMS']);
    // Another tenant's are not counted with them, until the process has no more.
    held.push(...(await hold(open, TEST_ADMIN_KEY, 2)));
    expect(await refusedWith(way, admin)).toEqual(['TOO_MANY_STREAMS']);
    // One that is over makes room.
    await held.shift()!.close();
    await new Promise((resolve) => setTimeout(resolve, 200));
    held.push(...(await hold(open, first!.token, 1)));
    expect(await refusedWith(way, first!.headers)).toEqual(['TOO_MANY_STREAMS']);
    await Promise.all(held.map((stream) => stream.close()));
    await new Promise((resolve) => setTimeout(resolve, 200));
  },
);

test('streams that are refused do not count', async () => {
  const key = await createServerKey(server, { permissions: ['TENANTS_WRITE'] });
  for (let i = 0; i < 12; i += 1) {
    expect(codesOf(await WAYS[4]![1](server.url, { query: WATCH }, key.headers))).toEqual(['FORBIDDEN']);
  }
  const held = await hold(openWebSocket, TEST_ADMIN_KEY, 9);
  await Promise.all(held.map((stream) => stream.close()));
});

const drops = () => server.logs.filter((line) => line.includes('SLOW_CONSUMER')).length;

test('over WebSocket a client that asks and does not read is dropped with SLOW_CONSUMER, and others are served', async () => {
  const socket = new WebSocket(webSocketUrl(server.url), 'graphql-transport-ws');
  await new Promise((resolve) => socket.once('open', resolve));
  socket.send(JSON.stringify({ type: 'connection_init', payload: admin }));
  await new Promise((resolve) => socket.once('message', resolve));
  const closed = new Promise<{ code: number; reason: string }>((resolve) =>
    socket.once('close', (code, reason) => resolve({ code, reason: String(reason) })),
  );
  const before = { drops: drops(), rss: process.memoryUsage().rss };
  socket.pause();
  const query = getIntrospectionQuery();
  for (let id = 0; id < 60 && drops() === before.drops; id += 1) {
    socket.send(JSON.stringify({ type: 'subscribe', id: String(id), payload: { query } }));
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await until(() => drops() > before.drops);
  expect((await server.graphql('{ viewer { kind } }')).data).toEqual({ viewer: { kind: 'SERVER_KEY' } });
  expect(process.memoryUsage().rss - before.rss).toBeLessThan(150_000_000);
  socket.resume();
  expect([1_006, 1_013]).toContain((await closed).code);
});

test('over server-sent events a client that stops reading is dropped, and others are told everything', async () => {
  const [grant] = await makeGrants(server.db, 1);
  await flip(server.db, grant!, 100);
  // A large result for each event, so that what the system buffers is soon full.
  const page = 'healthEvents(first: 100) { edges { cursor node { id occurredAt previous current reason } } }';
  const pages = Array.from({ length: 14 }, (_, index) => `p${index}: ${page}`).join(' ');
  const body = JSON.stringify({
    query: `subscription ($after: String) { healthChanged(after: $after) { cursor tenant { ${pages} } } }`,
    variables: { after: Buffer.from('e0').toString('base64url') },
  });
  const before = drops();
  const socket: Socket = connectSocket(Number(new URL(server.url).port), '127.0.0.1');
  const gone = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined);
  socket.write(
    `POST /graphql HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${TEST_ADMIN_KEY}\r\naccept: text/event-stream\r\n` +
      `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  );
  socket.pause();
  const other = await openSse(server.url, 'subscription ($after: String) { healthChanged(after: $after) { cursor } }', {
    variables: { after: Buffer.from('e0').toString('base64url') },
  });
  for (let i = 0; i < 100; i += 1) expect((await other.next())?.data.healthChanged.cursor).toEqual(expect.any(String));
  await until(() => drops() > before);
  await other.close();
  socket.resume();
  await gone;
}, 60_000);
