import type { UnknownScope } from '../errors.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import { findScope } from '../zoom-scopes/catalogue.js';
import { isScopeToken, type ScopeLevel } from '../zoom-scopes/grammar.js';
import { nearScopeNames, sameAtLevels } from '../zoom-scopes/near-miss.js';

/** Zoom does not mix levels within an app of either kind; for server-to-server apps it has no such rule. */
const LEVELS: Readonly<Record<ProviderAppKind, readonly ScopeLevel[]>> = {
  USER_MANAGED: ['USER'],
  ADMIN_MANAGED: ['ADMIN', 'MASTER'],
  SERVER_TO_SERVER: ['ADMIN', 'USER', 'MASTER'],
};

/** The chatbot's scope belongs to the app itself, whoever manages it. */
const OF_ANY_KIND: ReadonlySet<string> = new Set(['imchat:bot']);

/** Looking for similar names takes time, and one request may name any number of unknown ones. */
const MOST_WITH_SUGGESTIONS = 20;

/**
 * The scopes that an app of this kind cannot have, as far as the catalogue knows, in the order given. Only the first 20
 * unknown names come with suggestions.
 */
export function checkScopes(kind: ProviderAppKind, names: readonly string[]): UnknownScope[] {
  const levels = LEVELS[kind];
  let searches = 0;
  const refused: UnknownScope[] = [];
  for (const name of new Set(names)) {
    const scope = findScope(name);
    if (scope === undefined) {
      searches += 1;
      const suggestions = searches > MOST_WITH_SUGGESTIONS ? [] : nearScopeNames(name, levels);
      refused.push({ name, problem: 'NOT_IN_CATALOGUE', suggestions });
    } else if (!levels.includes(scope.level) && !OF_ANY_KIND.has(name)) {
      refused.push({ name, problem: 'WRONG_LEVEL_FOR_APP_KIND', suggestions: sameAtLevels(scope, levels) });
    }
  }
  return refused;
}

const coveredBy = (name: string): readonly string[] => (findScope(name)?.covers ?? []).filter(isScopeToken);

/**
 * The required scopes that were not granted, in the order they are required.
 *
 * When an app is migrated from classic to granular scopes, the tokens of its users change one by one, each at its next
 * consent. So a granular scope counts as granted also where a classic one that covers it was granted, and a classic one
 * where all the granular ones that it covers were. Levels stand for themselves: none includes another.
 */
export function missingScopes(required: readonly string[], granted: readonly string[]): string[] {
  if (required.length === 0) return [];
  const have = new Set(granted);
  const missing = required.filter((name) => !have.has(name));
  if (missing.length === 0) return [];
  const reached = new Set(granted.flatMap(coveredBy));
  return missing.filter((name) => {
    const parts = coveredBy(name);
    return !reached.has(name) && !(parts.length > 0 && parts.every((part) => have.has(part)));
  });
}
