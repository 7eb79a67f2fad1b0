import { type DeliveryOutcome, tell } from '../diagnostics.js';
import type { WebhookDeliveryFailure } from '../generated/prisma/enums.js';
import { DEADLINE_MS, type SendOutcome, type WebhookSender } from '../outgoing/webhook-sender.js';
import {
  claimDue,
  type ClaimedDelivery,
  type EndedAttempt,
  LEASE_SECONDS,
  releaseDelivery,
  settleDelivered,
  settleFailed,
} from './delivery.js';
import { headersOf, messageOf } from './delivery-message.js';
import type { Deps } from './deps.js';
import { openSecrets } from './webhook-secret.js';

/** Attempts that this process has under way at most. */
const MAX_RUNNING = 64;
/** While some are, it is looked for more this often, and soon after each that ends. */
const POLL_MS = 500;
const PAUSE_MS = 20;
/** What an attempt may have spent before it sends: the rest of its lease is needed to hear of the outcome. */
const LATEST_START_MS = (LEASE_SECONDS * 1_000 - DEADLINE_MS) / 2;

export type DeliveryDeps = Pick<Deps, 'db' | 'vault' | 'clock' | 'log'> & { webhookSender: WebhookSender };

/** Tells webhook endpoints of health events. */
export interface Deliverer {
  /**
   * Takes up what is due, and comes back while it is still being sent: slow endpoints hold up none but themselves.
   *
   * @returns whether something is under way.
   */
  deliverDue(signal: AbortSignal): Promise<boolean>;
  /** Resolves when the attempts under way are settled. Take up nothing any more before. */
  drain(): Promise<void>;
}

export function createDeliverer(deps: DeliveryDeps): Deliverer {
  const running = new Set<Promise<void>>();

  function begin(delivery: ClaimedDelivery, claimedAtMs: number): void {
    const attempt = deliver(deps, delivery, claimedAtMs)
      // Its lease runs out, and it is taken up again.
      .catch((error: unknown) =>
        deps.log.error(
          'a delivery could not be settled',
          { webhookEndpointId: delivery.endpointId, job: 'deliver-webhooks' },
          error,
        ),
      )
      .finally(() => running.delete(attempt));
    running.add(attempt);
  }

  return {
    deliverDue: async (signal) => {
      // From before the leases begin: what is late by this clock is late by the database's.
      let claimedAtMs = performance.now();
      for await (const claimed of claimDue(deps, MAX_RUNNING - running.size)) {
        for (const delivery of claimed) begin(delivery, claimedAtMs);
        claimedAtMs = performance.now();
      }
      if (running.size === 0) return false;
      const wake = new AbortController();
      const stop = () => wake.abort();
      signal.addEventListener('abort', stop);
      await Promise.race([...running, deps.clock.sleep(POLL_MS, wake.signal)]);
      signal.removeEventListener('abort', stop);
      wake.abort();
      await deps.clock.sleep(PAUSE_MS, signal);
      return true;
    },
    drain: async () => {
      await Promise.all(running);
    },
  };
}

async function deliver(deps: DeliveryDeps, delivery: ClaimedDelivery, claimedAtMs: number): Promise<void> {
  const { endpointId: webhookEndpointId } = delivery;
  const message = messageOf(delivery);
  let headers: Record<string, string>;
  const startedAt = deps.clock.now();
  try {
    const owner = { ...delivery, id: delivery.endpointId, tenantId: delivery.tenantRowId };
    headers = headersOf(message, await openSecrets(deps, deps.db, owner), startedAt);
  } catch (error) {
    deps.log.error('the secret of a webhook endpoint does not open', { webhookEndpointId }, error);
    return releaseDelivery(deps, delivery);
  }
  // Later, another process might be sending it already.
  if (performance.now() - claimedAtMs > LATEST_START_MS) return;
  const sinceMs = performance.now();
  const outcome = await deps.webhookSender.send(new URL(delivery.url), { headers, body: message.body });
  const durationMs = Math.round(performance.now() - sinceMs);
  const attempt: EndedAttempt = {
    startedAt,
    durationMs,
    httpStatus: outcome.kind === 'answered' ? outcome.httpStatus : null,
    failure: failureOf(outcome),
    retryAfterSeconds: outcome.kind === 'answered' ? outcome.retryAfterSeconds : null,
  };
  const told: DeliveryOutcome = attempt.failure === null ? 'delivered' : TOLD[attempt.failure];
  tell({ kind: 'delivery', outcome: told, seconds: durationMs / 1_000 });
  if (attempt.failure === null) return settleDelivered(deps, delivery, attempt);
  const { isGivenUp, disabled } = await settleFailed(deps, delivery, attempt);
  const fields = { webhookEndpointId, reason: attempt.failure, attempt: delivery.attempt };
  if (isGivenUp) deps.log.warn('a health event could not be delivered and is given up', fields);
  else deps.log.info('a health event is not delivered yet', fields);
  if (disabled !== null) deps.log.warn('a webhook endpoint was disabled', { webhookEndpointId, reason: disabled });
}

function failureOf(outcome: SendOutcome): WebhookDeliveryFailure | null {
  if (outcome.kind === 'answered') return outcome.httpStatus >= 200 && outcome.httpStatus < 300 ? null : 'REFUSED';
  return FAILURES[outcome.kind];
}

const FAILURES = {
  'timed-out': 'TIMED_OUT',
  'connection-failed': 'CONNECTION_FAILED',
  'address-not-allowed': 'ADDRESS_NOT_ALLOWED',
} as const satisfies Record<Exclude<SendOutcome['kind'], 'answered'>, WebhookDeliveryFailure>;

const TOLD = {
  REFUSED: 'refused',
  TIMED_OUT: 'timed_out',
  CONNECTION_FAILED: 'connection_failed',
  ADDRESS_NOT_ALLOWED: 'address_not_allowed',
} as const satisfies Record<WebhookDeliveryFailure, DeliveryOutcome>;
