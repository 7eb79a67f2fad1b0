import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { request } from 'undici';
import { fingerprintOf } from '../../src/sandbox/mint.js';

/** A refresh that Zoom has carried out, and the socket that its answer is awaited on. */
export interface Answered {
  /** Zoom's own answer, which rotates the token. */
  members: Record<string, unknown>;
  refreshToken: string;
  socket: Socket;
}

/** Says something else than Zoom did, byte for byte. */
export type Mangle = (answered: Answered) => void;

export interface ZoomFront {
  readonly origin: string;
  /** The next refresh of this app is carried out, and answered by `mangle`. */
  spoil(clientId: string, mangle: Mangle): void;
  /** Fingerprints of the refresh tokens whose answers were changed. */
  readonly spoiled: string[];
  close(): Promise<void>;
}

/** Stands before Zoom's OAuth endpoints and hands everything on, except the answers it was told to change. */
export async function startZoomFront(zoom: string): Promise<ZoomFront> {
  const mangles = new Map<string, Mangle>();
  const spoiled: string[] = [];

  async function handOn(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of incoming) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString('utf8');
    const { connection: _connection, host: _host, 'content-length': _length, ...headers } = incoming.headers;
    const answer = await request(`${zoom}${incoming.url}`, {
      method: incoming.method as 'POST',
      headers: headers as Record<string, string>,
      body: body === '' ? null : body,
    });
    const text = await answer.body.text();
    const form = new URLSearchParams(body);
    const clientId = clientIdOf(incoming);
    const mangle = form.get('grant_type') === 'refresh_token' ? mangles.get(clientId) : undefined;
    if (mangle === undefined) {
      const { connection: _kept, 'content-length': _counted, 'transfer-encoding': _framed, ...rest } = answer.headers;
      response.writeHead(answer.statusCode, rest).end(text);
      return;
    }
    mangles.delete(clientId);
    const refreshToken = form.get('refresh_token') ?? '';
    spoiled.push(fingerprintOf(refreshToken));
    mangle({ members: JSON.parse(text) as Record<string, unknown>, refreshToken, socket: incoming.socket });
  }

  const server = createServer((incoming, response) => {
    handOn(incoming, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve);
  });
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    spoil: (clientId, mangle) => void mangles.set(clientId, mangle),
    spoiled,
    close: () => {
      server.closeAllConnections();
      return new Promise((resolve) => {
        server.close(() => resolve());
      });
    },
  };
}

function clientIdOf({ headers }: IncomingMessage): string {
  const [, encoded = ''] = (headers.authorization ?? '').split(' ');
  const [clientId = ''] = Buffer.from(encoded, 'base64').toString('utf8').split(':');
  return decodeURIComponent(clientId);
}

/** A whole answer with status 200; its connection ends with it. */
export function answerWith(socket: Socket, body: string | Buffer, headers: readonly string[] = []): void {
  const bytes = Buffer.from(body);
  const head = ['HTTP/1.1 200 OK', `content-length: ${bytes.length}`, 'connection: close', ...headers].join('\r\n');
  socket.end(Buffer.concat([Buffer.from(`${head}\r\n\r\n`), bytes]));
}

/** Bytes as they are; the connection is ended after them unless it is to stay. */
export function answerRaw(socket: Socket, text: string, { stay = false }: { stay?: boolean } = {}): void {
  if (stay) socket.write(text);
  else socket.end(text);
}
