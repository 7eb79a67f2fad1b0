import { maxAliasesPlugin } from '@escape.tech/graphql-armor-max-aliases';
import { maxDepthPlugin } from '@escape.tech/graphql-armor-max-depth';
import { maxDirectivesPlugin } from '@escape.tech/graphql-armor-max-directives';
import { maxTokensPlugin } from '@escape.tech/graphql-armor-max-tokens';
import { type ExecutionResult, GraphQLError, type GraphQLErrorExtensions, type ValidationContext } from 'graphql';
import { createYoga, isAsyncIterable, type Plugin, type YogaServerInstance } from 'graphql-yoga';
import { renderGraphiQL } from '@graphql-yoga/render-graphiql';
import { isOutage } from '../database/outage.js';
import { VaultError } from '../vault/errors.js';
import { type Context, createContextFactory, type GraphQLDeps, type Principal } from '../graphql/context.js';
import { schema } from '../graphql/schema.js';
import { operationSpans } from './operation-spans.js';
import { endWithPrincipal } from './principal-stream.js';

export const GRAPHQL_PATH = '/graphql';

/** What a document may ask for. Introspection is deeper, and exempt. */
const MAX_DEPTH = 10;
const MAX_TOKENS = 1_000;
const MAX_ALIASES = 15;
const MAX_DIRECTIVES = 10;

/** A limit that is passed is one more validation error. Thrown, it would pass by what makes answers of those. */
const REPORTED = {
  exposeLimits: true,
  propagateOnRejection: false,
  onReject: [(context: ValidationContext | null, error: GraphQLError) => context?.reportError(error)],
};

const DEFAULT_QUERY = `# Put your server key below, in the tab "Headers":
#   { "authorization": "Bearer <the admin key>" }
query Start {
  viewer { kind permissions }
  tenants { totalCount edges { node { externalId health { healthy degraded } } } }
}
`;

/** What the HTTP layer adds to each operation. */
export interface RequestContext {
  principal: Principal;
}

/** The engine, and the two parts of it that the direct way to it needs. */
export interface Engine {
  yoga: YogaServerInstance<RequestContext, Context>;
  createContext(request: RequestContext): Context;
  mask(error: unknown): Error;
}

/** Tells the HTTP layer that the request was wrong: 400, unless the answer's media type leaves that to the body. */
const BAD_REQUEST = { spec: true, status: 400 };

const extended = (error: GraphQLError, extensions: GraphQLErrorExtensions): GraphQLError =>
  new GraphQLError(error.message, {
    nodes: error.nodes ?? null,
    source: error.source ?? null,
    positions: error.positions ?? null,
    path: error.path ?? null,
    extensions: { ...error.extensions, ...extensions },
  });

const documentError = (error: GraphQLError, code: string): GraphQLError =>
  extended(error, { code: error.extensions['code'] ?? code, http: BAD_REQUEST });

/** Gives errors of documents a code that clients can branch on. */
const documentErrorCodes: Plugin = {
  onParse:
    () =>
    ({ result, replaceParseResult }) => {
      if (result instanceof GraphQLError) replaceParseResult(documentError(result, 'GRAPHQL_PARSE_FAILED') as never);
    },
  onValidate:
    () =>
    ({ valid, result, setResult }) => {
      if (!valid) setResult(result.map((error) => documentError(error, 'GRAPHQL_VALIDATION_FAILED')));
    },
};

/** An error that was meant for the caller, with a code. */
function publicError(error: GraphQLError): GraphQLError {
  const { code, http } = error.extensions as { code?: unknown; http?: { status?: unknown } };
  // The executor's way to say that a variable was wrong; what has no place in the document was refused before.
  const isVariable = http?.status === 400 && error.locations !== undefined;
  if (typeof code === 'string' && !isVariable) return error;
  return extended(error, { code: code ?? 'BAD_USER_INPUT', ...(isVariable ? { http: BAD_REQUEST } : {}) });
}

/** A stream that fails, or whose holder comes to an end, says so in one last result and ends, over every transport. */
const createStreamEnds = ({ principals }: GraphQLDeps): Plugin<Context> => ({
  onSubscribe: ({ args }) => ({
    onSubscribeResult: ({ result, setResult }) => {
      if (!isAsyncIterable(result)) return;
      const { principal } = args.contextValue as Context;
      const stream = endWithErrors(result as AsyncIterableIterator<ExecutionResult>);
      setResult(endWithPrincipal(stream, principal, principals));
    },
  }),
});

function endWithErrors(results: AsyncIterableIterator<ExecutionResult>): AsyncIterableIterator<ExecutionResult> {
  let failed = false;
  return {
    next: async () => {
      if (failed) return { done: true, value: undefined };
      try {
        return await results.next();
      } catch (error) {
        failed = true;
        if (!(error instanceof GraphQLError)) throw error;
        return { done: false, value: { errors: [error] } };
      }
    },
    // Not a generator: one would be left only when the next result comes.
    return: async () => (await results.return?.()) ?? { done: true, value: undefined },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}

/** PostgreSQL's code for a text with a character that it cannot hold, of which zero is the only one that gets so far. */
const UNSTORABLE_TEXT = '22021';

/** Whether the database refused a text of the caller's, through either of the two ways to it. */
function isUnstorableText(error: unknown): boolean {
  const { code, meta } = error as {
    code?: unknown;
    meta?: { driverAdapterError?: { cause?: { originalCode?: unknown } } };
  };
  return code === UNSTORABLE_TEXT || meta?.driverAdapterError?.cause?.originalCode === UNSTORABLE_TEXT;
}

/** What a caller may know of a failure that is ours: a sentence, and a code to branch on. */
function describeFailure(error: unknown): [message: string, code: string] {
  if (error instanceof VaultError) return ['Stored secrets cannot be opened at the moment.', 'VAULT_UNAVAILABLE'];
  if (isOutage(error)) return ['The database cannot be reached at the moment. Try again.', 'UNAVAILABLE'];
  return ['Unexpected error.', 'INTERNAL_SERVER_ERROR'];
}

/**
 * Lets through what was meant for the caller and replaces everything else by one fixed error, whatever NODE_ENV says:
 * messages of drivers and libraries can hold statements, values and secrets.
 */
function createMask(deps: GraphQLDeps) {
  return (error: unknown): Error => {
    const original = error instanceof GraphQLError ? error.originalError : error;
    if (error instanceof GraphQLError && (original === undefined || original instanceof GraphQLError)) {
      return publicError(error);
    }
    const { nodes, path } = error instanceof GraphQLError ? error : { nodes: null, path: null };
    if (original instanceof Error && isUnstorableText(original)) {
      const message = 'A text holds a character that no stored text can have.';
      return new GraphQLError(message, {
        nodes: nodes ?? null,
        path: path ?? null,
        extensions: { code: 'BAD_USER_INPUT' },
      });
    }
    const [message, code] = describeFailure(original);
    deps.log.error('an operation failed', { code }, original);
    return new GraphQLError(message, { nodes: nodes ?? null, path: path ?? null, extensions: { code } });
  };
}

/**
 * Makes the GraphQL engine: one chain of parsing, validation, limits, execution and masking, which both doors to it and
 * the WebSocket share.
 *
 * @param development serves GraphiQL to browsers that ask for a page.
 */
export function createEngine(deps: GraphQLDeps, { development }: { development: boolean }): Engine {
  const mask = createMask(deps);
  const createContext = createContextFactory(deps);
  const yoga = createYoga<RequestContext, Context>({
    schema,
    graphqlEndpoint: GRAPHQL_PATH,
    landingPage: false,
    // Browsers get no cross-origin answers, and requests need a header that a form cannot send.
    cors: false,
    batching: false,
    multipart: false,
    healthCheckEndpoint: '/-',
    graphiql: development ? { title: 'Latchkey', defaultQuery: DEFAULT_QUERY } : false,
    renderGraphiQL,
    // Node's own, not the engine's: their streams can be piped into an answer and end at once when the client leaves.
    fetchAPI: { Headers, ReadableStream, Request, Response },
    maskedErrors: { isDev: false, maskError: mask },
    logging: {
      debug: () => undefined,
      info: () => undefined,
      warn: () => deps.log.warn('the GraphQL server warns', {}),
      error: (error: unknown) => {
        // The caller's own mistakes are answered, not ours to look into.
        if (error instanceof GraphQLError) return deps.log.debug('an operation was refused', {});
        return deps.log.error('the GraphQL server failed', {}, error);
      },
    },
    // Copied into the engine's own context, which inherits nothing.
    context: ({ principal }) => ({ ...deps, ...createContext(principal) }),
    plugins: [
      documentErrorCodes,
      operationSpans,
      createStreamEnds(deps),
      maxTokensPlugin({ n: MAX_TOKENS, exposeLimits: true }),
      // Fields count, however they are spread over fragments.
      maxDepthPlugin({ n: MAX_DEPTH, flattenFragments: true, ...REPORTED }),
      maxAliasesPlugin({ n: MAX_ALIASES, allowList: [], ...REPORTED }),
      maxDirectivesPlugin({ n: MAX_DIRECTIVES, ...REPORTED }),
    ],
  });
  return { yoga, createContext: ({ principal }) => createContext(principal), mask };
}
