import { complexityFromQuery } from '@pothos/plugin-complexity';
import {
  BREAK,
  type DocumentNode,
  getOperationAST,
  getVariableValues,
  GraphQLError,
  Kind,
  type OperationDefinitionNode,
  visit,
} from 'graphql';
import type { Principal } from '../domain/principal.js';
import { schema } from '../graphql/schema.js';
import { BAD_REQUEST } from './mask.js';

/** What an operation may cost, by the kind of who asks. */
export type CostLimits = Readonly<Record<Principal['kind'], number>>;

/** One operation of a document, as it is asked for. */
export interface AskedOperation {
  document: DocumentNode;
  operationName?: string | null | undefined;
  variables?: Readonly<Record<string, unknown>> | null | undefined;
}

/** Costs that depend on no variable, by their operations; documents are kept and asked for again. */
const fixedCosts = new WeakMap<OperationDefinitionNode, number>();

const PAGE_SIZES: ReadonlySet<string> = new Set(['first', 'last']);

/** Whether the size of a page is left to a variable, anywhere in the document. */
function hasVariablePage(document: DocumentNode): boolean {
  let found = false;
  visit(document, {
    Argument: ({ name, value }) => {
      if (!PAGE_SIZES.has(name.value) || value.kind !== Kind.VARIABLE) return undefined;
      found = true;
      return BREAK;
    },
  });
  return found;
}

/**
 * What a valid operation costs: about the number of values that it can be answered with.
 *
 * @returns null where its variables are wrong, which whoever executes it will say.
 * @throws {GraphQLError} an argument is null that must not be.
 */
export function costOf({ document, operationName, variables }: AskedOperation): number | null {
  const operation = getOperationAST(document, operationName);
  if (!operation) return null;
  const known = fixedCosts.get(operation);
  if (known !== undefined) return known;
  const given = getVariableValues(schema, operation.variableDefinitions ?? [], variables ?? {});
  if (given.coerced === undefined) return null;
  const fragments = document.definitions.filter(({ kind }) => kind === Kind.FRAGMENT_DEFINITION);
  const alone: DocumentNode = { kind: Kind.DOCUMENT, definitions: [operation, ...fragments] };
  const { complexity: cost } = complexityFromQuery(alone, { schema, variables: { ...variables } });
  if (!hasVariablePage(document)) fixedCosts.set(operation, cost);
  return cost;
}

/** @returns the error that refuses an operation; null where it may be executed. */
export function refuseCost(operation: AskedOperation, { kind }: Principal, limits: CostLimits): GraphQLError | null {
  const limit = limits[kind];
  try {
    const cost = costOf(operation);
    if (cost === null || cost <= limit) return null;
    return new GraphQLError(
      `The operation costs ${cost}, and ${limit} is what it may cost. Ask for shorter pages, or for less of each item.`,
      { extensions: { code: 'COST_LIMIT_EXCEEDED', cost, limit, http: BAD_REQUEST } },
    );
  } catch (error) {
    // What cannot be reckoned is not executed: beside the field that is wrong there may be others.
    if (!(error instanceof GraphQLError)) throw error;
    const { message, nodes } = error;
    return new GraphQLError(message, {
      nodes: nodes ?? null,
      extensions: { code: 'BAD_USER_INPUT', http: BAD_REQUEST },
    });
  }
}
