import { Secret } from '../secret.js';
import { errorNumber, isVisibleAscii, membersOrNone, requireMembers, type Members } from './body.js';
import {
  ZoomClientRejectedError,
  ZoomGrantInvalidError,
  ZoomRequestRefusedError,
  ZoomResponseInvalidError,
  ZoomUnavailableError,
  type GrantRejection,
  type ZoomError,
} from './errors.js';
import type { Endpoints } from './hosts.js';
import { commonFailure, isSuccess, type HttpAnswer, type HttpRequest } from './http.js';
import type { AuthorizationRequest, TokenSet, ZoomClient } from './zoom.js';

const MAX_EXPIRES_IN_SECONDS = 86_400;

/**
 * Zoom's numbers that end a grant. 4734 and 4740 are a code and a refresh token that cannot be used (any more).
 *
 * @see https://developers.zoom.us/docs/integrations/oauth/ (read November 2026)
 */
const GRANT_REJECTIONS: ReadonlyMap<number, GrantRejection> = new Map([
  [4733, 'EXPIRED'],
  [4734, 'REJECTED'],
  [4735, 'USER_REMOVED'],
  [4737, 'REJECTED'],
  [4738, 'DISABLED_BY_ADMIN'],
  [4740, 'REJECTED'],
  [4741, 'SUPERSEDED'],
]);

/** Client id or secret wrong (4702, 4704) or missing (4706), app disabled (4717). */
const CLIENT_REJECTIONS: ReadonlySet<number> = new Set([4702, 4704, 4706, 4717]);

/** Zoom's own lookup failed, which it reports with a 400. */
const ZOOM_INTERNAL_FAILURE = 4732;

export function authorizationUrl(endpoints: Endpoints, request: AuthorizationRequest): URL {
  const url = endpoints.oauth(request.environment, 'authorize');
  url.search = new URLSearchParams({
    response_type: 'code',
    client_id: request.clientId,
    redirect_uri: request.redirectUri,
    state: request.state.reveal(),
    code_challenge: request.codeChallenge,
    code_challenge_method: 'S256',
  }).toString();
  return url;
}

/** RFC 6749 §4.1.3 with RFC 7636 §4.5. */
export function codeRequest(
  endpoints: Endpoints,
  client: ZoomClient,
  request: { code: Secret; codeVerifier: Secret; redirectUri: string },
): HttpRequest {
  return formRequest(endpoints.oauth(client.environment, 'token'), client, {
    grant_type: 'authorization_code',
    code: request.code.reveal(),
    redirect_uri: request.redirectUri,
    code_verifier: request.codeVerifier.reveal(),
  });
}

export function processCodeResponse(endpoints: Endpoints, client: ZoomClient, answer: HttpAnswer): TokenSet {
  const members = tokenMembers(answer, hasRejectedCode);
  return { ...commonTokens(endpoints, client, members), refreshToken: readRefreshToken(members) };
}

/** RFC 6749 §6. */
export function refreshRequest(endpoints: Endpoints, client: ZoomClient, refreshToken: Secret): HttpRequest {
  return formRequest(endpoints.oauth(client.environment, 'token'), client, {
    grant_type: 'refresh_token',
    refresh_token: refreshToken.reveal(),
  });
}

/** RFC 6749 §6 lets the answer go without a refresh token: `refreshToken` is null then, and the former one stays. */
export function processRefreshResponse(endpoints: Endpoints, client: ZoomClient, answer: HttpAnswer): TokenSet {
  const members = tokenMembers(answer);
  const refreshToken = isAbsent(members['refresh_token']) ? null : readRefreshToken(members);
  return { ...commonTokens(endpoints, client, members), refreshToken };
}

/** @see https://developers.zoom.us/docs/internal-apps/s2s-oauth/ */
export function accountTokenRequest(endpoints: Endpoints, client: ZoomClient, accountId: string): HttpRequest {
  return formRequest(endpoints.oauth(client.environment, 'token'), client, {
    grant_type: 'account_credentials',
    account_id: accountId,
  });
}

export function processAccountTokenResponse(endpoints: Endpoints, client: ZoomClient, answer: HttpAnswer): TokenSet {
  return { ...commonTokens(endpoints, client, tokenMembers(answer)), refreshToken: null };
}

/** RFC 7009 §2.1. */
export function revokeRequest(endpoints: Endpoints, client: ZoomClient, token: Secret): HttpRequest {
  return formRequest(endpoints.oauth(client.environment, 'revoke'), client, { token: token.reveal() });
}

/**
 * Any 2xx counts (RFC 7009 §2.2) unless it says `invalid_client`, and so does a refusal that says the token is not
 * valid: what Zoom answers for those is not documented.
 */
export function processRevokeResponse(answer: HttpAnswer): void {
  if (isSuccess(answer)) {
    if (membersOrNone(answer.body)['error'] === 'invalid_client') throw new ZoomClientRejectedError();
    return;
  }
  const failure = tokenFailure(answer, hasUnknownToken);
  if (!(failure instanceof ZoomGrantInvalidError)) throw failure;
}

/** Client authentication by HTTP Basic with form-encoded parts (RFC 6749 §2.3.1); parameters only in the body. */
function formRequest(url: URL, client: ZoomClient, parameters: Record<string, string>): HttpRequest {
  const pair = `${formEncode(client.clientId)}:${formEncode(client.clientSecret.reveal())}`;
  return {
    method: 'POST',
    url,
    headers: {
      authorization: `Basic ${Buffer.from(pair, 'ascii').toString('base64')}`,
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: new URLSearchParams(parameters).toString(),
  };
}

function formEncode(value: string): string {
  return new URLSearchParams([['', value]]).toString().slice(1);
}

/** Judges what 400 and 401 say about a grant beyond what all grant types share. */
type RejectionTest = (members: Members) => boolean;

const hasRejectedCode: RejectionTest = ({ reason }) =>
  typeof reason === 'string' && reason.startsWith('Invalid authorization code');

const hasUnknownToken: RejectionTest = ({ error, reason }) =>
  error === 'invalid_token' || (typeof reason === 'string' && /^invalid (access |refresh )?token[.!]?$/i.test(reason));

function tokenMembers(answer: HttpAnswer, isRejected: RejectionTest = () => false): Members {
  if (!isSuccess(answer)) throw tokenFailure(answer, isRejected);
  const members = requireMembers(answer.body);
  if (members['error'] === 'invalid_client' && isAbsent(members['access_token'])) throw new ZoomClientRejectedError();
  return members;
}

/**
 * What a failure of the token or revocation endpoint means, first match first:
 *
 * | answer | meaning |
 * |---|---|
 * | `invalid_client`, any status | the client's credentials are refused |
 * | 429; 408 and 5xx; 3xx | `commonFailure`, whatever the body says |
 * | one of the numbers above | as they say |
 * | 400 or 401 with `invalid_grant` or the reason `Invalid Token!` | the grant is dead |
 * | anything else | the request is refused |
 *
 * `invalid_request` alone says nothing about the grant: Zoom uses it for its own failures too. Until mid-2022 it came
 * with the reason `Invalid Token!` for a dead refresh token, hence the test of that very reason.
 */
function tokenFailure(answer: HttpAnswer, isRejected: RejectionTest): ZoomError {
  const members = membersOrNone(answer.body);
  if (members['error'] === 'invalid_client') return new ZoomClientRejectedError();
  const common = commonFailure(answer);
  if (common !== null) return common;

  const number = errorNumber(members);
  if (number !== null) {
    if (CLIENT_REJECTIONS.has(number)) return new ZoomClientRejectedError();
    const rejection = GRANT_REJECTIONS.get(number);
    if (rejection !== undefined) return new ZoomGrantInvalidError(rejection);
    if (number === ZOOM_INTERNAL_FAILURE) return new ZoomUnavailableError('answered', answer.retryAfterSeconds);
  }
  if (answer.status === 400 || answer.status === 401) {
    if (members['error'] === 'invalid_grant' || members['reason'] === 'Invalid Token!' || isRejected(members)) {
      return new ZoomGrantInvalidError('REJECTED');
    }
  }
  return new ZoomRequestRefusedError(answer.status);
}

function commonTokens(endpoints: Endpoints, client: ZoomClient, members: Members): Omit<TokenSet, 'refreshToken'> {
  const accessToken = members['access_token'];
  if (!isVisibleAscii(accessToken)) throw new ZoomResponseInvalidError('access_token is missing or malformed');
  const tokenType = members['token_type'];
  if (typeof tokenType !== 'string' || tokenType.toLowerCase() !== 'bearer') {
    throw new ZoomResponseInvalidError('token_type is not bearer');
  }
  return {
    accessToken: new Secret(accessToken),
    tokenType: 'bearer',
    expiresInSeconds: readExpiresIn(members['expires_in']),
    scopes: readScopes(members['scope']),
    apiUrl: endpoints.apiOrigin(client.environment, members['api_url']),
  };
}

function readRefreshToken(members: Members): Secret {
  const refreshToken = members['refresh_token'];
  if (!isVisibleAscii(refreshToken)) throw new ZoomResponseInvalidError('refresh_token is missing or malformed');
  return new Secret(refreshToken);
}

/**
 * A positive whole number, also when written as a string of digits: to refuse a refresh answer for its quotation marks
 * would lose the grant, since the old refresh token is dead by then.
 */
function readExpiresIn(value: unknown): number {
  const seconds = typeof value === 'string' && /^[1-9]\d{0,14}$/.test(value) ? Number(value) : value;
  if (typeof seconds !== 'number' || !Number.isInteger(seconds) || seconds <= 0) {
    throw new ZoomResponseInvalidError('expires_in is not a positive whole number');
  }
  return Math.min(seconds, MAX_EXPIRES_IN_SECONDS);
}

/** Absent and empty are the same: no scope is named. Otherwise scope tokens of RFC 6749 §3.3 between spaces. */
function readScopes(value: unknown): string[] {
  if (isAbsent(value)) return [];
  if (typeof value !== 'string') throw new ZoomResponseInvalidError('scope is not a string');
  const scopes = value.split(' ').filter((scope) => scope !== '');
  if (!scopes.every((scope) => /^[\x21\x23-\x5b\x5d-\x7e]+$/.test(scope))) {
    throw new ZoomResponseInvalidError('scope is malformed');
  }
  return [...new Set(scopes)];
}

/** JSON has two ways to say nothing. */
function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}
