import { maxAliasesPlugin } from '@escape.tech/graphql-armor-max-aliases';
import { maxDepthPlugin } from '@escape.tech/graphql-armor-max-depth';
import { maxDirectivesPlugin } from '@escape.tech/graphql-armor-max-directives';
import { maxTokensPlugin } from '@escape.tech/graphql-armor-max-tokens';
import { GraphQLError, validate, type ValidationContext } from 'graphql';
import { createYoga, type Plugin, type YogaServerInstance } from 'graphql-yoga';
import { renderGraphiQL } from '@graphql-yoga/render-graphiql';
import { type Context, createContextFactory, type GraphQLDeps, type Principal } from '../graphql/context.js';
import { schema } from '../graphql/schema.js';
import { type Admission, createAdmission, createAdmissionPlugin } from './admission.js';
import { createDeadline, createDeadlinePlugin, type Deadline, type DeadlineOptions } from './deadline.js';
import { BAD_REQUEST, createMask, extended } from './mask.js';
import type { CostLimits } from './operation-cost.js';
import { operationSpans } from './operation-spans.js';
import { createPersistedDocumentsPlugin, type PersistedDocuments } from './persisted-documents.js';
import { createStreamEnds } from './stream-end.js';
import { createStreamCounter, createStreamLimits, type StreamCounter, type StreamLimits } from './stream-limits.js';

export const GRAPHQL_PATH = '/graphql';

/** What a document may ask for. Introspection is deeper, and exempt. */
const MAX_DEPTH = 8;
const MAX_TOKENS = 1_000;
const MAX_ALIASES = 15;
const MAX_DIRECTIVES = 10;
/** What is told of what is wrong with one document. */
const MAX_ERRORS = 5;

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
  clientAddress?: string | null;
}

/** The engine, and the two parts of it that the direct way to it needs. */
export interface Engine {
  yoga: YogaServerInstance<RequestContext, Context>;
  createContext(request: RequestContext): Context;
  mask(error: unknown): Error;
  admission: Admission;
  deadline: Deadline;
  streams: StreamCounter;
  persistedDocuments: PersistedDocuments | null;
}

export interface EngineOptions {
  /** Serves GraphiQL to browsers that ask for a page, and the schema to everybody who is let in. */
  development: boolean;
  maxCost: CostLimits;
  deadline: DeadlineOptions;
  streams: StreamLimits;
  /** Null: frontend sessions may have any document executed. */
  persistedDocuments: PersistedDocuments | null;
}

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

/** Validates with the library's own options, which the engine has no way to set. */
const createValidation = (hideSuggestions: boolean): Plugin => ({
  onValidate: ({ setValidationFn }) =>
    setValidationFn((schema, document, rules) =>
      validate(schema, document, rules, { maxErrors: MAX_ERRORS, hideSuggestions }),
    ),
});

/**
 * Makes the GraphQL engine: one chain of parsing, validation, limits, execution and masking, which both doors to it and
 * the WebSocket share.
 */
export function createEngine(deps: GraphQLDeps, options: EngineOptions): Engine {
  const { development, persistedDocuments } = options;
  const admission = createAdmission(options);
  const deadline = createDeadline(options.deadline);
  const streams = createStreamCounter(options.streams);
  // Names that are near the given ones tell what the schema holds.
  const hideSuggestions = !development;
  const mask = createMask({ log: deps.log, hideSuggestions });
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
    context: ({ principal, clientAddress }) => ({ ...deps, ...createContext(principal, clientAddress) }),
    ...(persistedDocuments === null ? {} : { extraParamNames: ['documentId'] }),
    plugins: [
      ...(persistedDocuments === null ? [] : [createPersistedDocumentsPlugin(persistedDocuments)]),
      createValidation(hideSuggestions),
      documentErrorCodes,
      createAdmissionPlugin(admission),
      createDeadlinePlugin(deadline),
      operationSpans,
      createStreamLimits(streams),
      createStreamEnds(deps),
      maxTokensPlugin({ n: MAX_TOKENS, exposeLimits: true }),
      // Fields count, however they are spread over fragments.
      maxDepthPlugin({ n: MAX_DEPTH, flattenFragments: true, ...REPORTED }),
      maxAliasesPlugin({ n: MAX_ALIASES, allowList: [], ...REPORTED }),
      maxDirectivesPlugin({ n: MAX_DIRECTIVES, ...REPORTED }),
    ],
  });
  return {
    yoga,
    createContext: ({ principal, clientAddress }) => createContext(principal, clientAddress),
    mask,
    admission,
    deadline,
    streams,
    persistedDocuments,
  };
}
