import { createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import { createInbox, type Inbox } from './inbox.js';

const DEADLINE_MS = 15_000;

/** The server did not run the operation. `status` is of HTTP, `code` the first error's. */
export class OperationRefusedError extends Error {
  readonly status: number;
  readonly code: string;

  constructor(status: number, code: string, message: string) {
    super(`the server refused an operation: ${message} (HTTP ${status}, ${code})`);
    this.name = 'OperationRefusedError';
    this.status = status;
    this.code = code;
  }
}

/** What a mutation or `credential` answers: a success or one of the errors, told apart by `__typename`. */
export type Outcome<Fields> = { __typename: string; message?: string } & Partial<Fields>;

export interface GraphQLClient {
  /** Runs a query or mutation over HTTP. @throws {OperationRefusedError} */
  run<Data>(document: string, variables?: Record<string, unknown>): Promise<Data>;
  /**
   * Runs the mutation `name` with its `input`.
   *
   * @param selection what to select of its success.
   */
  mutate<Fields>(name: string, input: Record<string, unknown>, selection: string): Promise<Outcome<Fields>>;
  /** Opens a subscription over a WebSocket of its own, which is not opened again when it breaks. */
  subscribe<Data>(document: string, variables?: Record<string, unknown>): Promise<Subscription<Data>>;
}

export interface Subscription<Data> {
  inbox: Inbox<Data>;
  close(): Promise<void>;
}

interface Answer<Data> {
  data?: Data;
  errors?: { message: string; extensions?: { code?: string } }[];
}

/** Speaks GraphQL to a server, with nothing but what its documentation says. */
export function createGraphQLClient(url: string, key: string): GraphQLClient {
  const authorization = `Bearer ${key}`;

  const run: GraphQLClient['run'] = async <Data>(query: string, variables: Record<string, unknown> = {}) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/json', authorization },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(DEADLINE_MS),
    });
    const { data, errors = [] } = (await response.json()) as Answer<Data>;
    const [error] = errors;
    if (error !== undefined || data === undefined) {
      const { message = 'no data came back', extensions } = error ?? {};
      throw new OperationRefusedError(response.status, extensions?.code ?? 'no code', message);
    }
    return data;
  };

  const mutate: GraphQLClient['mutate'] = async <Fields>(
    name: string,
    input: Record<string, unknown>,
    selection: string,
  ) => {
    const type = name.charAt(0).toUpperCase() + name.slice(1);
    const document = `mutation ($input: ${type}Input!) {
      ${name}(input: $input) { __typename ... on ${type}Success { ${selection} } ... on Error { message } }
    }`;
    const answer = await run<Record<string, Outcome<Fields> | null>>(document, { input });
    const outcome = answer[name];
    if (outcome === undefined || outcome === null) throw new Error(`${name} answered nothing`);
    return outcome;
  };

  const subscribe: GraphQLClient['subscribe'] = async <Data>(
    query: string,
    variables: Record<string, unknown> = {},
  ) => {
    const inbox = createInbox<Data>();
    const client = createClient({
      url: `${url.replace(/^http/i, 'ws')}/graphql`,
      webSocketImpl: WebSocket,
      connectionParams: { authorization },
      retryAttempts: 0,
      lazy: false,
      onNonLazyError: () => inbox.fail(new Error('the WebSocket could not be opened')),
    });
    client.subscribe<Data>(
      { query, variables },
      {
        next: ({ data, errors }) =>
          data ? inbox.put(data) : inbox.fail(new Error(errors?.[0]?.message ?? 'the subscription sent no data')),
        error: (error) => inbox.fail(new Error(`the subscription broke: ${reasonOf(error)}`)),
        complete: () => inbox.fail(new Error('the server ended the subscription')),
      },
    );
    try {
      // A second operation on the same socket: once it is answered, the socket stands and the server knows who calls.
      for await (const { errors } of client.iterate({ query: '{ viewer { kind } }' })) {
        if (errors) throw new Error(errors[0]?.message ?? 'no reason given');
      }
    } catch (error) {
      await client.dispose();
      throw new Error(`the WebSocket does not serve: ${reasonOf(error)}`, { cause: error });
    }
    return { inbox, close: async () => client.dispose() };
  };

  return { run, mutate, subscribe };
}

/** The first error's message, or how the socket closed: what is thrown here is not always an Error. */
function reasonOf(error: unknown): string {
  const first: unknown = Array.isArray(error) ? error[0] : error;
  const { message, code, reason } = first as { message?: string; code?: number; reason?: string };
  return message ?? `closed with ${code ?? 'no code'} ${reason ?? ''}`.trimEnd();
}
