import { setMaxListeners } from 'node:events';
import { gql, ApolloClient, ApolloLink, InMemoryCache } from '@apollo/client';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { Client, fetchExchange } from '@urql/core';
import { createClient as createSseClient } from 'graphql-sse';
import { createClient as createWsClient } from 'graphql-ws';
import {
  type ConcreteRequest,
  Environment,
  type FetchFunction,
  type GraphQLResponse,
  Network,
  Observable,
  RecordSource,
  requestSubscription,
  Store,
  type SubscribeFunction,
} from 'relay-runtime';
import { onEnd, pipe, subscribe } from 'wonka';
import { afterEach } from 'vitest';
import { WebSocket } from 'ws';
import { TEST_ADMIN_KEY } from './server.js';
import { webSocketUrl } from './streams.js';

const WATCH = 'subscription ($after: String) { healthChanged(after: $after) { id cursor tenant { externalId } } }';
const headers = { authorization: `Bearer ${TEST_ADMIN_KEY}` };

export interface ToldEvent {
  id: string;
  cursor: string;
  tenant: { externalId: string };
}

interface Result {
  data?: { healthChanged?: ToldEvent | null } | null | undefined;
}

/**
 * Subscribes behind a cursor with a client that products use.
 *
 * @returns when the stream is over, for whatever reason, or `signal` aborts.
 */
export type Watch = (
  url: string,
  after: string,
  onEvent: (event: ToldEvent) => void,
  signal: AbortSignal,
) => Promise<void>;

const hand = ({ data }: Result, onEvent: (event: ToldEvent) => void): void => {
  if (data?.healthChanged) onEvent(data.healthChanged);
};

const socketClient = (url: string) =>
  createWsClient({
    url: webSocketUrl(url),
    webSocketImpl: WebSocket,
    connectionParams: headers,
    retryAttempts: 0,
    onNonLazyError: () => undefined,
  });

const withGraphqlWs: Watch = async (url, after, onEvent, signal) => {
  const client = socketClient(url);
  signal.addEventListener('abort', () => void client.dispose());
  try {
    for await (const result of client.iterate({ query: WATCH, variables: { after } })) hand(result as Result, onEvent);
  } catch {
    // It broke, which is what this is about.
  }
  await client.dispose();
};

const withGraphqlSse: Watch = async (url, after, onEvent, signal) => {
  const client = createSseClient({ url: `${url}/graphql`, headers, retryAttempts: 0 });
  signal.addEventListener('abort', () => client.dispose());
  try {
    for await (const result of client.iterate({ query: WATCH, variables: { after } })) hand(result as Result, onEvent);
  } catch {
    // As above.
  }
  client.dispose();
};

const withUrql: Watch = (url, after, onEvent, signal) =>
  new Promise((resolve) => {
    const client = new Client({
      url: `${url}/graphql`,
      exchanges: [fetchExchange],
      preferGetMethod: false,
      fetchSubscriptions: true,
      fetchOptions: { headers },
    });
    const { unsubscribe } = pipe(
      client.subscription<Result['data']>(WATCH, { after }),
      onEnd(resolve),
      subscribe(({ data, error }) => {
        if (error === undefined) hand({ data }, onEvent);
        else resolve();
      }),
    );
    signal.addEventListener('abort', unsubscribe);
  });

const withApollo: Watch = (url, after, onEvent, signal) =>
  new Promise((resolve) => {
    const socket = socketClient(url);
    const client = new ApolloClient({
      cache: new InMemoryCache(),
      link: ApolloLink.from([new GraphQLWsLink(socket)]),
    });
    const finish = () => {
      client.stop();
      void socket.dispose();
      resolve();
    };
    const watched = client
      .subscribe<NonNullable<Result['data']>>({ query: gql(WATCH), variables: { after }, fetchPolicy: 'no-cache' })
      .subscribe({
        next: ({ data, error }) => (error === undefined ? hand({ data }, onEvent) : finish()),
        error: finish,
        complete: finish,
      });
    signal.addEventListener('abort', () => watched.unsubscribe());
    signal.addEventListener('abort', finish);
  });

const relayScalar = (name: string) => ({ kind: 'ScalarField', name, alias: null, args: null, storageKey: null });
const relayLink = (name: string, concreteType: string, args: unknown, selections: unknown[]) => ({
  kind: 'LinkedField',
  name,
  alias: null,
  args,
  concreteType,
  plural: false,
  selections,
  storageKey: null,
});

/** What the compiler of Relay makes of the subscription: what to send, and what of the answer to keep. */
function relayRequest(): ConcreteRequest {
  const tenant = relayLink('tenant', 'Tenant', null, [relayScalar('externalId')]);
  const after = [{ kind: 'Variable', name: 'after', variableName: 'after' }];
  const selections = [
    relayLink('healthChanged', 'HealthEvent', after, [relayScalar('id'), relayScalar('cursor'), tenant]),
  ];
  const argumentDefinitions = [{ kind: 'LocalArgument', name: 'after', defaultValue: null }];
  const request = {
    kind: 'Request',
    fragment: {
      kind: 'Fragment',
      name: 'Watch',
      type: 'Subscription',
      metadata: null,
      abstractKey: null,
      argumentDefinitions,
      selections,
    },
    operation: { kind: 'Operation', name: 'Watch', argumentDefinitions, selections },
    params: { id: null, cacheID: 'watch', name: 'Watch', operationKind: 'subscription', metadata: {}, text: WATCH },
  };
  return request as unknown as ConcreteRequest;
}

/** With the network layer of Relay's own guide: streams by server-sent events. */
const withRelay: Watch = (url, after, onEvent, signal) =>
  new Promise((resolve) => {
    const client = createSseClient({ url: `${url}/graphql`, headers, retryAttempts: 0 });
    const ask: FetchFunction = () => {
      throw new Error('Nothing is asked here.');
    };
    const stream: SubscribeFunction = ({ text }, variables) =>
      Observable.create<GraphQLResponse>((sink) =>
        client.subscribe({ query: text ?? '', variables }, sink as Parameters<typeof client.subscribe>[1]),
      );
    const environment = new Environment({
      network: Network.create(ask, stream),
      store: new Store(new RecordSource()),
    });
    const finish = () => {
      client.dispose();
      resolve();
    };
    const watched = requestSubscription<{ variables: { after: string }; response: NonNullable<Result['data']> }>(
      environment,
      {
        subscription: relayRequest(),
        variables: { after },
        onNext: (data) => hand({ data: data ?? null }, onEvent),
        onError: finish,
        onCompleted: finish,
      },
    );
    signal.addEventListener('abort', () => {
      watched.dispose();
      finish();
    });
  });

export const CONSUMERS: [string, Watch][] = [
  ['graphql-ws', withGraphqlWs],
  ['graphql-sse', withGraphqlSse],
  ['urql', withUrql],
  ['Apollo Client', withApollo],
  ['Relay', withRelay],
];

// Browsers have one, and so have newer versions of Node; Apollo Client looks for it when a connection breaks.
globalThis.WebSocket ??= WebSocket as never;

/** What one consumer has been told, by the contract: it comes back behind the last cursor that it has. */
export interface Consumption {
  events: ToldEvent[];
  /** When each event came the first time, by its id. */
  at: Map<string, number>;
  /** How often it has subscribed. */
  attempts: number;
  /** Leaves for good. */
  stop(): Promise<void>;
}

const running = new Set<Consumption>();
afterEach(async () => {
  await Promise.all([...running].map((consumption) => consumption.stop()));
  running.clear();
});

/** Goes on until it is stopped, at the end of the test at the latest. */
export function consume(watch: Watch, url: string, after: string): Consumption {
  const leaving = new AbortController();
  // One listener for each time that it subscribes.
  setMaxListeners(0, leaving.signal);
  const consumption: Consumption = { events: [], at: new Map(), attempts: 0, stop: async () => undefined };
  let cursor = after;
  const take = (event: ToldEvent) => {
    cursor = event.cursor;
    consumption.events.push(event);
    if (!consumption.at.has(event.id)) consumption.at.set(event.id, performance.now());
  };
  const ending = (async () => {
    while (!leaving.signal.aborted) {
      consumption.attempts += 1;
      // What a client that was left for good may still say concerns nobody.
      let isOver = false;
      await watch(url, cursor, (event) => !isOver && take(event), leaving.signal);
      isOver = true;
      if (!leaving.signal.aborted) await new Promise((resolve) => setTimeout(resolve, 20));
    }
  })();
  consumption.stop = () => {
    leaving.abort();
    return ending;
  };
  running.add(consumption);
  return consumption;
}
