import { createHash } from 'node:crypto';
import { liveUser } from './grants.js';
import { json, type Reply } from './http.js';
import type { Token, User, UserRole } from './model.js';
import type { World } from './world.js';

const ROLE_IDS: Record<UserRole, string> = { Owner: '0', Admin: '1', Member: '2' };

/** A number that belongs to an id for good. */
const numberOf = (id: string, digits: number): number =>
  10 ** (digits - 1) + (createHash('sha256').update(id).digest().readUInt32BE(0) % (9 * 10 ** (digits - 1)));

/** Number of the user's personal meeting room. */
export const pmiOf = (user: User): number => user.pmi ?? numberOf(user.id, 10);

/** The fields of Zoom's user object that a sandbox user has an answer for. */
export function userBody(user: User): Record<string, unknown> {
  const [firstName = '', ...rest] = user.displayName.split(' ');
  const pmi = pmiOf(user);
  return {
    id: user.id,
    first_name: firstName,
    last_name: rest.join(' '),
    display_name: user.displayName,
    email: user.email,
    type: 2,
    role_id: ROLE_IDS[user.role],
    role_name: user.role,
    pmi,
    use_pmi: false,
    personal_meeting_url: `https://zoom.us/j/${pmi}`,
    timezone: 'UTC',
    verified: 1,
    dept: '',
    created_at: '2026-01-01T00:00:00Z',
    user_created_at: '2026-01-01T00:00:00Z',
    cms_user_id: '',
    jid: `${user.id.toLowerCase()}@xmpp.zoom.us`,
    group_ids: [],
    im_group_ids: [],
    account_id: user.accountId,
    account_number: numberOf(user.accountId, 8),
    language: 'en-US',
    phone_number: '',
    status: 'active',
    job_title: '',
    location: '',
    login_types: [100],
  };
}

export const userNotFound = (userId: string): Reply =>
  json(404, { code: 1001, message: `User does not exist: ${userId}.` }, 'unknown-user');

/** Tokens for a whole account: those with an admin scope on users. */
const readsWholeAccount = (token: Token): boolean =>
  token.scopes.includes('user:read:user:admin') || token.scopes.includes('user:read:admin');

/**
 * `GET /users/{userId}`, by id, e-mail address or `me`. A user's own token reads that user alone; an admin's or a
 * server's reads the users of its account.
 */
export function readUser(world: World, { token, params }: { token: Token; params: Record<string, string> }): Reply {
  const asked = params['userId'] ?? '';
  const byMail = [...world.state.users.values()].find(
    ({ email, removed }) => email === asked.toLowerCase() && !removed,
  );
  const user = liveUser(world, asked === 'me' ? token.userId : (byMail?.id ?? asked));
  if (user === null) return userNotFound(asked);
  if (user.id !== token.userId) {
    if (!readsWholeAccount(token)) return userNotFound(asked);
    if (user.accountId !== token.accountId) {
      const message = `User does not belong to this account: ${token.accountId}.`;
      return json(400, { code: 1010, message }, 'user-of-other-account');
    }
  }
  return json(200, userBody(user), 'read');
}
