import type { Clock } from '../clock.js';
import type { Secret } from '../secret.js';
import { accountReadRequest, processAccountReadResponse } from './account-read.js';
import { currentUserRequest, processCurrentUserResponse } from './api.js';
import { createEndpoints, type ZoomHosts } from './hosts.js';
import { createHttp } from './http.js';
import { createZoomMeetings, type ZoomMeetings } from './meetings.js';
import {
  accountTokenRequest,
  authorizationUrl,
  codeRequest,
  processAccountTokenResponse,
  processCodeResponse,
  processRefreshResponse,
  processRevokeResponse,
  refreshRequest,
  revokeRequest,
} from './oauth.js';

export type ZoomEnvironment = 'COMMERCIAL' | 'GOVERNMENT';

/** Which provider app speaks, and at which of Zoom's environments. */
export interface ZoomClient {
  environment: ZoomEnvironment;
  clientId: string;
  clientSecret: Secret;
}

/** What the token endpoint handed out, opened, in memory only. */
export interface TokenSet {
  accessToken: Secret;
  /**
   * Null for server-to-server tokens. Null from `refresh` says that Zoom sent no new one: keep the former, it is still
   * the one to use. Never null from `exchangeCode`.
   */
  refreshToken: Secret | null;
  /** Lower case. */
  tokenType: 'bearer';
  /** Life from the moment of receipt, in seconds: 1 to 86 400. */
  expiresInSeconds: number;
  /**
   * Scopes as granted, in the answer's order, without duplicates. Empty if the answer names none, which after `refresh`
   * means unchanged (RFC 6749 §5.1).
   */
  scopes: string[];
  /**
   * Origin of the REST host to use with this token, without a path: what the answer names if that is a REST host of
   * Zoom's or a configured one, else the environment's.
   */
  apiUrl: string;
}

/** Who a token speaks for, from `GET /users/me`. */
export interface ZoomIdentity {
  userId: string;
  accountId: string;
  email: string | null;
  displayName: string | null;
  /** Digits of the personal meeting room's number. */
  personalMeetingId: string | null;
}

export interface AuthorizationRequest {
  environment: ZoomEnvironment;
  clientId: string;
  redirectUri: string;
  state: Secret;
  /** S256 challenge of the session's code verifier (RFC 7636 §4.2). */
  codeChallenge: string;
}

/**
 * Zoom's OAuth endpoints, the REST calls that tell who a token belongs to and whether it works, and those about meetings.
 *
 * Each method makes at most one HTTP request, follows no redirect, and ends within the configured deadline. Nothing is
 * retried here: what may be tried again is decided by whoever knows what a second attempt costs. Failures are the
 * classes of `errors.ts`; none of them carries a body or a secret.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth/ and RFC 6749
 */
export interface Zoom {
  /** Pure. `response_type, client_id, redirect_uri, state, code_challenge, code_challenge_method=S256`, no `scope`. */
  authorizationUrl(request: AuthorizationRequest): URL;
  /** RFC 6749 §4.1.3. A code works once: never call this twice with the same one. */
  exchangeCode(
    client: ZoomClient,
    request: { code: Secret; codeVerifier: Secret; redirectUri: string },
  ): Promise<TokenSet>;
  /** RFC 6749 §6. Zoom rotates: once this resolves the old refresh token is dead, so store the result before using it. */
  refresh(client: ZoomClient, refreshToken: Secret): Promise<TokenSet>;
  /** Mints a server-to-server token (`grant_type=account_credentials`). Earlier tokens stay valid. */
  mintAccountToken(client: ZoomClient, accountId: string): Promise<TokenSet>;
  /** RFC 7009, for either token of a grant. Resolves also for a token that Zoom no longer knows. */
  revoke(client: ZoomClient, token: Secret): Promise<void>;
  /**
   * `GET /users/me` at `apiUrl`, which is checked again: one that is not allowed is passed over for the environment's.
   *
   * @throws {ZoomAccessTokenRejectedError} 401.
   * @throws {ZoomScopeMissingError} code 4711.
   * @throws {ZoomGrantInvalidError} the user is no longer in the account (404 with code 1001).
   */
  currentUser(request: { environment: ZoomEnvironment; apiUrl: string; accessToken: Secret }): Promise<ZoomIdentity>;
  /**
   * Makes the first harmless call that an account's token may make, to see that it is taken.
   *
   * @param request `scopes` of the token.
   * @returns false, without a request, where they allow none that is known here.
   * @throws {ZoomAccessTokenRejectedError} 401.
   * @throws {ZoomRequestRefusedError} the token was taken, and the call is not possible in this account.
   */
  readAccount(request: {
    environment: ZoomEnvironment;
    apiUrl: string;
    accessToken: Secret;
    scopes: readonly string[];
  }): Promise<boolean>;
  /** The REST calls about meetings, their hosts, and the tokens to join them with. */
  meetings: ZoomMeetings;
}

/**
 * Talks to the given hosts over a pool of connections of its own.
 *
 * @param deadlineMs from the call of a method to its end, connecting included, which may take a third of it: a request
 *   that has no connection by then ends as `not-sent`. Keep the deadline below the refresh lease.
 * @param connections to each host at most; further requests wait.
 * @param clock only to turn a `Retry-After` date into seconds; time limits run in real time.
 * @returns also `close`, which resolves when the requests under way have ended; later ones fail as `not-sent`.
 * @throws {TypeError} if one of `hosts` is not a URL.
 */
export function createZoom({
  hosts,
  deadlineMs = 15_000,
  connections = 100,
  clock,
}: {
  hosts: ZoomHosts;
  deadlineMs?: number;
  connections?: number;
  clock: Clock;
}): Zoom & { close(): Promise<void> } {
  const endpoints = createEndpoints(hosts);
  const http = createHttp({ deadlineMs, connections, clock });
  return {
    authorizationUrl: (request) => authorizationUrl(endpoints, request),
    exchangeCode: async (client, request) =>
      processCodeResponse(endpoints, client, await http.send(codeRequest(endpoints, client, request))),
    refresh: async (client, refreshToken) =>
      processRefreshResponse(endpoints, client, await http.send(refreshRequest(endpoints, client, refreshToken))),
    mintAccountToken: async (client, accountId) =>
      processAccountTokenResponse(
        endpoints,
        client,
        await http.send(accountTokenRequest(endpoints, client, accountId)),
      ),
    revoke: async (client, token) => processRevokeResponse(await http.send(revokeRequest(endpoints, client, token))),
    currentUser: async (request) => processCurrentUserResponse(await http.send(currentUserRequest(endpoints, request))),
    readAccount: async (request) => {
      const call = accountReadRequest(endpoints, request);
      if (call !== null) processAccountReadResponse(await http.send(call));
      return call !== null;
    },
    meetings: createZoomMeetings({ endpoints, http }),
    close: () => http.close(),
  };
}
