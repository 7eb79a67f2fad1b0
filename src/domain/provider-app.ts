import { randomBytes, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import {
  AlreadyExistsError,
  InvalidInputError,
  NotFoundError,
  ProviderAppInUseError,
  UnknownScopesError,
} from '../errors.js';
import type { ProviderAppKind, ProviderEnvironment } from '../generated/prisma/enums.js';
import { Secret } from '../secret.js';
import { isScopeToken } from '../zoom-scopes/grammar.js';
import { openAppSecret, sealAppSecrets, type SealedAppSecrets } from './app-secret.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { nextHealth } from './health.js';
import { healthFrom, recordTransitions, type HealthColumns } from './health-event.js';
import { checkScopes, missingScopes } from './scope.js';
import { requireName } from './tenant.js';

const MAX_CREDENTIAL = 500;
const DEFAULT_RETIREMENT_HOURS = 24;
const HOPELESS_ATTEMPTS = 5;

export interface AppScope {
  name: string;
  optional: boolean;
}

export interface ProviderAppInput {
  name: string;
  kind: ProviderAppKind;
  environment: ProviderEnvironment;
  clientId: string;
  clientSecret: string;
  webhookSecret?: string | null | undefined;
  setupUrl?: string | null | undefined;
  scopes: readonly AppScope[];
  acceptUnknownScopes: boolean;
}

function requireCredential(value: string | null | undefined, path: readonly string[]): void {
  if (value === null || value === undefined) return;
  if (value.length > MAX_CREDENTIAL || !/^[\x21-\x7e]+$/.test(value)) {
    throw new InvalidInputError(`Give 1 to ${MAX_CREDENTIAL} printable ASCII characters without spaces.`, path);
  }
}

function requireSetupUrl(value: string | null | undefined): void {
  if (value === null || value === undefined) return;
  const url = URL.canParse(value) ? new URL(value) : null;
  if (url === null || !['https:', 'http:'].includes(url.protocol) || url.username !== '' || url.password !== '') {
    throw new InvalidInputError('Give a web address of your product.', ['input', 'setupUrl']);
  }
}

/** @throws {UnknownScopesError} the app cannot have some of them, and they are not to be taken all the same. */
function splitScopes(
  kind: ProviderAppKind,
  scopes: readonly AppScope[],
  acceptUnknown: boolean,
): { required: string[]; optional: string[] } {
  const refused = checkScopes(
    kind,
    scopes.map(({ name }) => name),
  );
  if (refused.length > 0 && !acceptUnknown) throw new UnknownScopesError(refused);
  const unknown = new Set(refused.filter(({ problem }) => problem === 'NOT_IN_CATALOGUE').map(({ name }) => name));
  const unusable = scopes.findIndex(({ name }) => unknown.has(name) && !isScopeToken(name));
  if (unusable !== -1) {
    throw new InvalidInputError('Give 1 to 120 printable ASCII characters, without spaces, quotes and backslashes.', [
      'input',
      'scopes',
      String(unusable),
      'name',
    ]);
  }
  const names = (optional: boolean) => [...new Set(scopes.filter((s) => s.optional === optional).map((s) => s.name))];
  const required = names(false);
  return { required, optional: names(true).filter((name) => !required.includes(name)) };
}

/** @returns the new app's id. */
export async function registerProviderApp(deps: Pick<Deps, 'db' | 'vault'>, input: ProviderAppInput): Promise<string> {
  requireName(input.name, ['input', 'name']);
  requireCredential(input.clientId, ['input', 'clientId']);
  requireCredential(input.clientSecret, ['input', 'clientSecret']);
  requireCredential(input.webhookSecret, ['input', 'webhookSecret']);
  requireSetupUrl(input.setupUrl);
  const { required, optional } = splitScopes(input.kind, input.scopes, input.acceptUnknownScopes);
  const id = randomUUID();
  await deps.db.transaction(async (tx) => {
    const sealed = await sealAppSecrets(
      deps.vault,
      tx,
      { id, secretVersion: 1 },
      {
        clientSecret: new Secret(input.clientSecret),
        webhookSecret: input.webhookSecret ? new Secret(input.webhookSecret) : null,
        formerClientSecret: null,
        formerWebhookSecret: null,
      },
    );
    const [created] = await tx.query(sql`
      INSERT INTO provider_app (id, key, provider, name, kind, environment, client_id, secret_version,
        sealed_client_secret, client_secret_set_at, sealed_webhook_secret, webhook_secret_set_at, setup_url,
        required_scopes, optional_scopes)
      VALUES (${id}::uuid, ${randomBytes(12).toString('base64url')}, 'ZOOM', ${input.name},
        ${input.kind}::"ProviderAppKind", ${input.environment}::"ProviderEnvironment", ${input.clientId}, 1,
        ${sealed.clientSecret}, now(), ${sealed.webhookSecret},
        CASE WHEN ${sealed.webhookSecret !== null} THEN now() END, ${input.setupUrl ?? null},
        ${required}::text[], ${optional}::text[])
      ON CONFLICT (provider, environment, client_id) DO NOTHING RETURNING id`);
    if (created === undefined) throw new AlreadyExistsError('An app with this client id is registered.');
    await tx.query(
      sql`INSERT INTO refresh_pace (app_id, paced_until) VALUES (${id}::uuid, now() - interval '1 second')`,
    );
    noteAudit(tx, { tenantId: null, subject: `ProviderApp:${id}` });
  });
  return id;
}

export interface ProviderAppUpdate {
  id: string;
  name?: string | null | undefined;
  clientSecret?: string | null | undefined;
  webhookSecret?: string | null | undefined;
  setupUrl?: string | null | undefined;
  /** Until when a replaced secret is still used; 24 hours from now by default. */
  retireFormerSecretAt?: Date | null | undefined;
  scopes?: readonly AppScope[] | null | undefined;
  acceptUnknownScopes: boolean;
}

/**
 * Changes what is given. A replaced secret stays usable until it is retired. New required scopes are compared with
 * what each connection was granted at once.
 *
 * @returns the app's id.
 */
export async function updateProviderApp(
  deps: Pick<Deps, 'db' | 'vault' | 'feed'>,
  input: ProviderAppUpdate,
): Promise<string> {
  requireName(input.name, ['input', 'name']);
  requireCredential(input.clientSecret, ['input', 'clientSecret']);
  requireCredential(input.webhookSecret, ['input', 'webhookSecret']);
  requireSetupUrl(input.setupUrl);
  const scopes = input.scopes
    ? splitScopes(await kindOf(deps, input.id), input.scopes, input.acceptUnknownScopes)
    : null;
  await deps.db.transaction(async (tx) => {
    const [app] = await tx.query<SealedAppSecrets>(sql`
      SELECT id, secret_version AS "secretVersion", sealed_client_secret AS "sealedClientSecret",
        sealed_former_client_secret AS "sealedFormerClientSecret", sealed_webhook_secret AS "sealedWebhookSecret",
        sealed_former_webhook_secret AS "sealedFormerWebhookSecret"
      FROM provider_app WHERE id = ${input.id}::uuid FOR UPDATE`);
    if (app === undefined) throw new NotFoundError('No such provider app exists.');
    await tx.query(sql`
      UPDATE provider_app SET name = coalesce(${input.name ?? null}, name),
        setup_url = CASE WHEN ${input.setupUrl !== undefined} THEN ${input.setupUrl ?? null} ELSE setup_url END
      WHERE id = ${input.id}::uuid`);
    if (input.clientSecret || input.webhookSecret) await replaceSecrets(deps, tx, app, input);
    if (scopes !== null) await replaceScopes(tx, input.id, scopes);
  });
  deps.feed.publish(HEALTH_TOPIC);
  return input.id;
}

/** The kind never changes, so it may be read ahead of the change. */
async function kindOf(deps: Pick<Deps, 'db'>, id: string): Promise<ProviderAppKind> {
  const [app] = await deps.db.query<{ kind: ProviderAppKind }>(
    sql`SELECT kind FROM provider_app WHERE id = ${id}::uuid`,
  );
  if (app === undefined) throw new NotFoundError('No such provider app exists.');
  return app.kind;
}

async function replaceSecrets(
  deps: Pick<Deps, 'vault'>,
  tx: Sql,
  app: SealedAppSecrets,
  input: ProviderAppUpdate,
): Promise<void> {
  const secretVersion = app.secretVersion + 1;
  const open = (column: Parameters<typeof openAppSecret>[3]) => openAppSecret(deps.vault, tx, app, column);
  const [client, formerClient, webhook, formerWebhook] = [
    await open('clientSecret'),
    await open('formerClientSecret'),
    await open('webhookSecret'),
    await open('formerWebhookSecret'),
  ];
  // The seals are bound to the version, so every secret of the app is sealed again.
  const sealed = await sealAppSecrets(
    deps.vault,
    tx,
    { id: app.id, secretVersion },
    {
      clientSecret: input.clientSecret ? new Secret(input.clientSecret) : client,
      formerClientSecret: input.clientSecret ? client : formerClient,
      webhookSecret: input.webhookSecret ? new Secret(input.webhookSecret) : webhook,
      formerWebhookSecret: input.webhookSecret ? webhook : formerWebhook,
    },
  );
  const retiresAt = input.retireFormerSecretAt ?? null;
  // A new client secret may be what an open incident waits for: it is tried at once.
  await tx.query(sql`
    UPDATE provider_app SET secret_version = ${secretVersion},
      sealed_client_secret = ${sealed.clientSecret}, sealed_former_client_secret = ${sealed.formerClientSecret},
      sealed_webhook_secret = ${sealed.webhookSecret}, sealed_former_webhook_secret = ${sealed.formerWebhookSecret},
      client_secret_set_at = CASE WHEN ${Boolean(input.clientSecret)} THEN now() ELSE client_secret_set_at END,
      former_client_secret_retires_at = CASE WHEN ${Boolean(input.clientSecret)}
        THEN coalesce(${retiresAt}::timestamptz, now() + make_interval(hours => ${DEFAULT_RETIREMENT_HOURS}))
        ELSE former_client_secret_retires_at END,
      webhook_secret_set_at = CASE WHEN ${Boolean(input.webhookSecret)} THEN now() ELSE webhook_secret_set_at END,
      former_webhook_secret_retires_at = CASE WHEN ${Boolean(input.webhookSecret)}
        THEN coalesce(${retiresAt}::timestamptz, now() + make_interval(hours => ${DEFAULT_RETIREMENT_HOURS}))
        ELSE former_webhook_secret_retires_at END,
      incident_retry_at = CASE WHEN ${Boolean(input.clientSecret)} AND incident_reason IS NOT NULL THEN now()
        ELSE incident_retry_at END
    WHERE id = ${app.id}::uuid`);
}

interface ScopedGrant extends HealthColumns {
  id: string;
  tenantId: string;
  grantedScopes: string[];
}

async function replaceScopes(
  tx: Sql,
  appId: string,
  scopes: { required: string[]; optional: string[] },
): Promise<void> {
  await tx.query(sql`
    UPDATE provider_app SET required_scopes = ${scopes.required}::text[], optional_scopes = ${scopes.optional}::text[]
    WHERE id = ${appId}::uuid`);
  const grants = await tx.query<ScopedGrant>(sql`
    SELECT id, tenant_id AS "tenantId", granted_scopes AS "grantedScopes", health_status AS "healthStatus",
      health_reason AS "healthReason"
    FROM provider_grant WHERE app_id = ${appId}::uuid ORDER BY id FOR UPDATE`);
  const transitions = [];
  for (const grant of grants) {
    const missing = missingScopes(scopes.required, grant.grantedScopes);
    await tx.query(sql`UPDATE provider_grant SET missing_scopes = ${missing}::text[] WHERE id = ${grant.id}::uuid`);
    const previous = healthFrom(grant);
    const next = nextHealth(previous, { kind: 'required', missingScopes: missing });
    transitions.push({ grantId: grant.id, tenantId: grant.tenantId, previous, next });
  }
  await recordTransitions(tx, transitions);
}

/**
 * Removes an app that no live connection uses, with what is left of its ended ones. Their events stay.
 *
 * @throws {ProviderAppInUseError} connections still use it.
 */
export async function removeProviderApp(deps: Pick<Deps, 'db'>, id: string): Promise<string> {
  await deps.db.transaction(async (tx) => {
    const [app] = await tx.query(sql`SELECT id FROM provider_app WHERE id = ${id}::uuid FOR UPDATE`);
    if (app === undefined) throw new NotFoundError('No such provider app exists.');
    const [live] = await tx.query<{ count: number }>(sql`
      SELECT count(*) AS count FROM provider_grant
      WHERE app_id = ${id}::uuid AND health_status <> 'REVOKED'`);
    // Revocations that have just begun, and consents about to be completed, need the app's secret. Revocations that the
    // provider refuses again and again do not keep the app: it may be gone there.
    const [pending] = await tx.query<{ count: number }>(sql`
      SELECT (SELECT count(*) FROM provider_revocation WHERE app_id = ${id}::uuid AND attempts < ${HOPELESS_ATTEMPTS})
        + (SELECT count(*) FROM authorization_session
          WHERE app_id = ${id}::uuid AND status = 'AWAITING_COMPLETION' AND expires_at > now()) AS count`);
    const inUse = (live?.count ?? 0) + (pending?.count ?? 0);
    if (inUse > 0) throw new ProviderAppInUseError(inUse);
    await tx.query(sql`DELETE FROM provider_grant WHERE app_id = ${id}::uuid`);
    await tx.query(sql`DELETE FROM provider_app WHERE id = ${id}::uuid`);
  });
  return id;
}

/** Where the provider sends the browser back to; distinct for each app. */
export const redirectUriOf = (publicUrl: string, appKey: string): string => `${publicUrl}/oauth/callback/${appKey}`;

/** Where the provider delivers events; distinct for each app. */
export const webhookUrlOf = (publicUrl: string, appKey: string): string => `${publicUrl}/webhooks/zoom/${appKey}`;
