import { GrantNotFoundError, NotFoundError } from '../errors.js';
import { decodeGlobalId } from './builder.js';
import { isUuid } from './node.js';

/** The row id of a global id, or null for an id of another type or of no type at all. */
export function rowId(globalId: string, ...typenames: readonly string[]): string | null {
  const { typename, id } = decodeGlobalId(globalId);
  return typenames.includes(typename) && isUuid(id) ? id : null;
}

/** @throws {NotFoundError} the id cannot be one of these types: nothing has it. */
export function requireRowId(globalId: string, ...typenames: readonly string[]): string {
  const id = rowId(globalId, ...typenames);
  if (id === null) throw new NotFoundError('Nothing has this id.');
  return id;
}

/** @throws {GrantNotFoundError} the id cannot be a grant's. */
export function requireGrantId(globalId: string): string {
  const id = rowId(globalId, 'Installation', 'UserConnection');
  if (id === null) throw new GrantNotFoundError();
  return id;
}

/** An id that no row has, for filters by an id that cannot exist. */
export const NO_ROW = '00000000-0000-0000-0000-000000000000';
