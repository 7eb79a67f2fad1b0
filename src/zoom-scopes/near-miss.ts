import { distance } from 'fastest-levenshtein';
import { CATALOGUE, findScope, scopeAtLevel, type Scope } from './catalogue.js';
import { isScopeToken, parseScopeName, type ScopeLevel, type ScopeName } from './grammar.js';

const MOST = 5;
const LONGEST_NAME = 120;
/** How far apart two names may be to be taken for each other: 0 is equal, 1 has nothing in common. */
const FARTHEST = 0.34;
/** How much farther than the nearest one another may be. */
const TOLERANCE = 0.12;
/** How far apart two parts are that have a whole word in common at their end. */
const SAME_LAST_WORD = 0.3;

/** Names that go around in guides and that Zoom does not have, with those that do what they promise; without levels. */
const KNOWN_MISTAKES: ReadonlyMap<string, readonly string[]> = new Map([
  [
    'recording:read:recording',
    ['cloud_recording:read:list_user_recordings', 'cloud_recording:read:list_recording_files'],
  ],
  ['report:read:report', ['report:read:user', 'report:read:meeting', 'report:read:list_meeting_participants']],
  ['dashboard:read:dashboard', ['dashboard:read:list_meetings', 'dashboard:read:meeting']],
]);

const ACTION_NAMES: ReadonlyMap<string, string> = new Map([
  ['get', 'read'],
  ['list', 'read'],
  ['view', 'read'],
  ['create', 'write'],
  ['add', 'write'],
  ['edit', 'update'],
  ['change', 'update'],
  ['remove', 'delete'],
]);

const LEVELS: readonly ScopeLevel[] = ['USER', 'ADMIN', 'MASTER'];

interface Entry {
  scope: Scope;
  name: ScopeName;
}

/** One for each name without level. */
const ENTRIES: readonly Entry[] = CATALOGUE.filter(
  (scope) =>
    isScopeToken(scope.name) &&
    LEVELS.map((level) => scopeAtLevel(scope, level)).find((variant) => variant !== undefined) === scope,
).map((scope) => ({ scope, name: parseScopeName(scope.name) }));

/** Zoom's levels are `admin` and `master`; people write `:user` after the pattern of those. */
const tidy = (name: string): string =>
  name
    .trim()
    .toLowerCase()
    .replaceAll(/[\s./-]+/g, ':')
    .replace(/^([^:]*:[^:]*:.*):(?:user|self)$/, '$1');

const apart = (a: string, b: string): number => (a === b ? 0 : distance(a, b) / Math.max(a.length, b.length));

/** `recording` and `cloud_recording` are nearer to each other than their letters tell. */
function apartByWords(a: string, b: string): number {
  const sameEnd = a !== '' && b !== '' && (a.endsWith(`_${b}`) || b.endsWith(`_${a}`));
  return sameEnd ? Math.min(SAME_LAST_WORD, apart(a, b)) : apart(a, b);
}

/** How far apart two names are: letter by letter, or part by part, whichever is less. */
function separation(wanted: ScopeName, has: ScopeName): number {
  const parts = [
    { weight: 0.35, far: apartByWords(wanted.resource, has.resource), isThere: true },
    {
      weight: 0.25,
      far: (ACTION_NAMES.get(wanted.action) ?? wanted.action) === has.action ? 0 : 1,
      isThere: (wanted.action || has.action) !== '',
    },
    {
      weight: 0.4,
      far: apartByWords(wanted.claim, has.claim),
      isThere: (wanted.claim || has.claim) !== '',
    },
  ].filter(({ isThere }) => isThere);
  const weight = parts.reduce((sum, part) => sum + part.weight, 0);
  const byPart = parts.reduce((sum, part) => sum + part.weight * part.far, 0) / weight;
  return Math.min(apart(wanted.base, has.base), byPart);
}

function nearest(wanted: ScopeName): Scope[] {
  const near = ENTRIES.map(({ scope, name }) => ({ scope, far: separation(wanted, name) }))
    .filter(({ far }) => far <= FARTHEST)
    .toSorted((a, b) => a.far - b.far);
  const limit = (near[0]?.far ?? 0) + TOLERANCE;
  return near
    .filter(({ far }) => far <= limit)
    .slice(0, MOST)
    .map(({ scope }) => scope);
}

const lowestOf = (base: string): Scope | undefined =>
  [base, `${base}:admin`, `${base}:master`].map(findScope).find((scope) => scope !== undefined);

/**
 * Real names like this one, best first, five at most; none where nothing is like it. What is of a level that can be used
 * comes before the same scopes at the level that was written.
 *
 * Costs a few milliseconds for each name.
 *
 * @param usable levels that the caller could use.
 */
export function nearScopeNames(name: string, usable: readonly ScopeLevel[]): string[] {
  if (name.length > LONGEST_NAME) return [];
  const wanted = parseScopeName(tidy(name));
  const known = KNOWN_MISTAKES.get(wanted.base)?.map(lowestOf);
  const near = known?.filter((scope) => scope !== undefined) ?? nearest(wanted);
  const first = usable.includes(wanted.level) ? [wanted.level] : usable;
  const names = [first, [wanted.level], [...usable, ...LEVELS]].flatMap((levels) =>
    near.flatMap((scope) => sameAtLevels(scope, levels).slice(0, 1)),
  );
  return [...new Set(names)].slice(0, MOST);
}

/** The names of the same scope at these levels, as far as Zoom has them. */
export const sameAtLevels = (scope: Scope, levels: readonly ScopeLevel[]): string[] =>
  levels.flatMap((level) => scopeAtLevel(scope, level)?.name ?? []);
