import { BREAK, type DocumentNode, GraphQLError, visit } from 'graphql';
import type { Plugin } from 'graphql-yoga';
import type { Principal } from '../domain/principal.js';
import type { Context } from '../graphql/context.js';
import { BAD_REQUEST } from './mask.js';
import { type AskedOperation, type CostLimits, refuseCost } from './operation-cost.js';

/** Says, of a valid operation, whether a principal may have it executed. */
export interface Admission {
  /** @returns the error that refuses it, before anything is executed; null where it may be. */
  refuse(operation: AskedOperation, principal: Principal): GraphQLError | null;
}

const introspecting = new WeakMap<DocumentNode, boolean>();

/** Whether a document asks for the schema. `__typename` does not. */
function isIntrospecting(document: DocumentNode): boolean {
  let found = introspecting.get(document);
  if (found !== undefined) return found;
  found = false;
  visit(document, {
    Field: ({ name: { value } }) => {
      if (value !== '__schema' && value !== '__type') return undefined;
      found = true;
      return BREAK;
    },
  });
  introspecting.set(document, found);
  return found;
}

/** The admin key, and keys that could make themselves any other. */
const isAdministrator = ({ kind, id, permissions }: Principal): boolean =>
  kind === 'SERVER_KEY' && (id === null || permissions.includes('KEYS_WRITE'));

/** @param development lets everybody ask for the schema. */
export function createAdmission(options: { development: boolean; maxCost: CostLimits }): Admission {
  const { development, maxCost } = options;
  return {
    refuse: (operation, principal) => {
      if (!development && !isAdministrator(principal) && isIntrospecting(operation.document)) {
        return new GraphQLError('The key or session may not read the schema.', {
          extensions: { code: 'INTROSPECTION_DISABLED', http: BAD_REQUEST },
        });
      }
      return refuseCost(operation, principal, maxCost);
    },
  };
}

/** Asks at the engine's own door and over WebSocket; the direct way asks by itself. */
export function createAdmissionPlugin(admission: Admission): Plugin<Context> {
  const refuse = (args: {
    contextValue?: unknown;
    document: DocumentNode;
    operationName?: string | null | undefined;
    variableValues?: unknown;
  }): { errors: GraphQLError[] } | null => {
    const { document, operationName, contextValue } = args;
    const variables = args.variableValues as Record<string, unknown> | undefined;
    const error = admission.refuse({ document, operationName, variables }, (contextValue as Context).principal);
    return error === null ? null : { errors: [error] };
  };
  return {
    onExecute: ({ args, setResultAndStopExecution }) => {
      const refused = refuse(args);
      if (refused !== null) setResultAndStopExecution(refused);
    },
    onSubscribe: ({ args, setResultAndStopExecution }) => {
      const refused = refuse(args);
      if (refused !== null) setResultAndStopExecution(refused as never);
    },
  };
}
