import { once } from 'node:events';
import { connect } from 'node:net';
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

test('connections that ask for an upgrade and are reset do not harm the process', async () => {
  const { port } = new URL(worker.url);
  await Promise.all(
    Array.from({ length: 100 }, async () => {
      const socket = connect(Number(port), '127.0.0.1');
      socket.on('error', () => undefined);
      await once(socket, 'connect');
      socket.write('GET /x HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      socket.resetAndDestroy();
      await once(socket, 'close');
    }),
  );
  expect((await fetch(`${worker.url}/livez`)).status).toBe(200);
});
