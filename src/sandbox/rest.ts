import { bearerOf } from './client.js';
import type { FaultRoute } from './faults.js';
import { readAccessToken } from './grants.js';
import { json, matchPath, type Reply, type SandboxRequest } from './http.js';
import type { Token } from './model.js';
import { readAccountSettings } from './rest-accounts.js';
import { takeTurn } from './rest-limits.js';
import { listMeetings, listUsers, readJoinToken, readMeeting, readOwnZak, readUserToken } from './rest-meetings.js';
import { readUser } from './rest-users.js';
import type { World } from './world.js';

/** How heavily Zoom weighs a call in its rate limits. @see https://developers.zoom.us/docs/api/rate-limits/ */
export type RateLabel = 'Light' | 'Medium' | 'Heavy' | 'Resource-intensive';

/** What a call is made with, once its token is known to be good and to have a scope for it. */
export interface RestCall {
  token: Token;
  params: Record<string, string>;
  request: SandboxRequest;
  /** Every scope that the call takes. */
  scopes: readonly string[];
}

/** One REST call: adding a call is adding one of these to `ENDPOINTS` (and its name to `FAULT_ROUTES`, if new). */
export interface RestEndpoint {
  method: string;
  /** Below `/v2`, with `{name}` parts. */
  path: string;
  /** Name in the ledger and in fault rules. */
  route: FaultRoute;
  /** Granular scopes, any of which suffices; the refusal lists these. */
  scopes: string[];
  /** Classic scopes that suffice too. */
  classicScopes: string[];
  label: RateLabel;
  handler(world: World, call: RestCall): Reply;
}

/** A call with a scope for the token's own user and one for the account. */
const bothLevels = (scope: string): string[] => [scope, `${scope}:admin`];

const ENDPOINTS: RestEndpoint[] = [
  {
    method: 'GET',
    path: '/users/{userId}',
    route: 'users',
    scopes: ['user:read:user', 'user:read:user:admin'],
    classicScopes: ['user:read', 'user:read:admin'],
    label: 'Light',
    handler: readUser,
  },
  {
    method: 'GET',
    path: '/accounts/{accountId}/settings',
    route: 'accounts',
    scopes: ['account:read:settings:admin'],
    classicScopes: ['account:read:admin'],
    label: 'Light',
    handler: readAccountSettings,
  },
  {
    method: 'GET',
    path: '/users',
    route: 'list-users',
    scopes: ['user:read:list_users:admin'],
    classicScopes: ['user:read:admin', 'user:write:admin'],
    label: 'Medium',
    handler: listUsers,
  },
  {
    method: 'GET',
    path: '/users/{userId}/meetings',
    route: 'list-meetings',
    scopes: bothLevels('meeting:read:list_meetings'),
    classicScopes: bothLevels('meeting:read'),
    label: 'Medium',
    handler: listMeetings,
  },
  {
    method: 'GET',
    path: '/users/me/zak',
    route: 'zak',
    scopes: bothLevels('user:read:zak'),
    classicScopes: ['user_zak:read'],
    label: 'Light',
    handler: readOwnZak,
  },
  {
    method: 'GET',
    path: '/users/{userId}/token',
    route: 'user-token',
    scopes: bothLevels('user:read:token'),
    classicScopes: [...bothLevels('user:read'), 'user_profile'],
    label: 'Light',
    handler: readUserToken,
  },
  {
    method: 'GET',
    path: '/meetings/{meetingId}',
    route: 'meeting',
    scopes: bothLevels('meeting:read:meeting'),
    classicScopes: bothLevels('meeting:read'),
    label: 'Light',
    handler: readMeeting,
  },
  {
    method: 'GET',
    path: '/meetings/{meetingId}/jointoken/local_recording',
    route: 'join-token',
    scopes: bothLevels('meeting:read:local_recording_token'),
    classicScopes: ['meeting_token:read:local_recording', 'meeting_token:read:admin:local_recording'],
    label: 'Light',
    handler: readJoinToken,
  },
];

const invalidToken = (message: string, outcome: string): Reply => json(401, { code: 124, message }, outcome);

function call(world: World, request: SandboxRequest, endpoint: RestEndpoint, params: Record<string, string>): Reply {
  if (request.query.has('access_token')) {
    const text = 'Invalid access token, this access token is not supported as query parameter string.';
    return invalidToken(text, 'token-in-query');
  }
  const bearer = bearerOf(request);
  const token = bearer === null ? 'invalid' : readAccessToken(world, bearer);
  if (token === 'invalid') return invalidToken('Invalid access token.', 'invalid-token');
  if (token === 'expired') return invalidToken('Access token is expired.', 'expired-token');
  const { headers, refusal } = takeTurn(world, token.accountId, endpoint.label);
  if (refusal !== null) return { ...refusal, headers: { ...refusal.headers, ...headers } };
  const scopes = [...endpoint.scopes, ...endpoint.classicScopes];
  if (!scopes.some((scope) => token.scopes.includes(scope))) {
    const message = `Invalid access token, does not contain scopes:[${endpoint.scopes.join(', ')}].`;
    return json(400, { code: 4711, message }, 'missing-scope');
  }
  const reply = endpoint.handler(world, { token, params, request, scopes });
  return { ...reply, headers: { ...reply.headers, ...headers } };
}

/**
 * Finds the REST call for a path under `/v2`.
 *
 * @returns its ledger name and what performs it; for a path that Zoom does not have, `unknown` and a 404.
 */
export function restRoute(request: SandboxRequest): { route: string; perform: (world: World) => Reply } {
  const path = request.path.slice('/v2'.length);
  for (const endpoint of ENDPOINTS) {
    const params = endpoint.method === request.method ? matchPath(endpoint.path, path) : null;
    if (params !== null) return { route: endpoint.route, perform: (world) => call(world, request, endpoint, params) };
  }
  const body = { code: 2300, message: 'This API endpoint is not recognized.' };
  return { route: 'unknown', perform: () => json(404, body, 'unknown-path') };
}
