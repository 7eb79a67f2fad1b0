import type { DomainError } from '../errors.js';

type ErrorClass = new (...args: never[]) => DomainError;

/**
 * The `errors` option of a field that answers `union …Result = …Success | …Error`.
 *
 * @param name of the field that holds the data in the success type.
 */
export function outcome<const Name extends string>(name: Name, description: string, types: readonly ErrorClass[]) {
  return {
    types: [...types] as (new (...args: never[]) => Error)[],
    union: { description: 'What may come of it.' },
    result: { description: 'It was done.' },
    dataField: { name, description },
  };
}

/**
 * The selection of a mutation's field as Prisma takes it. A caller who asks for nothing but `__typename` selects
 * nothing, which Prisma refuses: then the row is read whole.
 */
export const selected = <Query extends object>(query: Query): Query =>
  'select' in query && Object.keys(query.select as object).length === 0 ? ({} as Query) : query;
