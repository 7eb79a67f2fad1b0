import { json, type Reply } from './http.js';
import { liveUser } from './grants.js';
import type { Meeting, Token, User } from './model.js';
import type { RestCall } from './rest.js';
import { pageOf } from './rest-pages.js';
import { pmiOf, userBody, userNotFound } from './rest-users.js';
import { nowMs, type World } from './world.js';

/** How long a token for local recording lasts. */
const JOIN_TOKEN_SECONDS = 120;
const DEFAULT_ZAK_SECONDS = 7_200;

const isAdminScope = (scope: string): boolean => /:(admin|master)(:|$)/.test(scope);

/** Whether the token may make the call about other users than its own. */
const reachesAccount = (token: Token, scopes: readonly string[]): boolean =>
  token.scopes.some((scope) => isAdminScope(scope) && scopes.includes(scope));

/** The user that a path names, if the token reaches them: else what Zoom says. */
function reachedUser(world: World, { token, scopes }: RestCall, asked: string): User | Reply {
  const user = liveUser(world, asked === 'me' ? token.userId : asked);
  if (user === null) return userNotFound(asked);
  if (asked === 'me') return user;
  if (!reachesAccount(token, scopes)) {
    const message = 'Invalid access token, the authenticated user has not permitted access to the targeted resource.';
    return json(403, { code: 104, message }, 'not-permitted');
  }
  if (user.accountId === token.accountId) return user;
  return json(
    400,
    { code: 1010, message: `User does not belong to this account: ${token.accountId}.` },
    'other-account',
  );
}

const isReply = (found: User | Reply): found is Reply => 'status' in found;

const meetingNotFound = (meetingId: string): Reply =>
  json(404, { code: 3001, message: `Meeting does not exist: ${meetingId}.` }, 'unknown-meeting');

/** A meeting, or a user's personal room, that the token reaches: its host and number. */
function reachedMeeting(world: World, call: RestCall): { host: User; meeting: Meeting | null; id: number } | null {
  const id = Number(call.params['meetingId']);
  const meeting = world.state.meetings.get(id) ?? null;
  const host =
    meeting === null
      ? [...world.state.users.values()].find((user) => !user.removed && pmiOf(user) === id)
      : liveUser(world, meeting.hostId);
  if (!host || host.accountId !== call.token.accountId) return null;
  const isReached = host.id === call.token.userId || reachesAccount(call.token, call.scopes);
  return isReached ? { host, meeting, id } : null;
}

const isMeetingId = (text: string): boolean => /^\d{1,15}$/.test(text);

const invalidMeetingId = (): Reply => json(400, { code: 300, message: 'Invalid meeting ID.' }, 'invalid-meeting');

function meetingBody(meeting: Meeting): Record<string, unknown> {
  return {
    uuid: meeting.uuid,
    id: meeting.id,
    host_id: meeting.hostId,
    topic: meeting.topic,
    type: meeting.type,
    start_time: new Date(meeting.startAt).toISOString().replace('.000Z', 'Z'),
    duration: meeting.durationMinutes,
    timezone: 'UTC',
    created_at: new Date(meeting.createdAt).toISOString().replace(/\.\d+Z$/, 'Z'),
    join_url: `https://zoom.us/j/${meeting.id}`,
  };
}

/** `GET /users`: the active users of the account. Who has not accepted yet is `pending`, and nobody here is. */
export function listUsers(world: World, { token, request }: RestCall): Reply {
  const status = request.query.get('status') ?? 'active';
  const users = [...world.state.users.values()].filter(
    (user) => user.accountId === token.accountId && (status === 'active') === !user.removed && status !== 'pending',
  );
  const { items, page } = pageOf(world, request, `users ${token.accountId}`, users);
  return json(200, { ...page, page_number: 1, users: items.map(userBody) }, 'listed');
}

/** `GET /users/{userId}/meetings`. Instant meetings are not in it. */
export function listMeetings(world: World, call: RestCall): Reply {
  const user = reachedUser(world, call, call.params['userId'] ?? '');
  if (isReply(user)) return user;
  const meetings = [...world.state.meetings.values()].filter(({ hostId, type }) => hostId === user.id && type !== 1);
  const { items, page } = pageOf(world, call.request, `meetings ${user.id}`, meetings);
  return json(200, { ...page, meetings: items.map(meetingBody) }, 'listed');
}

/** `GET /meetings/{meetingId}` */
export function readMeeting(world: World, call: RestCall): Reply {
  const asked = call.params['meetingId'] ?? '';
  if (!isMeetingId(asked)) return invalidMeetingId();
  const found = reachedMeeting(world, call);
  if (found === null) return meetingNotFound(asked);
  const { host, meeting, id } = found;
  if (meeting !== null) return json(200, { ...meetingBody(meeting), status: 'waiting', settings: {} }, 'read');
  const room = { id, host_id: host.id, topic: 'Personal Meeting Room', type: 4, pmi: String(id) };
  return json(200, { ...room, status: 'waiting', settings: { use_pmi: true } }, 'read');
}

/** `GET /meetings/{meetingId}/jointoken/local_recording` */
export function readJoinToken(world: World, call: RestCall): Reply {
  const asked = call.params['meetingId'] ?? '';
  if (!isMeetingId(asked)) return invalidMeetingId();
  const found = reachedMeeting(world, call);
  if (found === null) return meetingNotFound(asked);
  if (found.host.localRecordingOff === true) {
    const message = 'Not allowed to start local recording: the host has it switched off.';
    return json(400, { code: 3000, message }, 'recording-off');
  }
  return json(200, { expire_in: JOIN_TOKEN_SECONDS, token: world.mint.joinToken() }, 'minted');
}

const secondsFrom = (world: World, seconds: number): number => Math.floor(nowMs(world) / 1_000) + seconds;

/** `GET /users/me/zak` */
export function readOwnZak(world: World, { token }: RestCall): Reply {
  const zak = world.mint.userToken({ type: 'zak', userId: token.userId, exp: secondsFrom(world, DEFAULT_ZAK_SECONDS) });
  return json(200, { token: zak }, 'minted');
}

/** `GET /users/{userId}/token`, of type `token`, `zak` or `onbehalf`. */
export function readUserToken(world: World, call: RestCall): Reply {
  const user = reachedUser(world, call, call.params['userId'] ?? '');
  if (isReply(user)) return user;
  const { query } = call.request;
  const type = query.get('type') ?? 'token';
  const ttl = Number(query.get('ttl') ?? DEFAULT_ZAK_SECONDS);
  const isTtl = Number.isSafeInteger(ttl) && ttl > 0 && ttl <= 7_776_000;
  const meetingId = query.get('meeting_id') ?? undefined;
  const isMissing = type === 'onbehalf' && (meetingId === undefined || !isMeetingId(meetingId));
  if (!['token', 'zak', 'onbehalf'].includes(type) || !isTtl || isMissing) {
    const field = isMissing ? 'meeting_id' : isTtl ? 'type' : 'ttl';
    const errors = [{ field, message: 'Invalid field.' }];
    return json(400, { code: 300, message: 'Validation Failed.', errors }, 'invalid-field');
  }
  const claims = { type, userId: user.id, exp: secondsFrom(world, ttl), ...(meetingId && { meetingId }) };
  return json(200, { token: world.mint.userToken(claims) }, 'minted');
}
