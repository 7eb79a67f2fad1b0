import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { startTestServer } from './support/server.js';

const server = await startTestServer();

// A WebSocket library gives such a client half a minute; the limit of this test is far below that.
test(
  'a WebSocket client that never answers a close does not hold up the end of the server',
  { timeout: 10_000 },
  async () => {
    const socket = connect(Number(new URL(server.url).port), 'localhost');
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    socket.write(
      'GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n' +
        'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n',
    );
    const [answer] = (await once(socket, 'data')) as [Buffer];
    expect(answer.toString()).toContain('101 Switching Protocols');
    await server.close();
    await expect(fetch(`${server.url}/livez`)).rejects.toThrow();
  },
);
