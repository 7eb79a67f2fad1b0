import { Secret } from '../secret.js';
import { apiFailure, meetingIdOrNull } from './api.js';
import { errorNumber, isMembers, isVisibleAscii, membersOrNone, requireMembers, type Members } from './body.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomMeetingUnknownError,
  ZoomRequestRefusedError,
  ZoomResponseInvalidError,
  type ZoomError,
} from './errors.js';
import type { Endpoints } from './hosts.js';
import { isSuccess, type Http, type HttpAnswer, type HttpRequest } from './http.js';
import type { RateLimit } from './rate-limit.js';
import type { ZoomEnvironment } from './zoom.js';

/** With which token, and where, a REST call is made; `apiUrl` is checked again, as `currentUser` does. */
export interface ZoomCaller {
  environment: ZoomEnvironment;
  apiUrl: string;
  accessToken: Secret;
}

/** One page of a list. */
export interface ZoomPage<Item> {
  items: Item[];
  /** Continues the same list within 15 minutes; null on its last page. */
  nextPageToken: string | null;
  rateLimit: RateLimit | null;
}

/** Of a meeting no more is read than this: no topic, no time, nobody invited. */
export interface ZoomMeeting {
  /** Digits. */
  meetingId: string;
  hostUserId: string;
}

export interface ZoomAccountUser {
  userId: string;
  personalMeetingId: string | null;
}

/**
 * The REST calls about meetings. Each makes one request and retries nothing, as all of `Zoom`. Besides the failures of
 * `currentUser` they have:
 *
 * @throws {ZoomMeetingUnknownError} no such meeting, or none that this token may see.
 * @throws {ZoomRequestRefusedError} anything else that Zoom understood and refused, with its number.
 * @see https://developers.zoom.us/docs/api/meetings/ and https://developers.zoom.us/docs/api/users/
 */
export interface ZoomMeetings {
  /** `GET /users`: active users of the account. Scope `user:read:list_users:admin`. */
  listUsers(caller: ZoomCaller, pageToken: string | null): Promise<ZoomPage<ZoomAccountUser>>;
  /** `GET /users/{userId}/meetings`. A user-managed app has to say `me`. Scope `meeting:read:list_meetings[:admin]`. */
  listMeetings(caller: ZoomCaller, list: { userId: string; pageToken: string | null }): Promise<ZoomPage<ZoomMeeting>>;
  /** `GET /meetings/{meetingId}`. Scope `meeting:read:meeting[:admin]`. */
  readMeeting(caller: ZoomCaller, meetingId: string): Promise<ZoomMeeting>;
  /** `GET /meetings/{meetingId}/jointoken/local_recording`. Scope `meeting:read:local_recording_token[:admin]`. */
  localRecordingToken(caller: ZoomCaller, meetingId: string): Promise<{ token: Secret; expiresInSeconds: number }>;
  /** `GET /users/me/zak`: the access key of the token's own user. Scope `user:read:zak`. */
  ownZakToken(caller: ZoomCaller): Promise<Secret>;
  /** `GET /users/{userId}/token`. Scope `user:read:token[:admin]`, which is another than that of `ownZakToken`. */
  userToken(
    caller: ZoomCaller,
    wanted: { userId: string; type: 'zak' } | { userId: string; type: 'onbehalf'; meetingId: string },
  ): Promise<Secret>;
}

/** Zoom's largest page. */
const PAGE_SIZE = 300;
/** 300 meetings with the longest topics and agendas that a list shows are below a megabyte. */
const MAX_PAGE_BYTES = 2 * 1024 * 1024;
/** Zoom's tokens are much shorter. */
const MAX_TOKEN_LENGTH = 8_192;

const MEETING_UNKNOWN: ReadonlySet<number> = new Set([300, 3001]);
const USER_UNKNOWN = 1001;

export function createZoomMeetings({ endpoints, http }: { endpoints: Endpoints; http: Http }): ZoomMeetings {
  const get = (caller: ZoomCaller, path: string, query: Record<string, string> = {}) =>
    http.send(request(endpoints, caller, path, query));
  const page = (pageToken: string | null) => ({
    page_size: String(PAGE_SIZE),
    ...(pageToken === null ? {} : { next_page_token: pageToken }),
  });
  return {
    listUsers: async (caller, pageToken) => {
      const answer = await get(caller, '/users', { status: 'active', ...page(pageToken) });
      return processPage(answer, { list: 'users', pageToken, read: readUser });
    },
    listMeetings: async (caller, { userId, pageToken }) => {
      const path = `/users/${encodeURIComponent(userId)}/meetings`;
      const answer = await get(caller, path, { type: 'scheduled', ...page(pageToken) });
      return processPage(answer, { list: 'meetings', pageToken, read: readMeeting });
    },
    readMeeting: async (caller, meetingId) => {
      const meeting = readMeeting(process(await get(caller, `/meetings/${meetingId}`), 'meeting'));
      if (meeting === null) throw new ZoomResponseInvalidError('id or host_id is missing or malformed');
      return meeting;
    },
    localRecordingToken: async (caller, meetingId) => {
      const path = `/meetings/${meetingId}/jointoken/local_recording`;
      const members = process(await get(caller, path), 'meeting');
      const { expire_in: seconds } = members;
      const known = typeof seconds === 'number' && Number.isFinite(seconds) && seconds > 0;
      // Zoom documents 120 s and has never been seen to give another time.
      return { token: tokenOf(members), expiresInSeconds: known ? Math.floor(seconds) : 120 };
    },
    ownZakToken: async (caller) => tokenOf(process(await get(caller, '/users/me/zak'), 'user')),
    userToken: async (caller, wanted) => {
      const query = { type: wanted.type, ...('meetingId' in wanted ? { meeting_id: wanted.meetingId } : {}) };
      const subject = 'meetingId' in wanted ? 'meeting' : 'user';
      return tokenOf(process(await get(caller, `/users/${encodeURIComponent(wanted.userId)}/token`, query), subject));
    },
  };
}

function request(endpoints: Endpoints, caller: ZoomCaller, path: string, query: Record<string, string>): HttpRequest {
  const accessToken = caller.accessToken.reveal();
  if (!isVisibleAscii(accessToken)) throw new ZoomAccessTokenRejectedError();
  const url = endpoints.api(caller.environment, caller.apiUrl, path);
  for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value);
  const headers = { authorization: `Bearer ${accessToken}` };
  return { method: 'GET', url, headers, body: null, maxAnswerBytes: MAX_PAGE_BYTES };
}

/** Some of Zoom's failures come with status 200 and say so in their body alone: a number and a message. */
const isDisguisedFailure = (members: Members): boolean =>
  errorNumber(members) !== null && typeof members['message'] === 'string';

function process(answer: HttpAnswer, subject: 'meeting' | 'user' | 'list'): Members {
  if (!isSuccess(answer)) throw failure(answer, subject);
  const members = requireMembers(answer.body);
  if (isDisguisedFailure(members)) throw failure({ ...answer, status: 400 }, subject);
  return members;
}

function failure(answer: HttpAnswer, subject: 'meeting' | 'user' | 'list'): ZoomError {
  const number = errorNumber(membersOrNone(answer.body));
  const isClients = answer.status === 400 || answer.status === 404;
  if (isClients && subject === 'meeting' && number !== null && MEETING_UNKNOWN.has(number)) {
    return new ZoomMeetingUnknownError();
  }
  // Said of the user in the path: unlike an answer about `me` it tells nothing about the grant.
  if (isClients && number === USER_UNKNOWN) return new ZoomRequestRefusedError(answer.status, number);
  return apiFailure(answer);
}

function processPage<Item>(
  answer: HttpAnswer,
  { list, pageToken, read }: { list: string; pageToken: string | null; read: (item: Members) => Item | null },
): ZoomPage<Item> {
  const members = process(answer, 'list');
  const { [list]: listed, next_page_token: next } = members;
  if (!Array.isArray(listed)) throw new ZoomResponseInvalidError(`${list} is missing`);
  const items = listed.flatMap((item: unknown) => (isMembers(item) ? (read(item) ?? []) : []));
  const isLast = next === undefined || next === null || next === '';
  if (!isLast && !isPageToken(next)) throw new ZoomResponseInvalidError('next_page_token is malformed');
  // A list that leads back to the same page would never end.
  if (!isLast && next === pageToken) throw new ZoomResponseInvalidError('next_page_token does not move on');
  return { items, nextPageToken: isLast ? null : next, rateLimit: answer.rateLimit };
}

const isPageToken = (value: unknown): value is string => isVisibleAscii(value) && value.length <= 1_000;

/** Null for an entry that cannot be one of Zoom's: it is passed over, and the rest of the page still counts. */
function readMeeting({ id, host_id: hostUserId }: Members): ZoomMeeting | null {
  const meetingId = meetingIdOrNull(id);
  return meetingId !== null && isVisibleAscii(hostUserId) ? { meetingId, hostUserId } : null;
}

/** Null also for a user who has not accepted yet, and has no id. */
function readUser({ id, pmi }: Members): ZoomAccountUser | null {
  return isVisibleAscii(id) ? { userId: id, personalMeetingId: meetingIdOrNull(pmi) } : null;
}

function tokenOf({ token }: Members): Secret {
  if (!isVisibleAscii(token) || token.length > MAX_TOKEN_LENGTH) {
    throw new ZoomResponseInvalidError('token is missing or malformed');
  }
  return new Secret(token);
}
