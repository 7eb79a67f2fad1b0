import type { Secret } from '../secret.js';
import { errorNumber, isVisibleAscii, membersOrNone, requireMembers, type Members } from './body.js';
import {
  ZoomAccessTokenRejectedError,
  ZoomGrantInvalidError,
  ZoomRequestRefusedError,
  ZoomResponseInvalidError,
  ZoomScopeMissingError,
  type ZoomError,
} from './errors.js';
import type { Endpoints } from './hosts.js';
import { commonFailure, isSuccess, type HttpAnswer, type HttpRequest } from './http.js';
import type { ZoomEnvironment, ZoomIdentity } from './zoom.js';

const SCOPE_MISSING = 4711;
const USER_NOT_FOUND = 1001;

/** @throws {ZoomAccessTokenRejectedError} without a request, if the token cannot stand in a header. */
export function currentUserRequest(
  endpoints: Endpoints,
  request: { environment: ZoomEnvironment; apiUrl: string; accessToken: Secret },
): HttpRequest {
  const url = endpoints.api(request.environment, request.apiUrl, '/users/me');
  return { method: 'GET', url, headers: bearerHeaders(request.accessToken), body: null };
}

/** @throws {ZoomAccessTokenRejectedError} the token cannot stand in a header. */
export function bearerHeaders(token: Secret): { authorization: string } {
  const accessToken = token.reveal();
  if (!isVisibleAscii(accessToken)) throw new ZoomAccessTokenRejectedError();
  return { authorization: `Bearer ${accessToken}` };
}

/** `id` and `account_id` are required. Of the rest, what is not a non-empty string is taken as not told. */
export function processCurrentUserResponse(answer: HttpAnswer): ZoomIdentity {
  if (!isSuccess(answer)) throw apiFailure(answer);
  const members = requireMembers(answer.body);
  const { id: userId, account_id: accountId } = members;
  if (!isVisibleAscii(userId)) throw new ZoomResponseInvalidError('id is missing or malformed');
  if (!isVisibleAscii(accountId)) throw new ZoomResponseInvalidError('account_id is missing or malformed');
  return {
    userId,
    accountId,
    email: textOrNull(members['email']),
    displayName: textOrNull(members['display_name']) ?? fullName(members),
    personalMeetingId: meetingIdOrNull(members['pmi']),
  };
}

/** Zoom reuses 4711, which its token endpoint means otherwise, for a missing scope. It has come with 400 and with 403. */
export function apiFailure(answer: HttpAnswer): ZoomError {
  const common = commonFailure(answer);
  if (common !== null) return common;
  const number = errorNumber(membersOrNone(answer.body));
  if (number === SCOPE_MISSING) return new ZoomScopeMissingError();
  if (answer.status === 401) return new ZoomAccessTokenRejectedError();
  if (answer.status === 404 && number === USER_NOT_FOUND) return new ZoomGrantInvalidError('USER_REMOVED');
  return new ZoomRequestRefusedError(answer.status, number);
}

/** A meeting number as its digits. Zoom sends numbers, and in some answers the same as text. */
export function meetingIdOrNull(value: unknown): string | null {
  const digits = typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : value;
  return typeof digits === 'string' && /^\d{8,15}$/.test(digits) ? digits : null;
}

function fullName(members: Members): string | null {
  const names = [textOrNull(members['first_name']), textOrNull(members['last_name'])];
  return names.filter((name) => name !== null).join(' ') || null;
}

function textOrNull(value: unknown): string | null {
  return typeof value === 'string' && value.trim() !== '' ? value.trim() : null;
}
