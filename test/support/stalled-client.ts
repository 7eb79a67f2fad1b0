import { request, type IncomingMessage } from 'node:http';
import { WebSocket } from 'ws';
import { TEST_ADMIN_KEY } from './server.js';
import { webSocketUrl } from './streams.js';

/** A client of one subscription to health events that has stopped reading. */
export interface StalledClient {
  /** Reads what there is for it until it is over. @returns the cursors that it was told. */
  readOn(): Promise<string[]>;
}

export type Stall = (url: string, query: string, after: string) => Promise<StalledClient>;

const authorization = `Bearer ${TEST_ADMIN_KEY}`;

/** The cursor of a result; none where it is an error. */
const cursorOf = ({ data }: { data?: { healthChanged?: { cursor: string } | null } | null }): string[] =>
  data?.healthChanged ? [data.healthChanged.cursor] : [];

/** Over server-sent events. What is cut off in the middle of an event is none. */
export const stallSse: Stall = async (url, query, after) => {
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    const asking = request(`${url}/graphql`, {
      method: 'POST',
      agent: false,
      headers: { authorization, accept: 'text/event-stream', 'content-type': 'application/json' },
    });
    asking.once('response', resolve).once('error', reject);
    asking.end(JSON.stringify({ query, variables: { after } }));
  });
  // Before anything asks for its text, it is not read from the socket.
  return {
    readOn: async () => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      // A stream that was cut off ends with an error.
      await new Promise<void>((resolve) => response.once('close', resolve).on('error', () => resolve()));
      const frames = text.split('\n\n').slice(0, -1);
      const results = frames.flatMap((frame) => /^event: next\ndata: (.*)$/.exec(frame)?.[1] ?? []);
      return results.flatMap((result) => cursorOf(JSON.parse(result)));
    },
  };
};

export const stallWebSocket: Stall = async (url, query, after) => {
  const socket = new WebSocket(webSocketUrl(url), 'graphql-transport-ws');
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('open', resolve));
  socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization } }));
  await new Promise((resolve) => socket.once('message', resolve));
  const cursors: string[] = [];
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.on('message', (data) => {
    const { type, payload } = JSON.parse(String(data));
    if (type === 'next') cursors.push(...cursorOf(payload));
  });
  socket.pause();
  socket.send(JSON.stringify({ type: 'subscribe', id: '1', payload: { query, variables: { after } } }));
  return {
    readOn: async () => {
      socket.resume();
      await closed;
      return cursors;
    },
  };
};
