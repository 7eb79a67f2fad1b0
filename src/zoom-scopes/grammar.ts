export type ScopeLevel = 'USER' | 'ADMIN' | 'MASTER';
export type ScopeVocabulary = 'GRANULAR' | 'CLASSIC';

/** What a scope's name alone tells about it. */
export interface ScopeName {
  /** `meeting` of `meeting:read:list_meetings:admin`. */
  resource: string;
  /** `read`; empty where the name has none, as `user_profile`. */
  action: string;
  /** `list_meetings`; empty where the name has none, as most classic ones. */
  claim: string;
  level: ScopeLevel;
  /** The name without its level: what the same scope of another level has in common with it. */
  base: string;
}

const TOKEN = /^[\x21\x23-\x5b\x5d-\x7e]{1,120}$/;
const LEVELS: Readonly<Record<string, ScopeLevel>> = { admin: 'ADMIN', master: 'MASTER' };

/** `udpate` is Zoom's own misspelling. */
const GRANULAR_ACTIONS: ReadonlySet<string> = new Set(['read', 'write', 'update', 'udpate', 'delete', 'patch']);

/**
 * Whether an access token's list of scopes could hold this name (RFC 6749 §3.3), up to 120 characters. Zoom's own list
 * has a name with a space in it, which could not arrive.
 */
export const isScopeToken = (name: string): boolean => TOKEN.test(name);

/**
 * Takes a name apart: granular `resource:action:claim[:level]`, or classic `resource[:action][:level]`, where the level
 * may also stand before a last part: `meeting_token:read:admin:local_recording`. Without a level it is the user's.
 *
 * Every text has an answer, also one that is no scope's name.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth-scopes-overview/
 */
export function parseScopeName(name: string): ScopeName {
  const parts = name.split(':');
  const found = parts.findIndex((part, index) => index > 0 && Object.hasOwn(LEVELS, part));
  const level = LEVELS[parts[found] ?? ''] ?? 'USER';
  const rest = found === -1 ? parts : parts.toSpliced(found, 1);
  const [resource = '', action = '', ...claim] = rest;
  return { resource, action, claim: claim.join(':'), level, base: rest.join(':') };
}

/** The vocabulary that a name has the form of. A few classic names look granular: ask the catalogue first. */
export const vocabularyOf = ({ action, claim }: ScopeName): ScopeVocabulary =>
  claim !== '' && !claim.includes(':') && GRANULAR_ACTIONS.has(action) ? 'GRANULAR' : 'CLASSIC';
