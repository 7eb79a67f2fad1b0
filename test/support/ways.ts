import { openBareSocket, webSocketUrl } from './streams.js';

export interface Answered {
  data?: any;
  errors?: { message: string; path?: unknown; extensions: Record<string, unknown> & { code: string } }[];
}

export interface Asked {
  query?: string;
  variables?: Record<string, unknown>;
  extensions?: Record<string, unknown>;
}

type Headers = Record<string, string>;

/** One way into the engine: the first result of an operation, with the caller's headers. */
export type Way = (url: string, asked: Asked, headers: Headers) => Promise<Answered>;

const post = (url: string, asked: Asked, headers: Headers, accept: string) =>
  fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept, ...headers },
    body: JSON.stringify(asked),
  });

async function overSse(url: string, asked: Asked, headers: Headers): Promise<Answered> {
  const text = await (await post(url, asked, headers, 'text/event-stream')).text();
  const data = /^data: ?(.+)$/m.exec(text)?.[1];
  return JSON.parse(data ?? text) as Answered;
}

async function overSocket(url: string, asked: Asked, { authorization, ...headers }: Headers): Promise<Answered> {
  const socket = await openBareSocket(webSocketUrl(url), { headers });
  socket.send({ type: 'connection_init', payload: { authorization } });
  await socket.next();
  // The protocol wants a text where a document is named by its hash, too.
  socket.send({ type: 'subscribe', id: '1', payload: { query: '', ...asked } });
  const { type, payload } = await socket.next();
  socket.close();
  return type === 'error' ? { errors: payload } : payload;
}

/** Every way into the engine, by name. */
export const WAYS: [string, Way][] = [
  ['directly', async (url, asked, headers) => (await post(url, asked, headers, 'application/json')).json()],
  ['by negotiation', async (url, asked, headers) => (await post(url, asked, headers, 'application/json, x/y')).json()],
  [
    'by GET',
    async (url, { query, variables, extensions }, headers) => {
      const search = new URLSearchParams({
        ...(query === undefined ? {} : { query }),
        ...(variables === undefined ? {} : { variables: JSON.stringify(variables) }),
        ...(extensions === undefined ? {} : { extensions: JSON.stringify(extensions) }),
      });
      return (await fetch(`${url}/graphql?${search}`, { headers })).json();
    },
  ],
  ['over server-sent events', overSse],
  ['over WebSocket', overSocket],
];

export const codesOf = ({ errors }: Answered): string[] => (errors ?? []).map(({ extensions }) => extensions.code);
