import { randomBytes } from 'node:crypto';
import type { Grant } from './model.js';
import type { World } from './world.js';

/** A webhook body before it is serialized. */
export interface WebhookEvent {
  event: string;
  [field: string]: unknown;
}

/**
 * `app_deauthorized`, with `event_ts` where the knob puts it.
 *
 * `payload.signature` has no documented meaning; receivers must go by the `x-zm-signature` header.
 *
 * @see https://developers.zoom.us/docs/api/webhooks/
 */
export function deauthorizedEvent(world: World, grant: Pick<Grant, 'accountId' | 'userId' | 'clientId'>): WebhookEvent {
  const now = world.clock.now();
  const placement = world.state.knobs.webhookEventTsPlacement;
  return {
    event: 'app_deauthorized',
    ...(placement === 'top' ? { event_ts: now.getTime() } : {}),
    payload: {
      ...(placement === 'payload' ? { event_ts: now.getTime() } : {}),
      ...(placement === 'payload-string' ? { event_ts: now.toISOString().slice(0, 19).replace('T', ' ') } : {}),
      account_id: grant.accountId,
      user_id: grant.userId,
      signature: randomBytes(32).toString('hex'),
      deauthorization_time: now.toISOString(),
      client_id: grant.clientId,
    },
  };
}

/** `endpoint.url_validation`: proves that the receiver knows the webhook secret. */
export const urlValidationEvent = (world: Pick<World, 'clock'>, plainToken: string): WebhookEvent => ({
  payload: { plainToken },
  event_ts: world.clock.now().getTime(),
  event: 'endpoint.url_validation',
});
