import { Kind, type OperationDefinitionNode } from 'graphql';
import type { OperationKind, OperationOutcome } from '../diagnostics.js';

/** The query of the field `credential` alone, which has limits of its own for how long it may take; else its type. */
export function kindOf({ operation, selectionSet: { selections } }: OperationDefinitionNode): OperationKind {
  const [first] = selections;
  const isCredential =
    operation === 'query' && selections.length === 1 && first?.kind === Kind.FIELD && first.name.value === 'credential';
  return isCredential ? 'credential' : operation;
}

const OUTCOMES: Readonly<Record<string, OperationOutcome>> = {
  INTERNAL_SERVER_ERROR: 'internal',
  UNAVAILABLE: 'unavailable',
  VAULT_UNAVAILABLE: 'vault_unavailable',
  AUDIT_UNAVAILABLE: 'audit_unavailable',
  FORBIDDEN: 'forbidden',
  UNAUTHENTICATED: 'unauthenticated',
  RATE_LIMITED: 'rate_limited',
};

/** The gravest first: what is ours counts before what is the caller's. */
const GRAVITY: readonly OperationOutcome[] = [
  'internal',
  'vault_unavailable',
  'audit_unavailable',
  'unavailable',
  'forbidden',
  'unauthenticated',
  'rate_limited',
];

/** What became of an operation, by the codes of its errors. Errors that are data of the schema are `ok`. */
export function outcomeOf(
  errors: readonly { extensions?: { [key: string]: unknown } }[] | undefined,
): OperationOutcome {
  if (errors === undefined || errors.length === 0) return 'ok';
  const found = new Set(errors.map(({ extensions }) => OUTCOMES[String(extensions?.['code'])]));
  return GRAVITY.find((outcome) => found.has(outcome)) ?? 'bad_request';
}
