import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CliError, EXIT } from './output.js';

const DEADLINE_MS = 90_000;

type Environment = Record<string, string | undefined>;

/** What a mutation answers: a success or one of the errors, told apart by `__typename`. */
export type Outcome<Fields> = { __typename: string; message?: string } & Partial<Fields>;

/** A running server, asked over GraphQL. */
export interface Server {
  /** @throws {CliError} it does not answer, or does not run the operation. */
  run<Data>(document: string, variables?: Record<string, unknown>): Promise<Data>;
  /** Runs the mutation `name`; `selection` is of its success. An outcome that is none is returned as well. */
  mutate<Fields>(name: string, input: Record<string, unknown>, selection: string): Promise<Outcome<Fields>>;
}

/**
 * The server that `LATCHKEY_URL` names (`http://localhost:4000` unless told), with the key of `LATCHKEY_API_KEY` or
 * `LATCHKEY_ADMIN_KEY`, or the one that a development server keeps in its data folder. Keys are never read from the
 * command line, where other users of the machine can see them.
 *
 * @throws {CliError}
 */
export async function connectToServer(env: Environment): Promise<Server> {
  const url = (env['LATCHKEY_URL'] || 'http://localhost:4000').replace(/\/+$/, '');
  if (!/^https?:\/\//i.test(url) || !URL.canParse(url)) {
    throw new CliError('LATCHKEY_URL must be an address such as https://latchkey.example.com.', EXIT.usage);
  }
  const key = env['LATCHKEY_API_KEY'] || env['LATCHKEY_ADMIN_KEY'] || (await readKeyFile(env));
  return createServerClient(url, key);
}

async function readKeyFile(env: Environment): Promise<string> {
  const path = join(env['LATCHKEY_DATA_DIR'] || './.latchkey', 'admin-key');
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch {
    throw new CliError('No key: set LATCHKEY_API_KEY to a server key, or LATCHKEY_ADMIN_KEY.', EXIT.usage);
  }
}

interface Answer<Data> {
  data?: Data | null;
  errors?: { message: string; extensions?: { code?: string } }[];
}

function createServerClient(url: string, key: string): Server {
  const run: Server['run'] = async <Data>(query: string, variables: Record<string, unknown> = {}) => {
    let answer: Answer<Data>;
    try {
      const response = await fetch(`${url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', accept: 'application/json', authorization: `Bearer ${key}` },
        body: JSON.stringify({ query, variables }),
        signal: AbortSignal.timeout(DEADLINE_MS),
      });
      answer = (await response.json()) as Answer<Data>;
    } catch {
      throw new CliError(`No Latchkey answers at ${url}. Is it running, and is LATCHKEY_URL right?`);
    }
    const [error] = answer.errors ?? [];
    if (error === undefined && answer.data) return answer.data;
    const code = error?.extensions?.code ?? 'no code';
    const hint = code === 'UNAUTHENTICATED' ? ' Is LATCHKEY_API_KEY a key of this server?' : '';
    throw new CliError(`The server refused: ${error?.message ?? 'no data came back'} (${code})${hint}`);
  };
  return {
    run,
    mutate: async <Fields>(name: string, input: Record<string, unknown>, selection: string) => {
      const type = name.charAt(0).toUpperCase() + name.slice(1);
      const data = await run<Record<string, Outcome<Fields>>>(
        `mutation ($input: ${type}Input!) {
          ${name}(input: $input) { __typename ... on ${type}Success { ${selection} } ... on Error { message } }
        }`,
        { input },
      );
      const outcome = data[name];
      if (outcome === undefined) throw new CliError(`The server answered nothing to ${name}.`);
      return outcome;
    },
  };
}

/** The success of an outcome. @throws {CliError} with what the server said, where it is none. */
export function succeeded<Fields>(outcome: Outcome<Fields>): Fields {
  if (outcome.__typename.endsWith('Success')) return outcome as Fields;
  throw new CliError(`${outcome.message ?? 'It was refused.'} (${outcome.__typename})`);
}

interface Page<Node> {
  edges: { node: Node }[];
  pageInfo: { hasNextPage: boolean; endCursor: string | null };
}

/** All items of a list, a page at a time. */
export async function readAll<Node>(server: Server, field: string, selection: string): Promise<Node[]> {
  const nodes: Node[] = [];
  for (let after: string | null = null; ;) {
    const data: Record<string, Page<Node>> = await server.run(
      `query ($after: String) {
        ${field}(first: 100, after: $after) { edges { node { ${selection} } } pageInfo { hasNextPage endCursor } }
      }`,
      { after },
    );
    const page = data[field];
    if (page === undefined) return nodes;
    nodes.push(...page.edges.map(({ node }) => node));
    if (!page.pageInfo.hasNextPage) return nodes;
    after = page.pageInfo.endCursor;
  }
}
