import { type DocumentNode, execute, type ExecutionResult, getOperationAST, type GraphQLError } from 'graphql';
import { LRUCache } from 'lru-cache';
import { inSpan, type OperationKind } from '../diagnostics.js';
import { schema } from '../graphql/schema.js';
import type { Engine, RequestContext } from './engine.js';
import { kindOf } from './operation-outcome.js';
import { factsOf } from './operation-spans.js';

/** Distinct documents that are kept ready. A client has few; one that puts values into its documents gains nothing. */
const MAX_DOCUMENTS = 500;

/** A request that asks for exactly one result, in a form that needs no negotiation. */
export interface SingleOperation {
  query: string;
  variables: Record<string, unknown> | undefined;
  operationName: string | undefined;
}

/**
 * Runs one well-formed query or mutation without the machinery that streams and negotiation need.
 *
 * Documents are parsed and validated by the engine, limits included, and kept once found valid. Context and masking are
 * the engine's, too.
 *
 * @returns the result and what kind of operation it was; null for what is no single, valid operation, before anything
 * was executed: the engine's own HTTP layer answers it, also with the error.
 */
export function createSingleOperationRunner(engine: Engine) {
  const documents = new LRUCache<string, DocumentNode>({ max: MAX_DOCUMENTS });

  function prepare(query: string, request: RequestContext): DocumentNode | null {
    const known = documents.get(query);
    if (known !== undefined) return known;
    const { parse, validate } = engine.yoga.getEnveloped({ ...request } as never);
    let document: DocumentNode;
    try {
      document = parse(query) as DocumentNode;
    } catch {
      // Parsed again on the other way, which answers the error.
      return null;
    }
    if (validate(schema, document).length > 0) return null;
    documents.set(query, document);
    return document;
  }

  return async function runSingle(
    { query, variables, operationName }: SingleOperation,
    request: RequestContext,
  ): Promise<{ result: ExecutionResult; kind: OperationKind } | null> {
    const mayParse = (engine.persistedDocuments?.refuse(query, request.principal) ?? null) === null;
    const document = mayParse ? prepare(query, request) : null;
    const operation = document && getOperationAST(document, operationName);
    if (!document || !operation || operation.operation === 'subscription') return null;
    // Refused again on the other way, which answers the error.
    if (engine.admission.refuse({ document, operationName, variables }, request.principal) !== null) return null;
    const kind = kindOf(operation);
    const contextValue = engine.createContext(request);
    const result = await inSpan(
      'operation',
      () =>
        engine.deadline.run(document, contextValue, () =>
          execute({ schema, document, contextValue, variableValues: variables, operationName }),
        ) as ExecutionResult | Promise<ExecutionResult>,
      () => factsOf(operation),
    );
    if (result.errors === undefined) return { result, kind };
    return { result: { ...result, errors: result.errors.map((error) => engine.mask(error) as GraphQLError) }, kind };
  };
}
