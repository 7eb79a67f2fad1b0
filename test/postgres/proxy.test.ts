import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { calls, connectUser, disconnect, makeDue, read, stored } from '../support/connections.js';
import { createPostgresDatabase } from '../support/database.js';
import { freePort } from '../support/free-port.js';
import { startNginx } from '../support/nginx.js';
import { clientOf, spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY, type TestServer } from '../support/server.js';
import { openSse, openWebSocket } from '../support/streams.js';
import { until } from '../support/until.js';
import { deliver } from '../support/webhook.js';

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const folder = await mkdtemp(join(tmpdir(), 'latchkey-proxy-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const databaseUrl = await createPostgresDatabase();
const publicPort = await freePort();
const url = `http://localhost:${publicPort}`;

const rootKey = randomBytes(32).toString('base64');
const settings = (role: string, name: string) => ({
  NODE_ENV: 'production',
  DATABASE_URL: databaseUrl,
  LATCHKEY_PUBLIC_URL: url,
  LATCHKEY_ROOT_KEY: rootKey,
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: join(folder, name),
  LATCHKEY_ROLE: role,
  LATCHKEY_DRAIN_SECONDS: '1',
  LATCHKEY_EVENT_POLL_MS: '100',
  LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
});
const first = spawnServer(settings('api', 'api-1'));
const second = spawnServer(settings('api', 'api-2'));
const worker = spawnServer(settings('worker', 'worker'));
const upstreams = (await Promise.all([first.listening, second.listening])).map((address) => new URL(address).host);
await worker.listening;
const nginx = await startNginx({ folder: join(folder, 'nginx'), port: publicPort, upstreams });
const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
afterAll(() => db.close());

const direct = await clientOf(first, { sandbox, db });
/** Everything through the proxy, as products and browsers come. */
const server: TestServer = {
  ...direct,
  url,
  graphql: async (query, variables, headers = {}) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${TEST_ADMIN_KEY}`,
        // A proxy that is reloaded closes idle connections, whatever is on its way to it.
        connection: 'close',
        ...headers,
      },
      body: JSON.stringify({ query, variables }),
    });
    const text = await response.text();
    if (!text.startsWith('{')) throw new Error(`${response.status} ${text}`);
    const body = JSON.parse(text) as Awaited<ReturnType<TestServer['graphql']>>;
    return { status: response.status, headers: response.headers, data: body.data, errors: body.errors };
  },
  data: async (query, variables) => {
    const { data, errors } = await server.graphql(query, variables);
    expect(errors).toBeUndefined();
    return data;
  },
};

test('the whole consent trip and the credential after it go through the proxy, and its log holds no code', async () => {
  const it = await connectUser(server);
  expect(await read(server, it)).toMatchObject({ __typename: 'Credential', version: 1 });
  await until(async () => (await nginx.accessLog()).includes('/oauth/callback/'));
  const lines = await nginx.accessLog();
  expect(lines).toContain('GET /oauth/start/');
  expect(lines).not.toMatch(/[?&=]|code|state/);
  expect(await nginx.errorLog()).toBe('');
});

test('the worker refreshes what is due, and no process that answers requests does', async () => {
  const it = await connectUser(server);
  await makeDue(server, it);
  await until(async () => (await stored(server, it))?.version === 2);
  expect(calls(server, it)).toHaveLength(1);
});

test.each([
  ['server-sent events', openSse],
  ['a WebSocket', openWebSocket],
])('an event reaches a subscriber over %s through the proxy as soon as it is stored', async (_name, open) => {
  const it = await connectUser(server);
  const stream = await open(url, 'subscription ($g: ID!) { healthChanged(grantId: $g) { current reason } }', {
    variables: { g: it.id },
  });
  const next = stream.next();
  // What is subscribed is told nothing of what was before.
  await new Promise((resolve) => setTimeout(resolve, 500));
  const sinceMs = performance.now();
  await disconnect(server, it);
  expect((await next)?.data).toEqual({ healthChanged: { current: 'REVOKED', reason: 'DISCONNECTED' } });
  expect(performance.now() - sinceMs).toBeLessThan(2_000);
  await stream.close();
});

test('a webhook goes through the proxy with its bytes and signature as they were, up to the limit of its length', async () => {
  const { app } = await connectUser(server);
  const { webhookSecret: secret } = app.atZoom;
  const body = `{"event":"endpoint.url_validation","payload":{"plainToken":"abcdefgh"},  "é":"${'ö'.repeat(1_000)}"}`;
  const answer = await deliver(app.webhookUrl, body, { secret });
  expect([answer.status, await answer.json()]).toEqual([
    200,
    { plainToken: 'abcdefgh', encryptedToken: expect.any(String) },
  ]);
  expect((await deliver(app.webhookUrl, body, { secret: 'another' })).status).toBe(401);
  expect((await deliver(app.webhookUrl, ' '.repeat(1_048_576), { secret })).status).toBe(200);
  expect((await deliver(app.webhookUrl, ' '.repeat(1_048_577), { secret })).status).toBe(413);
});

test('health, figures and everything else that is not served to the outside are 404', async () => {
  const paths = ['/', '/livez', '/readyz', '/metrics', '/graphql/', '/graphqlx', '/oauth/x', '/tokens/x'];
  const answers = await Promise.all(paths.map(async (path) => [path, (await fetch(url + path)).status]));
  expect(answers).toEqual(paths.map((path) => [path, 404]));
});

test('no request fails while one process is taken out and stopped for an upgrade, and it exits with 0', async () => {
  const it = await connectUser(server);
  let stopped = false;
  let asked = 0;
  const ask = async () => {
    for (; !stopped; asked += 1) {
      expect(await read(server, it)).toMatchObject({ __typename: 'Credential' });
    }
  };
  const asking = Promise.all(Array.from({ length: 8 }, ask));
  await until(() => asked > 50);
  await nginx.takeOut(upstreams[1] ?? '');
  second.kill('SIGTERM');
  const stopping = second.exited.then(async ({ code }) => {
    const before = asked;
    await until(() => asked > before + 50);
    stopped = true;
    return code;
  });
  const [code] = await Promise.all([stopping, asking]);
  expect(code).toBe(0);
});
