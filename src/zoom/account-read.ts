import type { Secret } from '../secret.js';
import { apiFailure, bearerHeaders } from './api.js';
import type { Endpoints } from './hosts.js';
import { isSuccess, type HttpAnswer, type HttpRequest } from './http.js';
import type { ZoomEnvironment } from './zoom.js';

/** Calls that change nothing, answer little, and ask about the account alone or about whoever the token speaks for. */
const READS: readonly { path: string; scopes: readonly string[] }[] = [
  { path: '/users?page_size=1', scopes: ['user:read:list_users:admin', 'user:read:admin'] },
  { path: '/accounts/me/settings', scopes: ['account:read:settings:admin', 'account:read:admin'] },
  { path: '/users/me/meetings?page_size=1', scopes: ['meeting:read:list_meetings:admin', 'meeting:read:admin'] },
  {
    path: '/users/me/recordings?page_size=1',
    scopes: ['cloud_recording:read:list_user_recordings:admin', 'recording:read:admin'],
  },
  { path: '/groups?page_size=1', scopes: ['group:read:list_groups:admin', 'group:read:admin'] },
];

/**
 * The first call that an account's token may make.
 *
 * @returns null where its scopes allow none of those that are known here.
 * @throws {ZoomAccessTokenRejectedError} without a request, if the token cannot stand in a header.
 */
export function accountReadRequest(
  endpoints: Endpoints,
  request: { environment: ZoomEnvironment; apiUrl: string; accessToken: Secret; scopes: readonly string[] },
): HttpRequest | null {
  const allowed = READS.find(({ scopes }) => scopes.some((scope) => request.scopes.includes(scope)));
  if (allowed === undefined) return null;
  const url = endpoints.api(request.environment, request.apiUrl, allowed.path);
  return { method: 'GET', url, headers: bearerHeaders(request.accessToken), body: null };
}

export function processAccountReadResponse(answer: HttpAnswer): void {
  if (!isSuccess(answer)) throw apiFailure(answer);
}
