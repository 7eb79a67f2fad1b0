import { randomBytes, randomUUID } from 'node:crypto';
import { urlValidationEvent, type WebhookEvent } from './events.js';
import type { App, Delivery } from './model.js';
import { encryptedTokenOf, newTrackingId, post, webhookHeaders } from './webhook-request.js';
import { nowMs, type SandboxLog, type World } from './world.js';

/** How a URL validation ended; `problem` is null when the endpoint answered rightly. */
export interface WebhookValidation {
  valid: boolean;
  status: number | null;
  problem: 'no-webhook-url' | 'timeout' | 'transport' | 'status' | 'not-json' | 'wrong-token' | null;
}

export interface WebhookSender {
  /** Starts a delivery and returns its id, or null when the app has no webhook URL. */
  deliver(app: App, event: WebhookEvent): string | null;
  /** Sends `endpoint.url_validation` once and judges the answer. */
  validate(app: App): Promise<WebhookValidation>;
  /** Takes up the deliveries that were waiting when the state was saved. */
  resume(): void;
  /** Resolves when no attempt is under way and none will be made. */
  stop(): Promise<void>;
}

/** Zoom waits this long for an answer. @see https://developers.zoom.us/docs/api/webhooks/ */
const DEADLINE_MS = 3000;

/** Retries come this long after the first attempt: 5, 25 and 85 minutes. Then the event is dropped. */
const RETRY_AFTER_MS = [5, 25, 85].map((minutes) => minutes * 60_000);

type WebhookWorld = Pick<World, 'state' | 'clock' | 'ledger' | 'changed'>;

type Attempt = { status: number; body: string } | 'timeout' | 'transport';

/** Sends signed webhooks; deadlines and retries run on the sandbox's clock, and each attempt is in the ledger. */
export function createWebhookSender(world: WebhookWorld, log: SandboxLog | undefined): WebhookSender {
  const stopping = new AbortController();
  const running = new Set<Promise<void>>();

  async function attempt(
    app: App,
    url: string,
    message: Pick<Delivery, 'body' | 'timestamp' | 'trackingId'>,
  ): Promise<Attempt> {
    const cut = new AbortController();
    const answered = new AbortController();
    let late = false;
    void world.clock.sleep(DEADLINE_MS, AbortSignal.any([answered.signal, stopping.signal])).then(() => {
      late = !answered.signal.aborted;
      if (late) cut.abort();
    });
    try {
      return await post(url, { headers: webhookHeaders(app, message), body: message.body, signal: cut.signal });
    } catch {
      // Which transport error it was makes no difference to Zoom, and its text may hold the URL.
      return late ? 'timeout' : 'transport';
    } finally {
      answered.abort();
    }
  }

  function outcomeOf(result: Attempt, attempts: number): 'delivered' | 'retry-scheduled' | 'given-up' {
    if (typeof result !== 'string') {
      if (result.status >= 200 && result.status < 300) return 'delivered';
      const retried = result.status >= 500 || (result.status >= 400 && world.state.knobs.webhookRetryOn4xx);
      if (!retried) return 'given-up';
    }
    return attempts > RETRY_AFTER_MS.length ? 'given-up' : 'retry-scheduled';
  }

  /** One attempt, and the delivery's next state. */
  async function step(delivery: Delivery, app: App, url: string): Promise<void> {
    const close = world.ledger.open({
      method: 'POST',
      route: 'webhook',
      outcome: 'sending',
      clientId: app.clientId,
      event: delivery.event,
      attempt: delivery.attempts + 1,
      deliveryId: delivery.id,
    });
    if (delivery.attempts > 0 && world.state.knobs.webhookResignRetries) {
      delivery.timestamp = Math.floor(nowMs(world) / 1000);
      delivery.trackingId = newTrackingId();
    }
    const result = await attempt(app, url, delivery);
    if (stopping.signal.aborted) return;
    delivery.attempts += 1;
    const outcome = outcomeOf(result, delivery.attempts);
    if (outcome === 'retry-scheduled') {
      delivery.nextAttemptAt = delivery.firstAttemptAt + RETRY_AFTER_MS[delivery.attempts - 1]!;
    } else world.state.deliveries.delete(delivery.id);
    world.changed();
    close({ status: typeof result === 'string' ? null : result.status, outcome });
  }

  async function run(delivery: Delivery): Promise<void> {
    while (world.state.deliveries.get(delivery.id) === delivery) {
      const wait = delivery.nextAttemptAt - nowMs(world);
      if (wait > 0) await world.clock.sleep(wait, stopping.signal);
      if (stopping.signal.aborted || world.state.deliveries.get(delivery.id) !== delivery) return;
      const app = world.state.apps.get(delivery.clientId);
      if (app === undefined || app.webhookUrl === null) world.state.deliveries.delete(delivery.id);
      else await step(delivery, app, app.webhookUrl);
    }
  }

  function start(delivery: Delivery): void {
    const task = run(delivery)
      .catch((error: unknown) => log?.error('A sandbox webhook delivery failed.', { route: 'webhook' }, error))
      .finally(() => running.delete(task));
    running.add(task);
  }

  return {
    deliver: (app, event) => {
      if (app.webhookUrl === null || stopping.signal.aborted) return null;
      const now = nowMs(world);
      const body = JSON.stringify(event);
      const delivery: Delivery = {
        id: randomUUID(),
        clientId: app.clientId,
        event: event.event,
        body,
        trackingId: newTrackingId(),
        timestamp: Math.floor(now / 1000),
        attempts: 0,
        firstAttemptAt: now,
        nextAttemptAt: now,
      };
      const copies = Array.from({ length: world.state.knobs.webhookDuplicates }, () => ({
        ...delivery,
        id: randomUUID(),
      }));
      for (const each of [delivery, ...copies]) {
        world.state.deliveries.set(each.id, each);
        start(each);
      }
      world.changed();
      return delivery.id;
    },
    validate: async (app) => {
      if (app.webhookUrl === null) return { valid: false, status: null, problem: 'no-webhook-url' };
      const plainToken = randomBytes(16).toString('base64url');
      const event = urlValidationEvent(world, plainToken);
      const close = world.ledger.open({
        method: 'POST',
        route: 'webhook',
        outcome: 'sending',
        clientId: app.clientId,
        event: event.event,
        attempt: 1,
      });
      const timestamp = Math.floor(nowMs(world) / 1000);
      const message = { body: JSON.stringify(event), timestamp, trackingId: newTrackingId() };
      const result = judge(await attempt(app, app.webhookUrl, message), app.webhookSecret, plainToken);
      close({ status: result.status, outcome: result.valid ? 'validated' : 'not-validated' });
      return result;
    },
    resume: () => {
      for (const delivery of world.state.deliveries.values()) start(delivery);
    },
    stop: async () => {
      stopping.abort();
      await Promise.all(running);
    },
  };
}

function judge(result: Attempt, secret: string, plainToken: string): WebhookValidation {
  if (typeof result === 'string') return { valid: false, status: null, problem: result };
  const { status, body } = result;
  if (status !== 200) return { valid: false, status, problem: 'status' };
  try {
    const answer = JSON.parse(body) as { plainToken?: unknown; encryptedToken?: unknown } | null;
    const valid = answer?.plainToken === plainToken && answer.encryptedToken === encryptedTokenOf(secret, plainToken);
    return { valid, status, problem: valid ? null : 'wrong-token' };
  } catch {
    // The receiver's text is not repeated anywhere.
    return { valid: false, status, problem: 'not-json' };
  }
}
