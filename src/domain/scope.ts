export type ScopeLevel = 'USER' | 'ADMIN' | 'MASTER';
export type ScopeVocabulary = 'GRANULAR' | 'CLASSIC';

/** What a scope's name tells about it. */
export interface Scope {
  name: string;
  description: string;
  level: ScopeLevel;
  vocabulary: ScopeVocabulary;
  /** `meeting` of `meeting:read:list_meetings:admin`. */
  resource: string;
}

const NAME = /^[a-z0-9_.]+(?::[a-z0-9_.]+){1,4}$/;
const MAX_NAME_LENGTH = 120;
const GRANULAR_ACTIONS: ReadonlySet<string> = new Set(['read', 'write', 'update', 'delete', 'patch']);

const ACTION_WORDS: Record<string, string> = {
  read: 'Read',
  write: 'Create',
  update: 'Change',
  delete: 'Delete',
  patch: 'Change',
};

/** Descriptions of the scopes that most integrations use; others are composed from the name. */
const DESCRIPTIONS: Record<string, string> = {
  'user:read:user': 'Read the profile of a user.',
  'user:read:list_users': 'List the users of the account.',
  'user:read:zak': 'Get an access key that starts or joins meetings as the user.',
  'user:read:token': 'Get a token that acts for the user in a meeting.',
  'user:read:settings': 'Read the settings of a user.',
  'meeting:read:meeting': 'Read the details of a meeting.',
  'meeting:read:list_meetings': 'List the meetings of a user.',
  'meeting:read:local_recording_token': 'Get a token that lets a bot record a meeting locally.',
  'meeting:write:meeting': 'Create meetings.',
  'meeting:update:meeting': 'Change meetings.',
  'meeting:delete:meeting': 'Delete meetings.',
  'webinar:read:webinar': 'Read the details of a webinar.',
  'webinar:write:webinar': 'Create webinars.',
  'cloud_recording:read:list_user_recordings': 'List the cloud recordings of a user.',
  'cloud_recording:read:list_recording_files': 'Read the cloud recordings of a meeting.',
};

/** Whether Zoom could have a scope of this name, by its form alone. */
export const isScopeName = (name: string): boolean => name.length <= MAX_NAME_LENGTH && NAME.test(name);

/**
 * Reads a scope's name: granular `resource:action:claim[:admin|:master]`, or classic `resource:action[:admin|:master]`
 * in its several orders.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth-scopes-overview/
 */
export function parseScope(name: string): Scope {
  const parts = name.split(':');
  const level: ScopeLevel = parts.includes('master') ? 'MASTER' : parts.includes('admin') ? 'ADMIN' : 'USER';
  const [resource = '', action = '', claim] = parts.filter((part) => part !== 'admin' && part !== 'master');
  const vocabulary: ScopeVocabulary = claim !== undefined && GRANULAR_ACTIONS.has(action) ? 'GRANULAR' : 'CLASSIC';
  const base = [resource, action, claim].filter((part) => part !== undefined).join(':');
  return { name, description: describe(base, level), level, vocabulary, resource };
}

/** An own entry: a scope may be called `constructor`. */
const wordOf = (words: Record<string, string>, name: string): string | undefined =>
  Object.hasOwn(words, name) ? words[name] : undefined;

function describe(base: string, level: ScopeLevel): string {
  const [resource = '', action = '', claim = ''] = base.split(':');
  const composed = `${wordOf(ACTION_WORDS, action) ?? action} ${(claim || resource).replaceAll('_', ' ')} (${resource.replaceAll('_', ' ')}).`;
  const sentence = wordOf(DESCRIPTIONS, base) ?? composed;
  const reach = { USER: '', ADMIN: ' For the whole account.', MASTER: ' For the account and its sub accounts.' }[level];
  return sentence + reach;
}

/** The required scopes that are not among the granted ones, in the order they are required. */
export function missingScopes(required: readonly string[], granted: readonly string[]): string[] {
  const have = new Set(granted);
  return required.filter((name) => !have.has(name));
}
