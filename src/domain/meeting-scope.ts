/**
 * Which scopes let a token make each of Zoom's calls about meetings: `user` for its own user, `admin` for everyone in
 * the account. Any one of them will do. Classic names stand behind the granular ones.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth-scopes-granular/ (read November 2026)
 */
export const MEETING_SCOPES = {
  listUsers: { user: [], admin: ['user:read:list_users:admin', 'user:read:admin', 'user:write:admin'] },
  listMeetings: {
    user: ['meeting:read:list_meetings', 'meeting:read'],
    admin: ['meeting:read:list_meetings:admin', 'meeting:read:admin'],
  },
  readMeeting: {
    user: ['meeting:read:meeting', 'meeting:read'],
    admin: ['meeting:read:meeting:admin', 'meeting:read:admin'],
  },
  localRecordingToken: {
    user: ['meeting:read:local_recording_token', 'meeting_token:read:local_recording'],
    admin: ['meeting:read:local_recording_token:admin', 'meeting_token:read:admin:local_recording'],
  },
  ownZakToken: { user: ['user:read:zak', 'user_zak:read'], admin: [] },
  userToken: {
    user: ['user:read:token', 'user:read', 'user_profile'],
    admin: ['user:read:token:admin', 'user:read:admin'],
  },
} as const satisfies Record<string, { user: readonly string[]; admin: readonly string[] }>;

export type MeetingCall = keyof typeof MEETING_SCOPES;

/** Whether scopes allow a call: about the token's own user, or about anybody in the account. */
export function allows(scopes: readonly string[], call: MeetingCall, reach: 'own' | 'account'): boolean {
  const { user, admin } = MEETING_SCOPES[call];
  const enough: readonly string[] = reach === 'own' ? [...user, ...admin] : admin;
  return enough.some((name) => scopes.includes(name));
}

/** The scope to ask an administrator for, or a user, where a call is not allowed. */
export const scopeFor = (call: MeetingCall, reach: 'own' | 'account'): string => {
  const { user, admin } = MEETING_SCOPES[call];
  const [name] = reach === 'own' && user.length > 0 ? user : admin;
  return name ?? '';
};
