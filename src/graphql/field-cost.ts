import { getNamedType, getNullableType, type GraphQLField, isListType, isObjectType } from 'graphql';
import { DEFAULT_PAGE } from './page.js';

/** Items that a list without a page size is reckoned with: scopes, candidates, permissions. */
const ITEMS_OF_A_LIST = 5;

/** What a field costs by itself, and how often what is selected in it is answered. */
export interface FieldCost {
  field: number;
  multiplier: number;
}

/**
 * The cost of a field: one for each value that is answered. What is selected in a connection counts once for each item
 * of the page that was asked for; `edges` and `nodes` of a page are its items already.
 */
export function costOfField(args: Record<string, unknown>, field: GraphQLField<unknown, unknown>): FieldCost {
  const type = getNullableType(field.type);
  const named = getNamedType(type);
  if (field.args.some(({ name }) => name === 'first')) {
    const size = args['first'] ?? args['last'];
    return { field: 1, multiplier: typeof size === 'number' ? Math.max(1, size) : DEFAULT_PAGE };
  }
  const isPage = isObjectType(named) && named.name.endsWith('Edge');
  return { field: 1, multiplier: isListType(type) && !isPage ? ITEMS_OF_A_LIST : 1 };
}
