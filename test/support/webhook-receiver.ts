import { createServer, type IncomingMessage, type RequestListener } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import { afterAll } from 'vitest';
import type { Certificate } from './certificates.js';

/** One request as a backend got it. */
export interface Received {
  path: string;
  headers: Record<string, string>;
  body: string;
  /** The parsed body, after the check of the library; null where no secret of the receiver's fits. */
  message: any;
  atMs: number;
}

/** How a receiver answers; it may wait, or destroy the socket. */
export type Answering = (received: Received, request: IncomingMessage) => Promise<Reply> | Reply;

export interface Reply {
  status: number;
  headers?: Record<string, string>;
  body?: string;
}

export interface Receiver {
  url: string;
  received: Received[];
  /** What signatures are checked with, in turn. */
  secrets: string[];
  answer: Answering;
  /** The identifiers of the events that it took, in the order in which they came. */
  ids(): string[];
  close(): Promise<void>;
}

/**
 * A backend that receives webhooks, checks them with the library of Standard Webhooks, and answers 204.
 *
 * @param certificate what it shows at `https://localhost`; without one it is reached by http.
 */
export async function startReceiver(certificate?: Certificate): Promise<Receiver> {
  const receiver: Receiver = {
    url: '',
    received: [],
    secrets: [],
    answer: () => ({ status: 204 }),
    ids: () => receiver.received.map(({ headers }) => headers['webhook-id'] ?? ''),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  const check = (body: string, headers: Record<string, string>): any => {
    for (const secret of receiver.secrets) {
      try {
        return new Webhook(secret).verify(body, headers);
      } catch {
        // The next one may fit.
      }
    }
    return null;
  };
  const listener: RequestListener = (request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      const headers = request.headers as Record<string, string>;
      const received = { path: request.url ?? '', headers, body, message: check(body, headers), atMs: Date.now() };
      receiver.received.push(received);
      Promise.resolve(receiver.answer(received, request)).then(
        (reply) => response.writeHead(reply.status, reply.headers).end(reply.body),
        () => response.destroy(),
      );
    });
  };
  const server = certificate === undefined ? createServer(listener) : createTlsServer(certificate, listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  receiver.url = `${certificate === undefined ? 'http://127.0.0.1' : 'https://localhost'}:${port}/hooks`;
  afterAll(() => receiver.close());
  return receiver;
}
