import { Webhook } from 'standardwebhooks';
import type { GrantKind, HealthReason, HealthStatus } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import { encodeGlobalId } from './global-id.js';

/** A health event with what a backend needs to know whom it is about. */
export interface DeliveredEvent {
  eventId: string;
  /** The product's identifier. */
  tenantId: string;
  sequence: number;
  occurredAt: Date;
  /** Null once the provider app was removed. */
  grantId: string | null;
  grantKind: GrantKind | null;
  /** The product's identifier; null for an installation. */
  userId: string | null;
  previous: HealthStatus | null;
  current: HealthStatus;
  reason: HealthReason;
}

const TYPENAMES = { INSTALLATION: 'Installation', USER_CONNECTION: 'UserConnection' } as const;

/**
 * What is sent about an event: the same text for each attempt, in the form of Standard Webhooks (`type`, `timestamp`,
 * `data`). Fields may be added; none changes its meaning. It holds no secret and nothing about the Zoom user.
 */
export function messageOf(event: DeliveredEvent): { id: string; body: string } {
  const id = encodeGlobalId('HealthEvent', event.eventId);
  const typename = event.grantKind === null ? null : TYPENAMES[event.grantKind];
  const body = JSON.stringify({
    type: 'grant.health_changed',
    timestamp: event.occurredAt.toISOString(),
    data: {
      id,
      tenantId: event.tenantId,
      sequence: event.sequence,
      grantId: event.grantId === null || typename === null ? null : encodeGlobalId(typename, event.grantId),
      grantType: typename,
      userId: event.userId,
      previous: event.previous,
      current: event.current,
      reason: event.reason,
    },
  });
  return { id, body };
}

/** The headers of one attempt: one signature for each secret. */
export function headersOf(
  message: { id: string; body: string },
  secrets: readonly Secret[],
  at: Date,
): Record<string, string> {
  const signatures = secrets.map((secret) => new Webhook(secret.reveal()).sign(message.id, at, message.body));
  return {
    'content-type': 'application/json',
    'webhook-id': message.id,
    'webhook-timestamp': String(Math.floor(at.getTime() / 1_000)),
    'webhook-signature': signatures.join(' '),
  };
}
