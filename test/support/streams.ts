import type { ExecutionResult } from 'graphql';
import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { TEST_ADMIN_KEY } from './server.js';

/** One subscription as a client sees it. */
export interface ResultStream {
  /** The next result; null once the server has ended the stream. Rejects when the connection broke instead. */
  next(): Promise<(ExecutionResult & { data?: any }) | null>;
  /** Leaves, as a client that is closed does. */
  close(): Promise<void>;
}

export interface StreamOptions {
  variables?: Record<string, unknown>;
  adminKey?: string;
  headers?: Record<string, string>;
}

export type OpenStream = (url: string, query: string, options?: StreamOptions) => Promise<ResultStream>;

/** Reads the events of a server-sent stream; comments are pings and left out. */
async function* eventsOf(texts: AsyncIterable<string>): AsyncGenerator<{ event: string; data: string }> {
  let buffer = '';
  for await (const text of texts) {
    buffer += text;
    for (let end = buffer.indexOf('\n\n'); end !== -1; end = buffer.indexOf('\n\n')) {
      const lines = buffer.slice(0, end).split('\n');
      buffer = buffer.slice(end + 2);
      const field = (name: string) =>
        lines
          .find((line) => line.startsWith(`${name}:`))
          ?.slice(name.length + 1)
          .trim();
      const event = field('event');
      if (event !== undefined) yield { event, data: field('data') ?? '' };
    }
  }
}

/** Subscribes over server-sent events, as the "distinct connections" mode of GraphQL over SSE has it. */
export const openSse: OpenStream = async (url, query, { variables, adminKey = TEST_ADMIN_KEY, headers } = {}) => {
  const leaving = new AbortController();
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${adminKey}`,
      'content-type': 'application/json',
      accept: 'text/event-stream',
      ...headers,
    },
    body: JSON.stringify({ query, variables }),
    signal: leaving.signal,
  });
  if (!response.headers.get('content-type')?.startsWith('text/event-stream') || response.body === null) {
    throw new Error(`No event stream but ${response.status}: ${await response.text()}`);
  }
  // Taken hold of at once: fetch cancels the body of a response that was collected before anyone began to read it.
  const events = eventsOf(response.body.pipeThrough(new TextDecoderStream() as never));
  return {
    next: async () => {
      const { value, done } = await events.next();
      if (done) throw new Error('The stream broke off.');
      return value.event === 'complete' ? null : (JSON.parse(value.data) as ExecutionResult);
    },
    close: async () => leaving.abort(),
  };
};

export const webSocketUrl = (url: string): string => `${url.replace(/^http/, 'ws')}/graphql`;

/** Subscribes over WebSocket, with the client that most products use. */
export const openWebSocket: OpenStream = async (
  url,
  query,
  { variables, adminKey = TEST_ADMIN_KEY, headers = {} } = {},
) => {
  const client = createClient({
    url: webSocketUrl(url),
    webSocketImpl: class extends WebSocket {
      constructor(address: string, protocols: string) {
        super(address, protocols, { headers });
      }
    },
    connectionParams: { authorization: `Bearer ${adminKey}` },
    retryAttempts: 0,
    onNonLazyError: () => undefined,
  });
  const results = client.iterate<any>({ query, ...(variables === undefined ? {} : { variables }) });
  return {
    next: async () => {
      const { value, done } = await results.next();
      return done ? null : (value as ExecutionResult);
    },
    close: async () => {
      await client.dispose();
    },
  };
};

/** A bare WebSocket, for what a well-behaved client would not do. */
export interface BareSocket {
  /** The server's answer to the upgrade: 101, or the status it refused with. */
  status: number;
  send(message: unknown): void;
  /** The next message; rejects when the socket closes before one came. */
  next(): Promise<any>;
  closed: Promise<{ code: number; reason: string }>;
  close(): void;
}

export async function openBareSocket(
  url: string,
  { protocol = 'graphql-transport-ws', headers = {} }: { protocol?: string; headers?: Record<string, string> } = {},
): Promise<BareSocket> {
  const socket = new WebSocket(url, protocol, { headers });
  const received: unknown[] = [];
  const waiting: { resolve: (message: unknown) => void; reject: (error: Error) => void }[] = [];
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.once('close', (code, reason) => {
      for (const { reject } of waiting.splice(0)) reject(new Error(`Closed with ${code}.`));
      resolve({ code, reason: String(reason) });
    });
  });
  socket.on('message', (data) => {
    const message: unknown = JSON.parse(String(data));
    const first = waiting.shift();
    if (first === undefined) received.push(message);
    else first.resolve(message);
  });
  const status = await new Promise<number>((resolve, reject) => {
    socket.once('open', () => resolve(101));
    socket.once('unexpected-response', (_request, response) => {
      resolve(response.statusCode ?? 0);
      response.destroy();
    });
    socket.once('error', reject);
  });
  socket.on('error', () => undefined);
  return {
    status,
    send: (message) => socket.send(typeof message === 'string' ? message : JSON.stringify(message)),
    next: () =>
      received.length > 0
        ? Promise.resolve(received.shift())
        : new Promise((resolve, reject) => waiting.push({ resolve, reject })),
    closed,
    close: () => socket.terminate(),
  };
}

/** A bare socket that has been let in. */
export async function openConnection(url: string, token = TEST_ADMIN_KEY): Promise<BareSocket> {
  const socket = await openBareSocket(webSocketUrl(url));
  socket.send({ type: 'connection_init', payload: { authorization: `Bearer ${token}` } });
  await socket.next();
  return socket;
}
