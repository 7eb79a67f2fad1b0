import { expect, test } from 'vitest';
import { startTestServer } from './support/server.js';

const worker = await startTestServer({ LATCHKEY_ROLE: 'worker' });

test('a worker answers for its own health and serves nothing else', async () => {
  for (const path of ['/livez', '/readyz']) expect((await fetch(worker.url + path)).status).toBe(200);
  const headers = { authorization: `Bearer ${worker.adminKey}`, 'content-type': 'application/json' };
  const body = JSON.stringify({ query: '{ viewer { kind } }' });
  expect((await fetch(`${worker.url}/graphql`, { method: 'POST', headers, body })).status).toBe(404);
  for (const path of ['/oauth/start/x', '/oauth/callback/x', '/webhooks/zoom/x']) {
    expect((await fetch(worker.url + path)).status).toBe(404);
  }
});
