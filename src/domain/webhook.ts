import { createHash, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { tell, type WebhookOutcome } from '../diagnostics.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { Secret } from '../secret.js';
import { answerUrlValidation, parseWebhook, verifyWebhook, type ZoomWebhookEvent } from '../zoom/webhook.js';
import { readEvent, type ZoomEvent } from '../zoom/webhook-event.js';
import { openAppSecret, type SealedAppSecrets } from './app-secret.js';
import { actingAs, noteAudit } from './audit.js';
import type { AuditPrincipal } from './audit-trail.js';
import type { Deps } from './deps.js';
import { recordTransitions } from './health-event.js';
import { applyEvent, type Effect, type EventReceiver } from './webhook-effect.js';

type WebhookApp = SealedAppSecrets & EventReceiver & { now: Date };

export interface WebhookDelivery {
  appKey: string;
  rawBody: Uint8Array;
  signature: string | readonly string[] | undefined;
  timestamp: string | readonly string[] | undefined;
}

/** What the deliverer is told; the HTTP status follows from it. */
export type WebhookAnswer =
  | { kind: 'unknown-app' | 'not-signed' | 'malformed-validation' | 'accepted' }
  | { kind: 'validation'; answer: { plainToken: string; encryptedToken: string } };

/**
 * Takes in one delivery. Nothing in it is looked at before its signature is verified, and an event is answered only
 * after it is stored together with its effect: whoever hears `accepted` need not deliver it again.
 *
 * Writes exactly one log line, which holds nothing that was sent.
 *
 * @throws when the database cannot be reached; the provider then delivers again.
 * @see https://developers.zoom.us/docs/api/webhooks/
 */
export async function receiveWebhook(deps: Deps, delivery: WebhookDelivery): Promise<WebhookAnswer> {
  const app = await findApp(deps, delivery.appKey);
  if (app === undefined) {
    count('unknown_app');
    deps.log.warn('a webhook was refused', { reason: 'unknown-app' });
    return { kind: 'unknown-app' };
  }
  const { rawBody, signature, timestamp } = delivery;
  const secrets = await openWebhookSecrets(deps, app);
  const toleranceSeconds = deps.settings.webhookToleranceSeconds;
  const verdict = verifyWebhook({ rawBody, signature, timestamp, secrets, now: app.now, toleranceSeconds });
  if (verdict.result !== 'ok') {
    // The signature of a stale one is right: it was held up, replayed, or one of the clocks is wrong.
    count(verdict.result === 'stale-timestamp' ? 'clock_skew_suspected' : 'bad_signature');
    deps.log.warn('a webhook was refused', { appId: app.id, reason: verdict.result });
    return { kind: 'not-signed' };
  }
  const envelope = parseWebhook(rawBody);
  if (envelope?.event === 'endpoint.url_validation') return validate(deps, app, envelope, verdict.secret);
  const event = envelope && readEvent(envelope);
  if (envelope === null || event === null) {
    count('without_effect');
    deps.log.info('a signed webhook has no effect', { appId: app.id, reason: envelope ? 'not known' : 'malformed' });
    return { kind: 'accepted' };
  }
  const db = actingAs(deps.db, { principal: byProvider(app.id) });
  const effect = await db.transaction((tx) => takeIn(tx, app, event, envelope));
  count(effect === null ? 'repeated' : 'accepted');
  if (effect !== null && effect.transitions.length > 0) deps.feed.publish(HEALTH_TOPIC);
  deps.log.info('a webhook was taken in', {
    appId: app.id,
    operation: event.name,
    ...(effect === null ? { reason: 'delivered before' } : { count: effect.changed }),
  });
  return { kind: 'accepted' };
}

const count = (outcome: WebhookOutcome): void => tell({ kind: 'webhook', outcome });

/** Answers with the very secret that signed the request, and only what cannot serve as a signature. */
async function validate(
  deps: Deps,
  app: WebhookApp,
  { payload }: ZoomWebhookEvent,
  secret: Secret,
): Promise<WebhookAnswer> {
  const answer = answerUrlValidation(payload['plainToken'], secret);
  if (answer === null) {
    count('malformed_validation');
    deps.log.warn('a webhook was refused', { appId: app.id, reason: 'malformed-validation' });
    return { kind: 'malformed-validation' };
  }
  await actingAs(deps.db, { principal: byProvider(app.id) }).transaction(async (tx) => {
    await tx.query(sql`UPDATE provider_app SET webhook_validated_at = now() WHERE id = ${app.id}::uuid`);
    noteAudit(tx, { action: 'webhook.validated', subject: `ProviderApp:${app.id}` });
  });
  count('validated');
  deps.log.info('a webhook address was validated', { appId: app.id });
  return { kind: 'validation', answer };
}

const byProvider = (appId: string): AuditPrincipal => ({
  kind: 'PROVIDER',
  id: appId,
  externalUserId: null,
  clientAddress: null,
});

/** @returns null when the event has been taken in before. */
async function takeIn(tx: Sql, app: WebhookApp, event: ZoomEvent, envelope: ZoomWebhookEvent): Promise<Effect | null> {
  const [stored] = await tx.query(sql`
    INSERT INTO webhook_event (id, app_id, dedupe_hash, name)
    VALUES (${randomUUID()}::uuid, ${app.id}::uuid, ${identityOf(event, envelope)}, ${event.name})
    ON CONFLICT (app_id, dedupe_hash) DO NOTHING RETURNING id`);
  if (stored === undefined) return null;
  const effect = await applyEvent(tx, app, event);
  await recordTransitions(tx, effect.transitions);
  if (effect.changed > 0) {
    const { changed } = effect;
    noteAudit(tx, { action: `webhook.${event.name}`, subject: `ProviderApp:${app.id}`, count: changed });
  }
  return effect;
}

/**
 * The provider gives events no id, and a repeated delivery may be signed anew: an event is recognised by its name, its
 * time and its whole payload. One without any time is always another one; its effect stands being repeated.
 */
function identityOf(event: ZoomEvent, { payload }: ZoomWebhookEvent): Uint8Array {
  const identity = [event.name, event.at?.toISOString() ?? randomUUID(), payload];
  return createHash('sha256').update(canonicalJson(identity)).digest();
}

/** JSON with the members of every object in one order. */
function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, member: unknown) =>
    typeof member === 'object' && member !== null && !Array.isArray(member)
      ? Object.fromEntries(Object.entries(member).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : member,
  );
}

/** The secrets that are good now: two of them while one is being replaced. */
async function openWebhookSecrets(deps: Deps, app: WebhookApp): Promise<Secret[]> {
  const secrets: Secret[] = [];
  for (const name of ['webhookSecret', 'formerWebhookSecret'] as const) {
    const secret = await openAppSecret(deps.vault, deps.db, app, name);
    if (secret !== null) secrets.push(secret);
  }
  return secrets;
}

async function findApp(deps: Pick<Deps, 'db'>, key: string): Promise<WebhookApp | undefined> {
  const [app] = await deps.db.query<WebhookApp>(sql`
    SELECT id, client_id AS "clientId", kind, secret_version AS "secretVersion", now() AS now,
      sealed_client_secret AS "sealedClientSecret", NULL AS "sealedFormerClientSecret",
      sealed_webhook_secret AS "sealedWebhookSecret",
      CASE WHEN former_webhook_secret_retires_at > now() THEN sealed_former_webhook_secret END
        AS "sealedFormerWebhookSecret"
    FROM provider_app WHERE key = ${key}`);
  return app;
}
