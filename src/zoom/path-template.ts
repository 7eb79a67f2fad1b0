/** Every fixed word in the paths that are asked for. */
const WORDS: ReadonlySet<string> = new Set([
  'accounts',
  'authorize',
  'jointoken',
  'local_recording',
  'me',
  'meetings',
  'oauth',
  'recordings',
  'revoke',
  'settings',
  'token',
  'users',
  'v2',
  'zak',
]);

/** A path of Zoom's without what is variable in it: `/v2/users/x7Yq/meetings` → `/v2/users/{id}/meetings`. */
export const pathTemplate = (path: string): string =>
  path
    .split('/')
    .map((segment) => (segment === '' || WORDS.has(segment) ? segment : '{id}'))
    .join('/');
