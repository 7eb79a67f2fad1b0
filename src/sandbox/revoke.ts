import { authenticateClient, oauthError } from './client.js';
import { deauthorizedEvent } from './events.js';
import { endGrant } from './grants.js';
import { json, paramsOf, type Reply, type SandboxRequest } from './http.js';
import { hashOf } from './mint.js';
import { nowMs, type World } from './world.js';

const SUCCESS = { status: 'success' };

/**
 * `POST /oauth/revoke` with an access or a refresh token: ends the grant, then tells a published app's webhook.
 *
 * A token that is already dead is a success without effect (RFC 7009 §2.2); one of another app is refused.
 */
export function handleRevoke(world: World, request: SandboxRequest): Reply {
  const app = authenticateClient(world, request);
  const sent = paramsOf(request).get('token');
  if (sent === null || sent === '') return oauthError(400, 'Token cannot be empty.', 'invalid_request', 'no-token');
  const token = world.state.tokens.get(hashOf(sent));
  if (token === undefined || token.rotatedAt !== null || token.expiresAt <= nowMs(world)) {
    return json(200, SUCCESS, 'already-dead');
  }
  if (token.clientId !== app.clientId)
    return oauthError(400, 'Invalid Token!', 'invalid_request', 'token-of-other-app');
  const grant = token.grantKey === null ? undefined : world.state.grants.get(token.grantKey);
  if (grant === undefined) {
    world.state.tokens.delete(hashOf(sent));
    world.changed();
    return json(200, SUCCESS, 'revoked');
  }
  endGrant(world, grant);
  const reply = json(200, SUCCESS, 'revoked');
  if (!app.published) return reply;
  return { ...reply, after: () => void world.webhooks.deliver(app, deauthorizedEvent(world, grant)) };
}
