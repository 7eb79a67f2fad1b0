import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { WebhookSender } from '../outgoing/webhook-sender.js';
import type { Secret } from '../secret.js';
import type { Sealed } from '../vault/vault.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { holdTenant } from './revocation-queue.js';
import { requireName, requireTenant } from './tenant.js';
import { freshSecret, openSecrets, sealSecrets } from './webhook-secret.js';

const MAX_URL = 2_000;
/** Each event makes a row for each endpoint that is told of it. */
const MAX_ENDPOINTS = 20;
const DEFAULT_RETIREMENT_HOURS = 24;
const MAX_RETIREMENT_DAYS = 30;

type EndpointDeps = Pick<Deps, 'db' | 'vault' | 'log'> & { webhookSender: WebhookSender };

/** Whose endpoints a caller may name: those of one tenant; null: any. */
export interface EndpointReach {
  onlyTenantId: string | null;
}

const notFound = () => new NotFoundError('No such webhook endpoint exists.');

/** @returns the address as the URL standard writes it. */
function requireUrl({ webhookSender }: EndpointDeps, value: string): string {
  const refuse = (message: string) => new InvalidInputError(message, ['input', 'url']);
  const url = value.length <= MAX_URL && URL.canParse(value) ? new URL(value) : null;
  if (url === null || url.username !== '' || url.password !== '' || url.hash !== '') {
    throw refuse(`Give a web address of at most ${MAX_URL} characters, without user, password and fragment.`);
  }
  const refusal = webhookSender.refusalOf(url);
  if (refusal === 'INSECURE') throw refuse('Give an https address.');
  if (refusal === 'PRIVATE') throw refuse('Give a public address: private ones must be allowed by the operator.');
  return url.href;
}

/**
 * Makes an endpoint, which is told of what happens from now on.
 *
 * @param input `tenantId`: the product's identifier of the only tenant that it is told about; null: all.
 * @returns the secret as well, which is shown nowhere else.
 * @throws {NotFoundError} no such tenant.
 * @throws {InvalidInputError} nothing could be sent to the address, or there are too many endpoints.
 */
export async function createWebhookEndpoint(
  deps: EndpointDeps,
  { onlyTenantId }: EndpointReach,
  input: { tenantId: string | null; url: string; description: string | null },
): Promise<{ id: string; secret: Secret }> {
  const url = requireUrl(deps, input.url);
  requireName(input.description, ['input', 'description']);
  if (onlyTenantId !== null && input.tenantId === null) {
    throw new InvalidInputError('A key of one tenant makes endpoints of that tenant only; name it.', [
      'input',
      'tenantId',
    ]);
  }
  // No stored id holds a zero character, and the database refuses to be asked for one.
  if (input.tenantId?.includes('\0')) throw new NotFoundError('No such tenant exists.');
  const tenant = input.tenantId === null ? null : await requireTenant(deps.db, input.tenantId);
  const tenantId = tenant?.id ?? null;
  const id = randomUUID();
  const secret = freshSecret();
  await deps.db.transaction(async (tx) => {
    if (tenantId !== null && !(await holdTenant(tx, tenantId))) throw new NotFoundError('No such tenant exists.');
    const [row] = await tx.query<{ count: number }>(sql`
      SELECT count(*)::int AS count FROM webhook_endpoint WHERE tenant_id IS NOT DISTINCT FROM ${tenantId}::uuid`);
    if ((row?.count ?? 0) >= MAX_ENDPOINTS) {
      throw new InvalidInputError(`There are ${MAX_ENDPOINTS} endpoints already; delete one.`, ['input']);
    }
    const owner = { id, tenantId, secretVersion: 1 };
    const sealed = await sealSecrets(deps, tx, owner, { secret, formerSecret: null });
    await tx.query(sql`
      INSERT INTO webhook_endpoint (id, tenant_id, url, description, secret_version, sealed_secret, key_version)
      VALUES (${id}::uuid, ${tenantId}::uuid, ${url}, ${input.description}, 1, ${sealed.secret},
        ${sealed.keyVersion})`);
    noteAudit(tx, { tenantId, subject: `WebhookEndpoint:${id}` });
  });
  return { id, secret };
}

interface EndpointRow {
  tenantId: string | null;
  secretVersion: number;
  sealedSecret: Sealed;
  disabledAt: Date | null;
}

/** Locks it against other changes, not against events that are written meanwhile. */
async function lockEndpoint(tx: Sql, id: string, { onlyTenantId }: EndpointReach): Promise<EndpointRow> {
  const [row] = await tx.query<EndpointRow>(sql`
    SELECT tenant_id AS "tenantId", secret_version AS "secretVersion", sealed_secret AS "sealedSecret",
      disabled_at AS "disabledAt"
    FROM webhook_endpoint
    WHERE id = ${id}::uuid AND (${onlyTenantId}::uuid IS NULL OR tenant_id = ${onlyTenantId}::uuid)
    FOR NO KEY UPDATE`);
  if (row === undefined) throw notFound();
  return row;
}

/**
 * Changes what is given. Disabling holds what is still to be delivered; enabling goes on with it at once. What happens
 * in between is not noted down for the endpoint, and can be replayed.
 *
 * @throws {NotFoundError} no such endpoint, or none of the caller's.
 * @throws {InvalidInputError} nothing could be sent to the address.
 */
export async function updateWebhookEndpoint(
  deps: EndpointDeps,
  reach: EndpointReach,
  input: { id: string; url: string | null; description?: string | null | undefined; enabled: boolean | null },
): Promise<void> {
  const { id, description, enabled } = input;
  const url = input.url === null ? null : requireUrl(deps, input.url);
  requireName(description, ['input', 'description']);
  await deps.db.transaction(async (tx) => {
    const { disabledAt } = await lockEndpoint(tx, id, reach);
    await tx.query(sql`
      UPDATE webhook_endpoint SET url = coalesce(${url}, url),
        description = CASE WHEN ${description !== undefined} THEN ${description ?? null} ELSE description END
      WHERE id = ${id}::uuid`);
    if (enabled === false) await disableEndpoint(tx, id, 'REQUESTED');
    if (enabled === true && disabledAt !== null) await enableEndpoint(tx, id);
  });
}

/** In the caller's transaction. One that is disabled already stays as it is. */
export async function disableEndpoint(tx: Sql, id: string, reason: 'REQUESTED' | 'GONE' | 'FAILING'): Promise<void> {
  const [disabled] = await tx.query(sql`
    UPDATE webhook_endpoint SET disabled_at = now(), disabled_reason = ${reason}::"WebhookEndpointDisabledReason"
    WHERE id = ${id}::uuid AND disabled_at IS NULL RETURNING id`);
  if (disabled === undefined) return;
  await tx.query(sql`
    UPDATE webhook_delivery SET next_attempt_at = NULL WHERE endpoint_id = ${id}::uuid AND status = 'PENDING'`);
}

async function enableEndpoint(tx: Sql, id: string): Promise<void> {
  await tx.query(sql`
    UPDATE webhook_endpoint SET disabled_at = NULL, disabled_reason = NULL, failing_since = NULL
    WHERE id = ${id}::uuid`);
  await tx.query(sql`
    UPDATE webhook_delivery SET next_attempt_at = greatest(now(), lease_until)
    WHERE endpoint_id = ${id}::uuid AND status = 'PENDING'`);
}

/**
 * Gives an endpoint a new secret. The former one signs as well until it retires (24 hours unless told), and one before
 * it no longer.
 *
 * @returns the new secret, which is shown nowhere else.
 * @throws {NotFoundError} no such endpoint, or none of the caller's.
 * @throws {InvalidInputError} the former secret would retire too late.
 */
export async function rotateWebhookEndpointSecret(
  deps: Pick<Deps, 'db' | 'vault' | 'log'>,
  reach: EndpointReach,
  input: { id: string; retireFormerSecretAt: Date | null },
): Promise<Secret> {
  const { id, retireFormerSecretAt } = input;
  const secret = freshSecret();
  await deps.db.transaction(async (tx) => {
    const row = await lockEndpoint(tx, id, reach);
    const [former] = await openSecrets(deps, tx, { ...row, id, sealedFormerSecret: null });
    const owner = { id, tenantId: row.tenantId, secretVersion: row.secretVersion + 1 };
    const sealed = await sealSecrets(deps, tx, owner, { secret, formerSecret: former });
    const [rotated] = await tx.query(sql`
      UPDATE webhook_endpoint SET secret_version = ${owner.secretVersion}, sealed_secret = ${sealed.secret},
        sealed_former_secret = ${sealed.formerSecret}, key_version = ${sealed.keyVersion}, secret_set_at = now(),
        former_secret_retires_at =
          coalesce(${retireFormerSecretAt}::timestamptz, now() + make_interval(hours => ${DEFAULT_RETIREMENT_HOURS}))
      WHERE id = ${id}::uuid AND (${retireFormerSecretAt}::timestamptz IS NULL
        OR ${retireFormerSecretAt}::timestamptz <= now() + make_interval(days => ${MAX_RETIREMENT_DAYS}))
      RETURNING id`);
    if (rotated === undefined) {
      throw new InvalidInputError(`Let the former secret retire within ${MAX_RETIREMENT_DAYS} days.`, [
        'input',
        'retireFormerSecretAt',
      ]);
    }
  });
  return secret;
}

/**
 * Removes an endpoint with its deliveries. An attempt that is under way may still arrive.
 *
 * @throws {NotFoundError} no such endpoint, or none of the caller's.
 */
export async function deleteWebhookEndpoint(
  deps: Pick<Deps, 'db'>,
  { onlyTenantId }: EndpointReach,
  id: string,
): Promise<void> {
  await deps.db.transaction(async (tx) => {
    const [removed] = await tx.query(sql`
      DELETE FROM webhook_endpoint
      WHERE id = ${id}::uuid AND (${onlyTenantId}::uuid IS NULL OR tenant_id = ${onlyTenantId}::uuid) RETURNING id`);
    if (removed === undefined) throw notFound();
  });
}

/** Locks an endpoint that a caller names, in their transaction. @throws {NotFoundError} as above. */
export async function requireEndpoint(
  tx: Sql,
  id: string,
  reach: EndpointReach,
): Promise<{ tenantId: string | null; isEnabled: boolean }> {
  const { tenantId, disabledAt } = await lockEndpoint(tx, id, reach);
  return { tenantId, isEnabled: disabledAt === null };
}

/** Forgets former secrets that have retired. */
export async function forgetRetiredSecrets(deps: Pick<Deps, 'db'>): Promise<void> {
  await deps.db.query(sql`
    UPDATE webhook_endpoint SET sealed_former_secret = NULL, former_secret_retires_at = NULL
    WHERE former_secret_retires_at <= now()`);
}
