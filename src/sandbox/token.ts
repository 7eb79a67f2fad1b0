import { createHash } from 'node:crypto';
import { authenticateClient, oauthError } from './client.js';
import { grantOf, issueForAccount, issueForCode, liveUser, rotate } from './grants.js';
import { json, paramsOf, Refusal, repeatedParam, type Reply, type SandboxRequest } from './http.js';
import { hashOf } from './mint.js';
import type { App, CodeChallenge } from './model.js';
import { nowMs, type World } from './world.js';

function tokenReply(
  world: World,
  issued: { accessToken: string; refreshToken?: string; scopes: string[] },
  outcome: string,
): Reply {
  const { accessTokenSeconds, apiUrl } = world.state.knobs;
  return json(
    200,
    {
      access_token: issued.accessToken,
      token_type: 'bearer',
      ...(issued.refreshToken === undefined ? {} : { refresh_token: issued.refreshToken }),
      expires_in: accessTokenSeconds,
      scope: issued.scopes.join(' '),
      ...(apiUrl === null ? {} : { api_url: apiUrl === 'sandbox' ? world.origin : apiUrl }),
    },
    outcome,
  );
}

/** RFC 7636 §4.6. */
function isVerified({ method, value }: CodeChallenge, verifier: string | null): boolean {
  if (verifier === null) return false;
  return (method === 'plain' ? verifier : createHash('sha256').update(verifier).digest('base64url')) === value;
}

function invalidCode(world: World, code: string, outcome: string): Reply {
  return world.state.knobs.legacyCodeError
    ? oauthError(400, `Invalid authorization code ${code}`, 'invalid_request', outcome)
    : oauthError(400, 'Invalid authorization code', 'invalid_grant', outcome);
}

/** Redeems a code. Whatever the outcome, the code is spent by the first request of its app that presents it. */
function redeemCode(world: World, app: App, params: URLSearchParams): Reply {
  const sent = params.get('code') ?? '';
  const code = world.state.codes.get(hashOf(sent));
  if (code === undefined || code.clientId !== app.clientId) return invalidCode(world, sent, 'unknown-code');
  world.state.codes.delete(hashOf(sent));
  world.changed();
  if (code.expiresAt <= nowMs(world)) return invalidCode(world, sent, 'expired-code');
  if (params.get('redirect_uri') !== code.redirectUri) {
    return oauthError(400, 'Invalid request : Redirect URI mismatch.', 'invalid_request', 'redirect-mismatch');
  }
  if (code.challenge !== null && !isVerified(code.challenge, params.get('code_verifier'))) {
    return oauthError(400, 'Invalid code verifier', 'invalid_grant', 'verifier-mismatch');
  }
  const user = liveUser(world, code.userId);
  const grant = user === null ? null : grantOf(world, app, user);
  if (grant === null || app.disabled) return invalidCode(world, sent, 'grant-gone');
  return tokenReply(world, issueForCode(world, grant, code.scopes), 'issued');
}

function refresh(world: World, app: App, params: URLSearchParams): Reply {
  const rotated = rotate(world, app, params.get('refresh_token') ?? '');
  if (typeof rotated !== 'string') return tokenReply(world, rotated, 'rotated');
  return world.state.knobs.legacyDeadRefresh
    ? oauthError(401, 'Invalid Token!', 'invalid_request', rotated)
    : oauthError(400, 'Invalid Token!', 'invalid_grant', rotated);
}

function mintForAccount(world: World, app: App, params: URLSearchParams): Reply {
  const issued = !app.disabled && params.get('account_id') === app.accountId ? issueForAccount(world, app) : null;
  if (issued === null) return oauthError(400, 'Bad Request', 'invalid_request', 'wrong-account');
  return tokenReply(world, issued, 'issued');
}

const unsupported = (): Reply => oauthError(400, 'unsupported grant type', 'unsupported_grant_type');

/**
 * `POST /oauth/token`, with parameters in the query or in a form body.
 *
 * Which grant types an app may use follows from its usage. A code or refresh token that does not work says the same
 * whatever the cause; the ledger has the cause.
 *
 * @see https://developers.zoom.us/docs/integrations/oauth/, RFC 6749 §4.1.3 and §6
 */
export function handleToken(world: World, request: SandboxRequest): Reply {
  const params = paramsOf(request);
  if (repeatedParam(params) !== null) {
    throw new Refusal(oauthError(400, 'Bad Request', 'invalid_request', 'repeated-parameter'));
  }
  const app = authenticateClient(world, request);
  const isServerApp = app.usage === 'SERVER_TO_SERVER';
  switch (params.get('grant_type')) {
    case null:
      return oauthError(400, 'Missing grant type.', 'invalid_request', 'missing-grant-type');
    case 'authorization_code':
      return isServerApp ? unsupported() : redeemCode(world, app, params);
    case 'refresh_token':
      return isServerApp ? unsupported() : refresh(world, app, params);
    case 'account_credentials':
      return isServerApp ? mintForAccount(world, app, params) : unsupported();
    default:
      return unsupported();
  }
}
