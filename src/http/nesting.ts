/** Levels that variables may have; the object that holds them is the first. */
export const MAX_VARIABLE_DEPTH = 16;

/** Whether objects and lists are nested in a value deeper than `depth`. Looks no deeper than that. */
export function isNestedDeeper(value: unknown, depth = MAX_VARIABLE_DEPTH): boolean {
  if (typeof value !== 'object' || value === null) return false;
  return depth === 0 || Object.values(value).some((inner) => isNestedDeeper(inner, depth - 1));
}
