import { timingSafeEqual } from 'node:crypto';
import { type SandboxRequest, json, paramsOf, Refusal, type Reply } from './http.js';
import type { JournalFacts } from './ledger.js';
import { fingerprintOf, hashOf } from './mint.js';
import type { App } from './model.js';
import type { World } from './world.js';

/** Error of the OAuth endpoints. Zoom says `reason` where RFC 6749 §5.2 says `error_description`. */
export const oauthError = (status: number, reason: string, error: string, outcome = error): Reply =>
  json(status, { reason, error }, outcome);

interface Credentials {
  style: 'basic' | 'body' | 'none';
  clientId: string;
  clientSecret: string;
}

/** Undoes the form encoding that RFC 6749 §2.3.1 asks for; ids and secrets sent without it come out unchanged. */
function formDecoded(text: string): string {
  try {
    return decodeURIComponent(text.replaceAll('+', ' '));
  } catch {
    // Not form encoded, so it can be no id or secret of ours.
    return text;
  }
}

/** Client id and secret from the Basic header, else from the parameters. */
function credentialsOf(request: SandboxRequest): Credentials {
  const basic = /^Basic\s+([A-Za-z0-9+/=_-]+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (basic !== undefined) {
    const pair = Buffer.from(basic, 'base64').toString('utf8');
    const colon = pair.indexOf(':');
    if (colon >= 0)
      return {
        style: 'basic',
        clientId: formDecoded(pair.slice(0, colon)),
        clientSecret: formDecoded(pair.slice(colon + 1)),
      };
  }
  const params = paramsOf(request);
  const clientSecret = params.get('client_secret');
  return {
    style: clientSecret === null ? 'none' : 'body',
    clientId: params.get('client_id') ?? '',
    clientSecret: clientSecret ?? '',
  };
}

function isSame(left: string, right: string): boolean {
  const [a, b] = [Buffer.from(left), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}

/** @throws {Refusal} 400 `invalid_client`: no such app, or not its present secret. */
export function authenticateClient(world: World, request: SandboxRequest): App {
  const { clientId, clientSecret } = credentialsOf(request);
  const app = world.state.apps.get(clientId);
  if (app === undefined || !isSame(app.clientSecret, clientSecret)) {
    throw new Refusal(oauthError(400, 'Invalid client_id or client_secret', 'invalid_client'));
  }
  return app;
}

/** The token of an `Authorization: Bearer` header, or null. */
export const bearerOf = (request: SandboxRequest): string | null =>
  /^Bearer\s+([A-Za-z0-9\-._~+/]+=*)$/i.exec(request.headers.authorization ?? '')?.[1] ?? null;

const GRANT_TYPES = ['authorization_code', 'refresh_token', 'account_credentials', 'client_credentials'];

const QUERY_KEYS = new Set([
  'access_token',
  'account_id',
  'client_id',
  'client_secret',
  'code',
  'code_challenge',
  'code_challenge_method',
  'code_verifier',
  'grant_type',
  'include_granted_scopes',
  'optional_scope',
  'redirect_uri',
  'refresh_token',
  'response_type',
  'sandbox_decision',
  'sandbox_user',
  'scope',
  'state',
  'token',
]);

/** What the ledger may know of a request, from its looks alone. */
export function observe(world: World, request: SandboxRequest, route: string): JournalFacts {
  const params = paramsOf(request);
  const bearer = bearerOf(request);
  const { style, clientId } = credentialsOf(request);
  const sent = params.get('refresh_token') ?? params.get('code') ?? params.get('token') ?? bearer;
  const claimed = bearer === null ? clientId : (world.state.tokens.get(hashOf(bearer))?.clientId ?? '');
  const grantType = params.get('grant_type');
  return {
    method: request.method,
    route,
    authentication: route === 'authorize' ? null : bearer === null ? style : 'bearer',
    clientId: world.state.apps.has(claimed) ? claimed : null,
    grantType: grantType === null ? null : GRANT_TYPES.includes(grantType) ? grantType : 'other',
    tokenFingerprint: sent === null ? null : fingerprintOf(sent),
    pkce: params.has('code_challenge') || params.has('code_verifier'),
    scopeSent: params.has('scope'),
    queryKeys: [...new Set([...request.query.keys()].map((key) => (QUERY_KEYS.has(key) ? key : 'other')))],
  };
}
