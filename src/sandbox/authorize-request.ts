import { json, Refusal, repeatedParam } from './http.js';
import type { App, CodeChallenge } from './model.js';
import { refusalPage } from './pages.js';
import { isRegisteredRedirect } from './redirect-uri.js';
import type { World } from './world.js';

/** A checked authorize request. */
export interface AuthorizeRequest {
  app: App;
  redirectUri: string;
  /** As sent; null when there was none, and then none is returned. */
  state: string | null;
  challenge: CodeChallenge | null;
  /** Configured scopes that this request asks for. */
  required: string[];
  optional: string[];
  /** The parameters that make up the request, to be carried through the consent page. */
  params: [string, string][];
}

const CARRIED = [
  'response_type',
  'client_id',
  'redirect_uri',
  'state',
  'scope',
  'optional_scope',
  'code_challenge',
  'code_challenge_method',
];

const refuse = (text: string, outcome: string): never => {
  throw new Refusal(refusalPage(text, outcome));
};

function challengeOf(params: URLSearchParams): CodeChallenge | null {
  const value = params.get('code_challenge');
  if (value === null || value === '') return null;
  const method = params.get('code_challenge_method') || 'plain';
  if (method !== 'plain' && method !== 'S256') return refuse('Invalid code_challenge_method', 'invalid-challenge');
  // RFC 7636 §4.2: the S256 challenge has 43 characters, a plain one is a verifier of 43 to 128.
  const shape = method === 'S256' ? /^[A-Za-z0-9_-]{43}$/ : /^[A-Za-z0-9\-._~]{43,128}$/;
  return shape.test(value) ? { value, method } : refuse('Invalid code_challenge', 'invalid-challenge');
}

/** Scope names of a parameter; an empty one counts as absent, because some libraries send it so. */
const namesOf = (params: URLSearchParams, name: string): string[] =>
  (params.get(name) ?? '').split(' ').filter((scope) => scope !== '');

function scopesOf(app: App, params: URLSearchParams): Pick<AuthorizeRequest, 'required' | 'optional'> {
  const asked = namesOf(params, 'scope');
  const askedOptional = namesOf(params, 'optional_scope');
  const configured = new Map(app.scopes.map(({ scope, optional }) => [scope, optional]));
  if ([...asked, ...askedOptional].some((scope) => !configured.has(scope))) refuse('Invalid scope', 'invalid-scope');
  if (asked.length === 0 && askedOptional.length === 0) {
    return {
      required: app.scopes.filter(({ optional }) => !optional).map(({ scope }) => scope),
      optional: app.scopes.filter(({ optional }) => optional).map(({ scope }) => scope),
    };
  }
  const optional = new Set([...askedOptional, ...asked.filter((scope) => configured.get(scope) === true)]);
  return { required: [...new Set(asked.filter((scope) => !optional.has(scope)))], optional: [...optional] };
}

/**
 * Checks the parameters of an authorize request. Until the redirect URI is known to be registered, and for every fault
 * that Zoom shows on its own page, nothing is sent to the app.
 *
 * @throws {Refusal} with Zoom's JSON 4700 or a page, never with a redirect.
 */
export function parseAuthorizeRequest(world: World, params: URLSearchParams): AuthorizeRequest {
  if (repeatedParam(params) !== null) refuse('A parameter is repeated.', 'repeated-parameter');
  const app = world.state.apps.get(params.get('client_id') ?? '');
  if (app === undefined || app.usage === 'SERVER_TO_SERVER')
    return refuse('Invalid client_id (4,702)', 'invalid-client');
  const redirectUri = params.get('redirect_uri') ?? '';
  const hasPkce = (params.get('code_challenge') ?? '') !== '';
  if (!isRegisteredRedirect(app, redirectUri, { hasPkce, knobs: world.state.knobs })) {
    const body = { status: false, errorCode: 4700, errorMessage: 'Invalid redirect url', result: null };
    throw new Refusal(json(400, body, 'invalid-redirect'));
  }
  if (app.disabled) refuse('The app is disabled. (4,717)', 'app-disabled');
  if (params.get('response_type') !== 'code') refuse('Invalid response_type', 'invalid-response-type');
  return {
    app,
    redirectUri,
    state: params.get('state'),
    challenge: challengeOf(params),
    ...scopesOf(app, params),
    params: CARRIED.flatMap((name): [string, string][] => (params.has(name) ? [[name, params.get(name)!]] : [])),
  };
}
