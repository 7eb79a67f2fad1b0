import { createHash, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { ProviderAppKind } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import {
  answerUrlValidation,
  parseWebhook,
  readDeauthorization,
  verifyWebhook,
  type AppDeauthorization,
} from '../zoom/webhook.js';
import { openAppSecret, type SealedAppSecrets } from './app-secret.js';
import type { Deps } from './deps.js';
import { destroyCredential, probeUsersOf } from './grant.js';
import { nextHealth } from './health.js';
import { healthFrom, recordTransitions, type HealthColumns } from './health-event.js';

interface WebhookApp extends SealedAppSecrets {
  clientId: string;
  kind: ProviderAppKind;
  now: Date;
}

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
 * @throws when the database cannot be reached; the provider then delivers again.
 * @see https://developers.zoom.us/docs/api/webhooks/
 */
export async function receiveWebhook(deps: Deps, delivery: WebhookDelivery): Promise<WebhookAnswer> {
  const app = await findApp(deps, delivery.appKey);
  if (app === undefined) return { kind: 'unknown-app' };
  const secrets: Secret[] = [];
  for (const name of ['webhookSecret', 'formerWebhookSecret'] as const) {
    const secret = await openAppSecret(deps.vault, deps.db, app, name);
    if (secret !== null) secrets.push(secret);
  }
  const { rawBody, signature, timestamp } = delivery;
  const verdict = verifyWebhook({ rawBody, signature, timestamp, secrets, now: app.now });
  if (verdict.result !== 'ok') {
    deps.log.warn('a webhook was refused', { appId: app.id, reason: verdict.result });
    return { kind: 'not-signed' };
  }
  const event = parseWebhook(rawBody);
  if (event === null) {
    deps.log.warn('a signed webhook is not understood', { appId: app.id, reason: 'malformed' });
    return { kind: 'accepted' };
  }
  if (event.event === 'endpoint.url_validation') {
    const answer = answerUrlValidation(event.payload['plainToken'], verdict.secret);
    if (answer === null) return { kind: 'malformed-validation' };
    await deps.db.query(sql`UPDATE provider_app SET webhook_validated_at = now() WHERE id = ${app.id}::uuid`);
    return { kind: 'validation', answer };
  }
  const deauthorization = readDeauthorization(event);
  if (deauthorization === null || deauthorization.clientId !== app.clientId || !isStorable(deauthorization)) {
    deps.log.info('a signed webhook has no effect', { appId: app.id, reason: 'not for this app' });
    return { kind: 'accepted' };
  }
  const at = [deauthorization.deauthorizationTime, event.eventTs].find(isPlausible) ?? null;
  const changed = await deps.db.transaction((tx) => applyDeauthorization(tx, app, deauthorization, at));
  if (changed > 0) deps.feed.publish(HEALTH_TOPIC);
  deps.log.info('an app was removed at Zoom', { appId: app.id, count: changed });
  return { kind: 'accepted' };
}

/** Whether the database could hold these ids; one with a zero character cannot be a grant's. */
const isStorable = ({ accountId, userId }: AppDeauthorization): boolean => !`${accountId}${userId}`.includes('\0');

/** A moment that can be meant, and that the database can hold. */
const isPlausible = (at: Date | null): at is Date =>
  at !== null && at.getUTCFullYear() >= 2000 && at.getUTCFullYear() < 2100;

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

interface ConcernedGrant extends HealthColumns {
  id: string;
  tenantId: string;
}

/**
 * Ends the grants that a deauthorization is about: the user's, or for an admin-managed app the account's. The provider
 * gives events no id, so a repeated delivery is recognised by what it says. A grant that was authorized later than the
 * app was removed is another one and stays.
 *
 * @param at null: not told; then it is taken for now.
 * @returns how many grants ended.
 */
async function applyDeauthorization(
  tx: Sql,
  app: WebhookApp,
  deauthorization: AppDeauthorization,
  at: Date | null,
): Promise<number> {
  const { accountId, userId } = deauthorization;
  const identity = JSON.stringify(['app_deauthorized', accountId, userId, at?.toISOString() ?? randomUUID()]);
  const [stored] = await tx.query(sql`
    INSERT INTO webhook_event (id, app_id, dedupe_hash, name)
    VALUES (${randomUUID()}::uuid, ${app.id}::uuid, ${createHash('sha256').update(identity).digest()}, 'app_deauthorized')
    ON CONFLICT (app_id, dedupe_hash) DO NOTHING RETURNING id`);
  if (stored === undefined) return 0;
  // The provider tells some times to the second only: then ours are compared to the second, too.
  const resolution = at !== null && at.getTime() % 1_000 === 0 ? 'second' : 'milliseconds';
  const grants = await tx.query<ConcernedGrant>(sql`
    SELECT id, tenant_id AS "tenantId", health_status AS "healthStatus", health_reason AS "healthReason"
    FROM provider_grant
    WHERE app_id = ${app.id}::uuid AND provider_account_id = ${accountId}
      AND (provider_user_id = ${userId} OR ${app.kind !== 'USER_MANAGED'})
      AND health_status <> 'REVOKED'
      AND (${at}::timestamptz IS NULL OR date_trunc(${resolution}, authorized_at) <= ${at}::timestamptz)
    ORDER BY id FOR UPDATE`);
  for (const { id, tenantId } of grants) {
    await destroyCredential(tx, id);
    if (app.kind !== 'USER_MANAGED') await probeUsersOf(tx, { tenantId, accountId });
  }
  await recordTransitions(
    tx,
    grants.map((grant) => ({
      grantId: grant.id,
      tenantId: grant.tenantId,
      previous: healthFrom(grant),
      next: nextHealth(healthFrom(grant), { kind: 'ended', reason: 'DEAUTHORIZED_AT_PROVIDER' }),
    })),
  );
  return grants.length;
}
