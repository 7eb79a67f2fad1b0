import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, expect, test } from 'vitest';
import { startCluster } from '../support/postgres-cluster.js';
import { spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY } from '../support/server.js';
import { deliver } from '../support/webhook.js';

const folder = await mkdtemp(join(tmpdir(), 'latchkey-outage-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const cluster = await startCluster(folder);
afterAll(() => cluster.stop());

test('while Postgres is stopped a webhook is answered 503 at once, and its repetition is taken in once', async () => {
  const server = spawnServer({
    DATABASE_URL: cluster.url,
    LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_DATA_DIR: folder,
    LATCHKEY_SANDBOX: '0',
    ZOOM_OAUTH_URL: 'http://127.0.0.1:1',
    ZOOM_API_URL: 'http://127.0.0.1:1',
  });
  const url = await server.listening;
  const registered = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}` },
    body: JSON.stringify({
      query: `mutation { registerProviderApp(input: { name: "x", kind: USER_MANAGED, clientId: "c", clientSecret: "x",
        webhookSecret: "signed-with-this", scopes: [] }) { ... on RegisterProviderAppSuccess { providerApp { webhookUrl } } } }`,
    }),
  });
  const { data } = (await registered.json()) as any;
  const webhookUrl = `${url}${new URL(data.registerProviderApp.providerApp.webhookUrl).pathname}`;
  const body = {
    event: 'user.updated',
    event_ts: Date.now(),
    payload: { account_id: 'a', object: { id: 'u', email: 'new@acme.example' } },
  };
  const send = () => deliver(webhookUrl, body, { secret: 'signed-with-this' });

  await cluster.halt('fast');
  const startedAt = performance.now();
  const refused = await send();
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '60']);
  expect(performance.now() - startedAt).toBeLessThan(2_500);
  await cluster.resume();
  expect([(await send()).status, (await send()).status]).toEqual([200, 200]);

  const client = new pg.Client({ connectionString: cluster.url });
  await client.connect();
  const { rows } = await client.query('SELECT name FROM webhook_event');
  await client.end();
  expect(rows).toEqual([{ name: 'user.updated' }]);
}, 60_000);
