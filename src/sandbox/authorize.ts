import { type AuthorizeRequest, parseAuthorizeRequest } from './authorize-request.js';
import { consentPage, pickerPage } from './consent-page.js';
import { grantOf, liveUser, recordConsent } from './grants.js';
import { formOf, json, redirect, Refusal, type Reply, type SandboxRequest } from './http.js';
import { hashOf } from './mint.js';
import { isAdmin, type User } from './model.js';
import { refusalPage } from './pages.js';
import { withParams } from './redirect-uri.js';
import { nowMs, type World } from './world.js';

/** @throws {Refusal} no such user, or Zoom would not let them authorize this app. */
function pickUser(world: World, request: AuthorizeRequest, userId: string): User {
  const user = liveUser(world, userId);
  if (user === null) throw new Refusal(json(400, { error: 'The sandbox has no such user.' }, 'unknown-user'));
  if (request.app.usage === 'ADMIN_MANAGEMENT' && !isAdmin(user)) {
    const text = 'You cannot authorize the app. An account admin is required to install this type of app.';
    throw new Refusal(refusalPage(text, 'admin-required'));
  }
  if (world.state.knobs.preApprovalAccountIds.includes(user.accountId)) {
    const text = 'Your account requires admin pre-approval for this app. You can request it from your admin.';
    throw new Refusal(refusalPage(text, 'pre-approval-required'));
  }
  return user;
}

/** RFC 6749 §4.1.2: a code for the app, with `state` only if the app sent one. */
function allow(world: World, request: AuthorizeRequest, { user, scopes }: { user: User; scopes: string[] }): Reply {
  const { app, redirectUri, challenge, state } = request;
  recordConsent(world, app, user, scopes);
  const now = nowMs(world);
  for (const [key, code] of world.state.codes) if (code.expiresAt <= now) world.state.codes.delete(key);
  const code = world.mint.code();
  const expiresAt = now + world.state.knobs.codeSeconds * 1000;
  world.state.codes.set(hashOf(code), {
    clientId: app.clientId,
    userId: user.id,
    scopes,
    redirectUri,
    challenge,
    expiresAt,
  });
  world.changed();
  return redirect(withParams(redirectUri, { code, ...(state === null ? {} : { state }) }), 'allowed');
}

/** Zoom does not document what a denial does; every known client expects RFC 6749 §4.1.2.1. */
function deny(world: World, { redirectUri, state }: AuthorizeRequest): Reply {
  if (world.state.knobs.denyWithoutRedirect) return refusalPage('You declined to authorize the app.', 'denied', 200);
  return redirect(withParams(redirectUri, { error: 'access_denied', ...(state === null ? {} : { state }) }), 'denied');
}

const hasGranted = (world: World, request: AuthorizeRequest, user: User): boolean => {
  const granted = grantOf(world, request.app, user)?.scopes;
  return granted !== undefined && [...request.required, ...request.optional].every((scope) => granted.includes(scope));
};

/**
 * `GET /oauth/authorize`. Zoom's sign-in is replaced by a choice among the sandbox's users.
 *
 * With `sandbox_user` the user is chosen already, and with `sandbox_decision` (`allow` or `deny`) too the answer is the
 * redirect: that is how a script clicks.
 */
export function handleAuthorize(world: World, { query }: SandboxRequest): Reply {
  const request = parseAuthorizeRequest(world, query);
  const userId = query.get('sandbox_user');
  const { skipConsentWhenGranted } = world.state.knobs;
  if (userId === null) return skipConsentWhenGranted ? pickerPage(world, request) : consentPage(world, request, null);
  const user = pickUser(world, request, userId);
  const scopes = [...request.required, ...request.optional];
  switch (query.get('sandbox_decision')) {
    case 'allow':
      return allow(world, request, { user, scopes });
    case 'deny':
      return deny(world, request);
    case null:
      if (skipConsentWhenGranted && hasGranted(world, request, user)) return allow(world, request, { user, scopes });
      return consentPage(world, request, user);
    default:
      return json(400, { error: 'sandbox_decision is allow or deny.' }, 'invalid-decision');
  }
}

/** `POST /oauth/authorize/decision`: the consent form. It carries the authorize request, which is checked again. */
export function handleDecision(world: World, httpRequest: SandboxRequest): Reply {
  const form = formOf(httpRequest);
  const ticked = form.getAll('ticked_scope');
  form.delete('ticked_scope');
  const request = parseAuthorizeRequest(world, form);
  if (form.get('decision') === 'deny') return deny(world, request);
  if (form.get('decision') !== 'allow') return json(400, { error: 'decision is allow or deny.' }, 'invalid-decision');
  const user = pickUser(world, request, form.get('sandbox_user') ?? '');
  const scopes = [...request.required, ...request.optional.filter((scope) => ticked.includes(scope))];
  return allow(world, request, { user, scopes });
}

/**
 * `GET /marketplace/apps/{clientId}/add`: an install that starts at Zoom. The app did not begin it, so there is no
 * `state` and no PKCE, and its callback gets `code` alone.
 */
export function handleAdd(world: World, { query }: SandboxRequest, { clientId = '' }: Record<string, string>): Reply {
  const redirectUri = world.state.apps.get(clientId)?.redirectUris[0];
  if (redirectUri === undefined)
    return json(404, { error: 'There is no such app, or it has no redirect URI.' }, 'unknown-app');
  const params = new URLSearchParams({ response_type: 'code', client_id: clientId, redirect_uri: redirectUri });
  for (const name of ['sandbox_user', 'sandbox_decision']) if (query.has(name)) params.set(name, query.get(name)!);
  return redirect(`${world.origin}/oauth/authorize?${params}`, 'install-started');
}
