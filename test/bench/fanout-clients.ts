// Subscribers, many in one process that does nothing else, over bare sockets so that they cost little.
import { randomBytes } from 'node:crypto';
import { connect, type Socket } from 'node:net';

export interface Plan {
  transport: 'sse' | 'ws';
  port: number;
  count: number;
  query: string;
  tokens: string[];
}

/** `at`: by the clock that all processes of a machine share, in milliseconds. */
export type Report = { kind: 'connected' } | { kind: 'told'; at: number } | { kind: 'failed'; reason: string };

/** Connections that are being opened at once. */
const OPENING = 100;

const tell = (report: Report) => process.send?.(report);

/** A text frame as clients must send it: masked, here with a mask that changes nothing. */
function frame(text: string): Buffer {
  const data = Buffer.from(text);
  const length =
    data.length < 126 ? Buffer.from([0x80 | data.length]) : Buffer.from([0xfe, data.length >> 8, data.length & 255]);
  return Buffer.concat([Buffer.from([0x81]), length, Buffer.alloc(4), data]);
}

/** Counts how often a text comes in a stream that may break anywhere. */
function counter(text: string, onFound: () => void): (chunk: Buffer) => void {
  let rest = '';
  return (chunk) => {
    const seen = rest + chunk.toString('latin1');
    let at = seen.indexOf(text);
    let end = 0;
    for (; at !== -1; at = seen.indexOf(text, end)) {
      end = at + text.length;
      onFound();
    }
    rest = seen.slice(Math.max(end, seen.length - text.length + 1));
  };
}

async function waitFor(socket: Socket, text: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    let seen = '';
    const look = (chunk: Buffer) => {
      seen += chunk.toString('latin1');
      if (!seen.includes(text)) return;
      socket.off('data', look);
      resolve();
    };
    socket.on('data', look);
    socket.once('close', () => reject(new Error(`closed: ${seen.slice(0, 300)}`)));
  });
}

async function subscribe({ transport, port, query, tokens }: Plan, index: number, onTold: () => void): Promise<void> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => undefined);
  const token = tokens[index % tokens.length] ?? '';
  const body = JSON.stringify({ query });
  if (transport === 'sse') {
    socket.write(
      `POST /graphql HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nauthorization: Bearer ${token}\r\naccept: text/event-stream\r\n` +
        `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
    );
    await waitFor(socket, ':\n\n');
    socket.on('data', counter('event: next', onTold));
  } else {
    socket.write(
      `GET /graphql HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\nconnection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n` +
        `sec-websocket-key: ${randomBytes(16).toString('base64')}\r\nsec-websocket-protocol: graphql-transport-ws\r\n\r\n`,
    );
    await waitFor(socket, '\r\n\r\n');
    socket.write(frame(JSON.stringify({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } })));
    await waitFor(socket, 'connection_ack');
    socket.write(frame(JSON.stringify({ id: '1', type: 'subscribe', payload: { query } })));
    socket.on('data', counter('"type":"next"', onTold));
  }
  socket.once('close', () => tell({ kind: 'failed', reason: 'a stream was closed' }));
}

process.on('message', (plan: Plan) => {
  let told = 0;
  let next = 0;
  const onTold = () => {
    told += 1;
    if (told % plan.count === 0) tell({ kind: 'told', at: performance.timeOrigin + performance.now() });
  };
  const open = async () => {
    while (next < plan.count) await subscribe(plan, next++, onTold);
  };
  Promise.all(Array.from({ length: OPENING }, open)).then(
    () => tell({ kind: 'connected' }),
    (error: unknown) => tell({ kind: 'failed', reason: String(error) }),
  );
});
