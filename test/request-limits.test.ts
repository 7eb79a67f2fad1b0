import { connect as connectSocket, type AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import type { Database } from '../src/database/database.js';
import { createHttpServer } from '../src/http/listener.js';
import { connectUser, expire } from './support/connections.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { CREDENTIAL } from './support/story.js';
import { codesOf, WAYS } from './support/ways.js';

const server = await startTestServer({
  LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
  LATCHKEY_REQUEST_DEADLINE_SECONDS: '1',
});
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };

// -------------------------------------------------------------------------------------------------------------- time

/** A database that does not answer where the events are put into order. */
const hanging = { started: 0 };
const hangingDb: Database = {
  ...server.db,
  query: ((statement) => {
    if (!statement.text.includes('FROM health_event WHERE position IS NULL LIMIT')) return server.db.query(statement);
    hanging.started += 1;
    return new Promise(() => undefined);
  }) as Database['query'],
};
const stuck = await startSecondServer(hangingDb, { LATCHKEY_REQUEST_DEADLINE_SECONDS: '1' });

test.each(WAYS)(
  'an operation that hangs is answered DEADLINE_EXCEEDED when its time is over, %s',
  async (_name, way) => {
    const before = hanging.started;
    const began = performance.now();
    const query = '{ viewer { kind } healthEvents { edges { cursor } } }';
    const answers = await Promise.all([
      way(stuck.url, { query }, admin),
      // Whatever else is asked meanwhile is answered.
      way(stuck.url, { query: '{ viewer { kind } }' }, admin).then((answer) => ({
        ...answer,
        tookMs: performance.now() - began,
      })),
    ]);
    const tookMs = performance.now() - began;
    expect(hanging.started).toBe(before + 1);
    expect([answers[0].data ?? null, codesOf(answers[0])]).toEqual([null, ['DEADLINE_EXCEEDED']]);
    expect(answers[0].errors?.[0]?.extensions).toEqual({ code: 'DEADLINE_EXCEEDED' });
    expect(tookMs).toBeGreaterThan(950);
    expect(tookMs).toBeLessThan(4_000);
    expect(answers[1].data).toEqual({ viewer: { kind: 'SERVER_KEY' } });
  },
);

test('over HTTP it is answered 504', async () => {
  for (const accept of ['application/json', 'application/graphql-response+json', 'application/json, x/y']) {
    const { status } = await fetch(`${stuck.url}/graphql`, {
      method: 'POST',
      headers: { ...admin, 'content-type': 'application/json', accept },
      body: JSON.stringify({ query: '{ healthEvents { edges { cursor } } }' }),
    });
    expect([accept, status]).toEqual([accept, 504]);
  }
});

test('of a mutation whose time is over nothing further is begun', async () => {
  let release = (): void => undefined;
  let held = Promise.resolve();
  const transaction = (async (work) => {
    await held;
    return server.db.transaction(work);
  }) as Database['transaction'];
  const second = await startSecondServer({ ...server.db, transaction }, { LATCHKEY_REQUEST_DEADLINE_SECONDS: '1' });
  held = new Promise((resolve) => (release = resolve));
  const make = (name: string) => `${name}: createTenant(input: { externalId: "org_${name}" }) { __typename }`;
  const [, way] = WAYS[0]!;
  const { errors } = await way(second.url, { query: `mutation { ${make('first')} ${make('second')} }` }, admin);
  expect(errors?.[0]?.extensions.code).toBe('DEADLINE_EXCEEDED');
  release();
  const count = (name: string) => server.db.prisma.tenant.count({ where: { externalId: `org_${name}` } });
  await expect.poll(() => count('first')).toBe(1);
  expect(await count('second')).toBe(0);
});

test('a credential is waited for as long as its refresh may take', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  server.sandbox.control.setKnobs({ tokenDelayMs: 2_000 });
  try {
    const began = performance.now();
    const { data } = await server.graphql(CREDENTIAL, { input: connection.input });
    expect(data.credential).toMatchObject({ __typename: 'Credential' });
    expect(performance.now() - began).toBeGreaterThan(1_500);
  } finally {
    server.sandbox.control.setKnobs({ tokenDelayMs: 0 });
  }
});

/** How long a server keeps a connection over which `text` came and then nothing more, and what it answered. */
async function dribble(text: string): Promise<{ answer: string; ms: number }> {
  const slow = createHttpServer({ headersTimeout: 300, requestTimeout: 600, connectionsCheckingInterval: 50 });
  slow.on('request', (req, res) => void req.resume().once('end', () => res.end()));
  await new Promise<void>((resolve) => slow.listen(0, '127.0.0.1', resolve));
  const began = performance.now();
  const answer = await new Promise<string>((resolve, reject) => {
    const socket = connectSocket((slow.address() as AddressInfo).port, '127.0.0.1', () => socket.write(text));
    let received = '';
    socket.on('data', (chunk) => (received += String(chunk)));
    socket.once('close', () => resolve(received));
    socket.once('error', reject);
  });
  const ms = performance.now() - began;
  await new Promise((resolve) => slow.close(resolve));
  return { answer: answer.split('\r\n')[0] ?? '', ms };
}

test.each([
  ['the head of a request', 'POST /graphql HTTP/1.1\r\nhost: x\r\nx-more: '],
  ['its body', 'POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"query":'],
])('a client that never ends %s is cut off with 408', async (_what, text) => {
  const { answer, ms } = await dribble(text);
  expect(answer).toContain('408');
  expect(ms).toBeLessThan(3_000);
});

test('a head of more than 16 KiB is refused with 431', async () => {
  const { answer } = await dribble(`GET / HTTP/1.1\r\nhost: x\r\nx-long: ${'x'.repeat(17_000)}\r\n\r\n`);
  expect(answer).toContain('431');
});

// -------------------------------------------------------------------------------------------------------------- size

/** As many levels of objects, the outermost being the variables themselves. */
const ofLevels = (levels: number): Record<string, unknown> =>
  Array.from({ length: levels - 1 }).reduce<Record<string, unknown>>((inner) => ({ x: inner }), { x: 1 });

test.each(WAYS)('variables may be nested 16 levels deep and no deeper, %s', async (_name, way) => {
  const query = '{ viewer { kind } }';
  const within = await way(server.url, { query, variables: ofLevels(16) }, admin);
  expect(within).toEqual({ data: { viewer: { kind: 'SERVER_KEY' } } });
  const beyond = await way(server.url, { query, variables: ofLevels(17) }, admin);
  expect([beyond.data ?? null, codesOf(beyond)]).toEqual([null, ['BAD_USER_INPUT']]);
});

test('over HTTP variables that are nested deeper are answered 400', async () => {
  for (const variables of [JSON.stringify(ofLevels(17)), `{"x":${'['.repeat(20_000)}${']'.repeat(20_000)}}`]) {
    for (const accept of ['application/json', 'text/event-stream', 'application/json, x/y']) {
      const { status } = await fetch(`${server.url}/graphql`, {
        method: 'POST',
        headers: { ...admin, 'content-type': 'application/json', accept },
        body: `{"query":"{ viewer { kind } }","variables":${variables}}`,
      });
      expect([accept, status]).toEqual([accept, 400]);
    }
  }
});

test.each(['gzip', 'deflate', 'br', 'identity, gzip'])(
  'a body packed with %s is refused, whatever it unpacks to',
  async (encoding) => {
    const before = process.memoryUsage().rss;
    for (const unpacked of [Buffer.from('{"query":"{ viewer { kind } }"}'), Buffer.alloc(10_000_000)]) {
      const response = await fetch(`${server.url}/graphql`, {
        method: 'POST',
        headers: { ...admin, 'content-type': 'application/json', 'content-encoding': encoding },
        body: gzipSync(unpacked),
      });
      const { errors } = (await response.json()) as { errors: { extensions: { code: string } }[] };
      expect([response.status, errors[0]?.extensions.code]).toEqual([415, 'UNSUPPORTED_MEDIA_TYPE']);
    }
    expect(process.memoryUsage().rss - before).toBeLessThan(60_000_000);
  },
);
