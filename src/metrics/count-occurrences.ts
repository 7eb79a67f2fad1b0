import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { type DeliveryOutcome, OCCURRENCE_CHANNEL, type Occurrence, type WebhookOutcome } from '../diagnostics.js';
import type { Meters } from './meters.js';

/** Told before anything happens, so that the first of each is seen as an increase. */
const WEBHOOK_OUTCOMES = [
  'accepted',
  'repeated',
  'without_effect',
  'validated',
  'unknown_app',
  'bad_signature',
  'clock_skew_suspected',
  'malformed_validation',
  'too_large',
  'not_stored',
] as const satisfies readonly WebhookOutcome[];

const DELIVERY_OUTCOMES = [
  'delivered',
  'refused',
  'timed_out',
  'connection_failed',
  'address_not_allowed',
] as const satisfies readonly DeliveryOutcome[];

/** Of callers who are not let in. */
const REFUSALS = ['unauthenticated', 'too_many_attempts', 'server_key_in_browser', 'origin_not_allowed'] as const;

function count(meters: Meters, occurrence: Occurrence): void {
  switch (occurrence.kind) {
    case 'operation': {
      const { operation, outcome, seconds } = occurrence;
      meters.operations.inc({ operation, outcome });
      return meters.operationSeconds.observe({ operation }, seconds);
    }
    case 'credential':
      return meters.credentials.inc({ outcome: occurrence.outcome });
    case 'refresh': {
      const { outcome, cause, attempt, seconds } = occurrence;
      meters.refreshes.inc({ outcome, cause: cause.toLowerCase(), attempt });
      return meters.refreshSeconds.observe({ outcome }, seconds);
    }
    case 'audit':
      return meters.auditEvents.inc({ subject: occurrence.what }, occurrence.count);
    case 'audit-failure':
      return meters.auditFailures.inc({ subject: occurrence.what });
    case 'refused-request':
      return meters.refusedRequests.inc({ route: occurrence.route, reason: occurrence.reason.toLowerCase() });
    case 'webhook':
      return meters.webhooks.inc({ outcome: occurrence.outcome });
    case 'delivery': {
      const { outcome, seconds } = occurrence;
      meters.deliveries.inc({ outcome });
      return meters.deliverySeconds.observe({ outcome }, seconds);
    }
    case 'health-transition': {
      const { status, reason } = occurrence;
      return meters.healthTransitions.inc({ status: status.toLowerCase(), reason: reason.toLowerCase() });
    }
    case 'health-subscription':
      return meters.subscribers.inc({ subscription: 'health_events' }, occurrence.change);
    case 'health-event-delivered':
      return meters.eventsDelivered.inc();
  }
}

/**
 * Counts what this process tells. Two servers in one process count each other's.
 *
 * @returns what ends it.
 */
export function countOccurrences(meters: Meters): () => void {
  for (const subject of ['change', 'read', 'refusal']) {
    meters.auditEvents.inc({ subject }, 0);
    meters.auditFailures.inc({ subject }, 0);
  }
  for (const outcome of WEBHOOK_OUTCOMES) meters.webhooks.inc({ outcome }, 0);
  for (const outcome of DELIVERY_OUTCOMES) meters.deliveries.inc({ outcome }, 0);
  for (const route of ['graphql', 'websocket', 'tokens']) {
    for (const reason of REFUSALS) meters.refusedRequests.inc({ route, reason }, 0);
  }
  for (const operation of ['credential', 'query', 'mutation', 'subscription', 'unknown']) {
    for (const outcome of ['ok', 'internal', 'unavailable', 'vault_unavailable', 'audit_unavailable'])
      meters.operations.inc({ operation, outcome }, 0);
  }
  for (const outcome of ['served', 'served_with_warning', 'ProviderUnavailableError', 'failed']) {
    meters.credentials.inc({ outcome }, 0);
  }
  const listener = (message: unknown) => count(meters, message as Occurrence);
  subscribe(OCCURRENCE_CHANNEL, listener);
  return () => void unsubscribe(OCCURRENCE_CHANNEL, listener);
}
