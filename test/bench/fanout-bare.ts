// The yardstick: a broadcast by hand. Whoever connects is written every message, as one shared buffer, without asking who
// they are or what they want to know.
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type WebSocket, WebSocketServer } from 'ws';

const json = process.argv[2] ?? '{}';
const event = Buffer.from(`event: next\ndata: ${json}\n\n`);
const message = Buffer.from(`{"id":"1","type":"next","payload":${json}}`);
const streams = new Set<ServerResponse>();
const sockets = new Set<WebSocket>();

const server = createServer((req, res) => {
  req.resume();
  if (req.url === '/tell') {
    for (const stream of streams) stream.write(event);
    for (const socket of sockets) socket.send(message, { binary: false });
    res.end();
    return;
  }
  res.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-cache' });
  res.write(':\n\n');
  streams.add(res);
  res.on('close', () => streams.delete(res));
});

const webSockets = new WebSocketServer({ server, handleProtocols: () => 'graphql-transport-ws' });
webSockets.on('connection', (socket) => {
  socket.on('message', (data) => {
    if (String(data).includes('connection_init')) socket.send('{"type":"connection_ack"}');
    else sockets.add(socket);
  });
  socket.on('close', () => sockets.delete(socket));
});

server.listen(0, '127.0.0.1', () => console.log(`listening ${(server.address() as AddressInfo).port}`));
