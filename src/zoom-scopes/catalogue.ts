import classic from './classic.json' with { type: 'json' };
import { describeScope } from './describe.js';
import granular from './granular.json' with { type: 'json' };
import { parseScopeName, vocabularyOf, type ScopeLevel, type ScopeName, type ScopeVocabulary } from './grammar.js';

/** A scope as it is shown. */
export interface Scope {
  /** The name, and for a classic scope that shares its name with a granular one, something in front. */
  id: string;
  name: string;
  description: string;
  level: ScopeLevel;
  vocabulary: ScopeVocabulary;
  resource: string;
  /** Names of the granular scopes that allow what a classic scope allows; empty for a granular one. */
  covers: readonly string[];
}

const LEVEL_SUFFIX = { u: '', a: ':admin', m: ':master' } as const;
const SUFFIX: Readonly<Record<ScopeLevel, string>> = { USER: '', ADMIN: ':admin', MASTER: ':master' };

const join = (...parts: string[]) => parts.filter((part) => part !== '').join(':');

const scopeOf = (name: string, parsed: ScopeName, vocabulary: ScopeVocabulary, covers: readonly string[]): Scope => ({
  id: name,
  name,
  description: describeScope(parsed, vocabulary),
  level: parsed.level,
  vocabulary,
  resource: parsed.resource,
  covers,
});

/** `meeting:read` with `invitation=uam, summary=ua`: each claim with the levels that it exists at. */
function* granularNames(): Generator<string> {
  for (const [prefix, claims] of Object.entries<string>(granular)) {
    for (const entry of claims.split(', ')) {
      const [claim = '', levels = ''] = entry.split('=');
      for (const level of levels) yield join(prefix, claim) + LEVEL_SUFFIX[level as keyof typeof LEVEL_SUFFIX];
    }
  }
}

/** `meeting:read=invitation, summary; report:read=user`: granular scopes of the same level as the classic one. */
function* coveredNames(coverage: string, level: ScopeLevel): Generator<string> {
  for (const group of coverage.split('; ').filter((text) => text !== '')) {
    const [prefix = '', claims = ''] = group.split('=');
    for (const claim of claims.split(', ')) yield join(prefix, claim) + SUFFIX[level];
  }
}

function readCatalogue(): Scope[] {
  const scopes = [...granularNames()].map((name) => scopeOf(name, parseScopeName(name), 'GRANULAR', []));
  const taken = new Set(scopes.map(({ name }) => name));
  for (const [name, coverage] of Object.entries<string>(classic)) {
    const parsed = parseScopeName(name);
    const scope = scopeOf(name, parsed, 'CLASSIC', [...coveredNames(coverage, parsed.level)]);
    scopes.push(taken.has(name) ? { ...scope, id: `classic/${name}` } : scope);
  }
  return scopes.toSorted((a, b) => compare(a.name, b.name) || compare(a.id, b.id));
}

const compare = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0);

/** All scopes that Zoom is known to have, ordered by name. */
export const CATALOGUE: readonly Scope[] = readCatalogue();

const BY_ID: ReadonlyMap<string, Scope> = new Map(CATALOGUE.map((scope) => [scope.id, scope]));
const BY_NAME: ReadonlyMap<string, Scope> = new Map(
  CATALOGUE.filter((scope) => BY_ID.get(scope.name) === scope).map((scope) => [scope.name, scope]),
);

const variantKey = (vocabulary: ScopeVocabulary, base: string, level: ScopeLevel) => `${vocabulary} ${base} ${level}`;
const VARIANTS: ReadonlyMap<string, Scope> = new Map(
  CATALOGUE.map((scope) => [variantKey(scope.vocabulary, parseScopeName(scope.name).base, scope.level), scope]),
);

/** Of two scopes with the same name the granular one. */
export const findScope = (name: string): Scope | undefined => BY_NAME.get(name);

export const findScopeById = (id: string): Scope | undefined => BY_ID.get(id);

/** The same scope of another level, where Zoom has one. */
export const scopeAtLevel = ({ name, vocabulary }: Scope, level: ScopeLevel): Scope | undefined =>
  VARIANTS.get(variantKey(vocabulary, parseScopeName(name).base, level));

/** A scope by its name; one that the catalogue does not know is described by its name alone. */
export function describedScope(name: string): Scope {
  const parsed = parseScopeName(name);
  return findScope(name) ?? scopeOf(name, parsed, vocabularyOf(parsed), []);
}

export interface ScopeFilter {
  level?: ScopeLevel | null | undefined;
  vocabulary?: ScopeVocabulary | null | undefined;
  resource?: string | null | undefined;
  /** Words that must all occur in the name or the description, in any case and order. */
  search?: string | null | undefined;
}

const TEXTS: ReadonlyMap<Scope, string> = new Map(
  CATALOGUE.map((scope) => [scope, `${scope.name}\n${scope.description}`.toLowerCase()]),
);

/** What the catalogue has of that, ordered by name; all conditions must hold. */
export function filterScopes({ level, vocabulary, resource, search }: ScopeFilter): Scope[] {
  const words = [...new Set((search ?? '').toLowerCase().split(/\s+/))].filter((word) => word !== '');
  return CATALOGUE.filter(
    (scope) =>
      (level ?? scope.level) === scope.level &&
      (vocabulary ?? scope.vocabulary) === scope.vocabulary &&
      (resource ?? scope.resource) === scope.resource &&
      words.every((word) => TEXTS.get(scope)?.includes(word)),
  );
}
