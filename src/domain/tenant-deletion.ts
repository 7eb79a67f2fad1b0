import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import { noteAudit } from './audit.js';
import { closeChain, eraseDetails, noteEndOfChain } from './audit-retention.js';
import type { Deps } from './deps.js';
import { coverGrants, endRequested } from './revocation-request.js';
import { revokePending } from './revocation.js';
import { handOverQueued } from './revocation-queue.js';

/** While another process ends the last grants, it is looked again this often. */
const POLL_MS = 50;
const ROWS_AT_ONCE = 1_000;
/** How far back a process looks for destroyed keys, beyond its last look: longer than a transaction may be open. */
const OVERLAP_SECONDS = 60;

interface Deletion {
  id: string;
  tenantId: string;
  revocationId: string;
}

/**
 * Deletes a tenant: from the moment the request is stored it is unknown to the API and takes in nothing. Then every grant
 * is ended and its tokens are handed over to be revoked at the provider, sealed with the system key; then the tenant's
 * keys are destroyed, so that nothing which its keys have sealed can be read again; then its rows are removed.
 *
 * Resolves when all that is done; the provider is told in the background until it confirms. If the caller or the process
 * goes away, the scheduler goes on. A repeated request joins the one that is under way.
 *
 * @param input `confirm`: the tenant's identifier once more.
 * @returns the deletion's id.
 * @throws {InvalidInputError} `confirm` is something else.
 * @throws {NotFoundError} there is no such tenant.
 */
export async function deleteTenant(deps: Deps, input: { tenantId: string; confirm: string }): Promise<string> {
  if (input.confirm !== input.tenantId) {
    throw new InvalidInputError('Repeat the tenantId to confirm that the tenant is to be deleted.', [
      'input',
      'confirm',
    ]);
  }
  const deletion = await deps.db.transaction((tx) => request(tx, input.tenantId));
  deps.log.warn('the deletion of a tenant was requested', { tenantId: deletion.tenantId, operation: 'deleteTenant' });
  await carryOut(deps, deletion);
  return deletion.id;
}

/**
 * Stores the request. Nothing is added to the tenant from then on. Locks nothing but the tenant, which others lock after
 * their grants.
 */
async function request(tx: Sql, externalId: string): Promise<Deletion> {
  // Waits for those who are storing something for the tenant, and keeps others out.
  const [tenant] = await tx.query<{ id: string }>(sql`
    SELECT id FROM tenant WHERE external_id = ${externalId} AND closed_at IS NULL FOR UPDATE`);
  if (tenant === undefined) {
    const [running] = await tx.query<Deletion>(sql`
      SELECT id, tenant_id AS "tenantId", revocation_id AS "revocationId" FROM tenant_deletion
      WHERE tenant_external_id = ${externalId} AND completed_at IS NULL ORDER BY requested_at DESC LIMIT 1`);
    if (running === undefined) throw new NotFoundError('No such tenant exists.');
    return running;
  }
  // No identifier may have a space, so nobody finds the tenant by this one, and its own is free again.
  await tx.query(sql`
    UPDATE tenant SET closed_at = now(), external_id = ${`closed ${tenant.id}`} WHERE id = ${tenant.id}::uuid`);
  const revocationId = randomUUID();
  await tx.query(sql`INSERT INTO revocation (id, total) VALUES (${revocationId}::uuid, 0)`);
  const id = randomUUID();
  await tx.query(sql`
    INSERT INTO tenant_deletion (id, tenant_id, tenant_external_id, revocation_id)
    VALUES (${id}::uuid, ${tenant.id}::uuid, ${externalId}, ${revocationId}::uuid)`);
  return { id, tenantId: tenant.id, revocationId };
}

/** Every step may be repeated, and taken by several processes at once. */
async function carryOut(deps: Deps, deletion: Deletion): Promise<void> {
  const { tenantId } = deletion;
  await deps.db.transaction((tx) => cover(tx, deletion));
  while (await hasUnended(deps.db, deletion)) if (!(await endRequested(deps))) await deps.clock.sleep(POLL_MS);
  while (await deps.db.transaction((tx) => handOverQueued(deps, tx, tenantId)));
  await destroyKeys(deps, deletion);
  void revokePending(deps);
  await deps.db.transaction((tx) => closeChain(tx, tenantId));
  while ((await deps.db.transaction((tx) => eraseDetails(tx, tenantId))) > 0);
  await removeRows(deps, deletion);
  deps.feed.publish(HEALTH_TOPIC);
  deps.log.warn('a tenant was deleted', { tenantId });
}

/** Every grant that is live, or that the provider has not confirmed the end of. The tenant gets no others any more. */
async function cover(tx: Sql, { tenantId, revocationId }: Deletion): Promise<void> {
  await tx.query(sql`SELECT id FROM revocation WHERE id = ${revocationId}::uuid FOR UPDATE`);
  await coverGrants(
    tx,
    revocationId,
    sql`tenant_id = ${tenantId}::uuid AND (health_status <> 'REVOKED'
      OR EXISTS (SELECT 1 FROM provider_revocation r WHERE r.grant_id = provider_grant.id))`,
  );
}

async function hasUnended(db: Sql, { revocationId }: Deletion): Promise<boolean> {
  const rows = await db.query(sql`
    SELECT id FROM revocation_receipt WHERE revocation_id = ${revocationId}::uuid AND ended_at IS NULL LIMIT 1`);
  return rows.length > 0;
}

/**
 * The tokens that the provider has still to be told about are not sealed with these keys any more; the database would not
 * let the keys go otherwise.
 */
async function destroyKeys(deps: Deps, { id, tenantId }: Deletion): Promise<void> {
  await deps.db.transaction(async (tx) => {
    await tx.query(sql`DELETE FROM credential WHERE tenant_id = ${tenantId}::uuid`);
    await tx.query(sql`DELETE FROM url_signing_key WHERE tenant_id = ${tenantId}::uuid`);
    await tx.query(sql`DELETE FROM webhook_endpoint WHERE tenant_id = ${tenantId}::uuid`);
    await tx.query(sql`DELETE FROM tenant_key WHERE tenant_id = ${tenantId}::uuid`);
    const [destroyed] = await tx.query(sql`
      UPDATE tenant_deletion SET keys_destroyed_at = now() WHERE id = ${id}::uuid AND keys_destroyed_at IS NULL
      RETURNING id`);
    if (destroyed !== undefined) {
      noteAudit(tx, { tenantId, action: 'tenant_key.destroyed', subject: `Tenant:${tenantId}` });
    }
  });
  deps.vault.forgetKeys(tenantId);
}

async function removeRows(deps: Pick<Deps, 'db'>, { id, tenantId }: Deletion): Promise<void> {
  const remove = async (step: (tx: Sql) => Promise<number>) => {
    while ((await deps.db.transaction(step)) === ROWS_AT_ONCE);
  };
  await remove(async (tx) => {
    const rows = await tx.query(sql`
      DELETE FROM health_event WHERE id IN (
        SELECT id FROM health_event WHERE tenant_id = ${tenantId}::uuid LIMIT ${ROWS_AT_ONCE}) RETURNING id`);
    return rows.length;
  });
  await remove((tx) => removeGrants(tx, tenantId));
  await deps.db.transaction(async (tx) => {
    await tx.query(sql`DELETE FROM tenant WHERE id = ${tenantId}::uuid`);
    const [completed] = await tx.query(sql`
      UPDATE tenant_deletion SET completed_at = now() WHERE id = ${id}::uuid AND completed_at IS NULL RETURNING id`);
    if (completed !== undefined) await noteEndOfChain(tx, tenantId);
  });
}

/** Receipts and queued tokens keep knowing which of them belong together. */
async function removeGrants(tx: Sql, tenantId: string): Promise<number> {
  const grants = await tx.query<{ id: string }>(sql`
    SELECT id FROM provider_grant WHERE tenant_id = ${tenantId}::uuid ORDER BY id LIMIT ${ROWS_AT_ONCE} FOR UPDATE`);
  const ids = grants.map((grant) => grant.id);
  await tx.query(sql`
    UPDATE revocation_receipt SET former_grant_id = grant_id WHERE grant_id = ANY(${ids}::uuid[])`);
  await tx.query(sql`
    UPDATE provider_revocation SET former_grant_id = grant_id WHERE grant_id = ANY(${ids}::uuid[])`);
  await tx.query(sql`DELETE FROM provider_grant WHERE id = ANY(${ids}::uuid[])`);
  return grants.length;
}

/** Goes on with deletions that were interrupted. */
export async function finishDeletions(deps: Deps): Promise<void> {
  const unfinished = await deps.db.query<Deletion>(sql`
    SELECT id, tenant_id AS "tenantId", revocation_id AS "revocationId" FROM tenant_deletion
    WHERE completed_at IS NULL ORDER BY requested_at`);
  for (const deletion of unfinished) {
    try {
      await carryOut(deps, deletion);
    } catch (error) {
      // One that cannot be done now, say because a key cannot be unwrapped, keeps no other waiting.
      deps.log.error('the deletion of a tenant is not done yet', { tenantId: deletion.tenantId }, error);
    }
  }
}

/** @returns what makes this process forget keys that any process has destroyed. Run it every few seconds. */
export function createKeyForgetter(deps: Pick<Deps, 'db' | 'vault'>): () => Promise<void> {
  let seen: Date | null = null;
  return async () => {
    const [clock] = await deps.db.query<{ now: Date }>(sql`SELECT now() AS now`);
    const destroyed = await deps.db.query<{ tenantId: string }>(sql`
      SELECT tenant_id AS "tenantId" FROM tenant_deletion
      WHERE keys_destroyed_at > coalesce(${seen}::timestamptz, now()) - make_interval(secs => ${OVERLAP_SECONDS})`);
    for (const { tenantId } of destroyed) deps.vault.forgetKeys(tenantId);
    seen = clock?.now ?? seen;
  };
}
