import { randomUUID } from 'node:crypto';
import sql, { join } from 'sql-template-tag';
import type { Sql, SqlFragment } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { HEALTH_TOPIC } from '../feed/feed.js';
import type { GrantKind } from '../generated/prisma/enums.js';
import { VaultOpenError } from '../vault/errors.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { destroyCredential, lockGrant, surrenderTokens } from './grant.js';
import { nextHealth } from './health.js';
import { recordTransitions, type Transition } from './health-event.js';
import { revokePending } from './revocation.js';

/** Grants that are ended in one transaction. */
const BATCH = 100;
/** Grants that one statement finds out to be covered. */
const COVERED_AT_ONCE = 20_000;
/** How long a request ends grants itself; what is left then is done by the scheduler. */
const AT_ONCE_MS = 5_000;

interface Ended {
  transitions: Transition[];
  /** False: its tokens could not be opened, so the provider can never be told which to revoke. */
  surrendered: boolean;
}

/**
 * Ends one grant on our side within the caller's transaction: its tokens are moved to the revocations that wait for the
 * provider, the credential is destroyed, a running refresh finds nothing to commit to.
 *
 * @returns the transition to record; none where it had ended before.
 */
async function disconnect(deps: Pick<Deps, 'vault' | 'log'>, tx: Sql, grantId: string): Promise<Ended> {
  const grant = await lockGrant(tx, grantId);
  if (grant === undefined || grant.health.status === 'REVOKED') return { transitions: [], surrendered: true };
  let surrendered = true;
  try {
    await surrenderTokens(deps, tx, grant);
  } catch (error) {
    // Nobody can read these tokens any more. That must not keep the grant alive here.
    if (!(error instanceof VaultOpenError)) throw error;
    surrendered = false;
    deps.log.error('a grant is ended whose tokens cannot be opened', { grantId, tenantId: grant.tenantId }, error);
  }
  await destroyCredential(tx, grantId);
  const next = nextHealth(grant.health, { kind: 'ended', reason: 'DISCONNECTED' });
  return { transitions: [{ grantId, tenantId: grant.tenantId, previous: grant.health, next }], surrendered };
}

interface OpenReceipt {
  id: string;
  grantId: string | null;
}

/**
 * Ends the grants of receipts that the caller's transaction has made or locked, and records the events. A grant that has
 * nothing left for the provider to confirm is confirmed with it.
 */
async function endCovered(deps: Pick<Deps, 'vault' | 'log'>, tx: Sql, receipts: readonly OpenReceipt[]): Promise<void> {
  const transitions: Transition[] = [];
  const unconfirmable: string[] = [];
  // In one order, so that two transactions which share grants do not wait for each other.
  for (const { id, grantId } of receipts.toSorted((a, b) => ((a.grantId ?? '') < (b.grantId ?? '') ? -1 : 1))) {
    if (grantId === null) continue;
    const ended = await disconnect(deps, tx, grantId);
    transitions.push(...ended.transitions);
    if (!ended.surrendered) unconfirmable.push(id);
  }
  await tx.query(sql`
    UPDATE revocation_receipt r SET ended_at = now(),
      confirmed_at = CASE WHEN r.id = ANY(${unconfirmable}::uuid[])
        OR EXISTS (SELECT 1 FROM provider_revocation p WHERE p.grant_id = r.grant_id) THEN NULL ELSE now() END
    WHERE r.id = ANY(${receipts.map(({ id }) => id)}::uuid[])`);
  await recordTransitions(tx, transitions);
}

/** Makes a revocation with a receipt for each of these grants that has not ended yet; none where all have. */
async function requestFor(tx: Sql, grantIds: readonly string[]): Promise<OpenReceipt[]> {
  const grants = await tx.query<{ id: string }>(sql`
    SELECT id FROM provider_grant WHERE id = ANY(${grantIds}::uuid[]) AND health_status <> 'REVOKED'
    ORDER BY id FOR UPDATE`);
  if (grants.length === 0) return [];
  const revocationId = randomUUID();
  await tx.query(sql`INSERT INTO revocation (id, total) VALUES (${revocationId}::uuid, ${grants.length})`);
  return tx.query<OpenReceipt>(sql`
    INSERT INTO revocation_receipt (id, revocation_id, grant_id)
    SELECT gen_random_uuid(), ${revocationId}::uuid, id FROM unnest(${grants.map(({ id }) => id)}::uuid[]) AS grants(id)
    RETURNING id, grant_id AS "grantId"`);
}

/**
 * Ends a grant at once on our side and, as soon as it answers, at the provider.
 *
 * @param input `includeUsers`: for an installation, also the user connections in the same provider account.
 * @throws {NotFoundError} there is no grant of this kind with this id.
 */
export async function revokeGrant(
  deps: Deps,
  input: { id: string; kind: GrantKind; includeUsers: boolean },
): Promise<string> {
  await deps.db.transaction(async (tx) => {
    const [grant] = await tx.query<{ tenantId: string; accountId: string }>(sql`
      SELECT tenant_id AS "tenantId", provider_account_id AS "accountId" FROM provider_grant
      WHERE id = ${input.id}::uuid AND kind = ${input.kind}::"GrantKind"`);
    if (grant === undefined) throw new NotFoundError('No such connection exists.');
    const users = input.includeUsers
      ? await tx.query<{ id: string }>(sql`
          SELECT id FROM provider_grant
          WHERE tenant_id = ${grant.tenantId}::uuid AND kind = 'USER_CONNECTION'
            AND provider_account_id = ${grant.accountId} ORDER BY id`)
      : [];
    const receipts = await requestFor(tx, [input.id, ...users.map((user) => user.id)]);
    if (receipts.length > 0) await endCovered(deps, tx, receipts);
  });
  deps.feed.publish(HEALTH_TOPIC);
  void revokePending(deps);
  return input.id;
}

/** Which grants a revocation covers; all that are given must hold. Times are those of the present consents. */
export interface RevocationScope {
  appId?: string | null | undefined;
  /** The product's identifier. */
  tenantId?: string | null | undefined;
  /** Inclusive. */
  connectedAfter?: Date | null | undefined;
  /** Exclusive. */
  connectedBefore?: Date | null | undefined;
}

/**
 * Ends every grant that matches and has not ended: break-glass. Which grants they are is settled and stored before the
 * first one ends, so that any process can go on after a crash. The caller waits until all have ended on our side, or 5
 * seconds; the scheduler does the rest, and tells the provider until it confirms.
 *
 * @returns the revocation's id.
 * @throws {InvalidInputError} nothing restricts it, or no time lies between the two.
 * @throws {NotFoundError} there is no such app or tenant.
 */
export async function revokeGrants(deps: Deps, scope: RevocationScope): Promise<string> {
  const conditions = join([sql`health_status <> 'REVOKED'`, ...(await conditionsOf(deps, scope))], ' AND ');
  const id = await deps.db.transaction((tx) => settleCovered(tx, conditions));
  deps.log.warn('a revocation of many grants was requested', { operation: 'revokeGrants' });
  const deadline = performance.now() + AT_ONCE_MS;
  try {
    while ((await endRequested(deps)) && performance.now() < deadline);
  } catch (error) {
    // The request is stored: the scheduler goes on with it.
    deps.log.error('a revocation is not done yet', { operation: 'revokeGrants' }, error);
  }
  return id;
}

/** Makes a revocation of the grants that match. @returns its id. */
async function settleCovered(tx: Sql, conditions: SqlFragment): Promise<string> {
  const id = randomUUID();
  await tx.query(sql`INSERT INTO revocation (id, total) VALUES (${id}::uuid, 0)`);
  await coverGrants(tx, id, conditions);
  noteAudit(tx, { subject: `Revocation:${id}` });
  return id;
}

/**
 * Adds the grants that match to a revocation which the caller's transaction has made or locked, in statements that each
 * stay far below the time limit. Those that it covers already are left out. `endRequested` ends them.
 */
export async function coverGrants(tx: Sql, revocationId: string, conditions: SqlFragment): Promise<void> {
  let total = 0;
  let last: string | null = null;
  for (let count = COVERED_AT_ONCE; count === COVERED_AT_ONCE;) {
    const [page]: { count: number; last: string | null }[] = await tx.query(sql`
      WITH covered AS (
        SELECT id FROM provider_grant
        WHERE (${last}::uuid IS NULL OR id > ${last}::uuid) AND ${conditions}
          AND NOT EXISTS (SELECT 1 FROM revocation_receipt r
            WHERE r.grant_id = provider_grant.id AND r.revocation_id = ${revocationId}::uuid)
        ORDER BY id LIMIT ${COVERED_AT_ONCE}
      ), receipts AS (
        INSERT INTO revocation_receipt (id, revocation_id, grant_id)
        SELECT gen_random_uuid(), ${revocationId}::uuid, id FROM covered
      )
      SELECT count(*) AS count, (SELECT id FROM covered ORDER BY id DESC LIMIT 1) AS last FROM covered`);
    count = page?.count ?? 0;
    total += count;
    last = page?.last ?? null;
  }
  await tx.query(sql`UPDATE revocation SET total = total + ${total} WHERE id = ${revocationId}::uuid`);
}

async function conditionsOf(deps: Pick<Deps, 'db'>, scope: RevocationScope): Promise<SqlFragment[]> {
  const { appId, tenantId, connectedAfter, connectedBefore } = scope;
  const conditions: SqlFragment[] = [];
  if (isGiven(connectedAfter)) conditions.push(sql`authorized_at >= ${connectedAfter}::timestamptz`);
  if (isGiven(connectedBefore)) conditions.push(sql`authorized_at < ${connectedBefore}::timestamptz`);
  if (isGiven(connectedAfter) && isGiven(connectedBefore) && connectedAfter >= connectedBefore) {
    throw new InvalidInputError('No time lies between the two.', ['input', 'connectedBefore']);
  }
  if (isGiven(appId)) {
    const [app] = await deps.db.query(sql`SELECT id FROM provider_app WHERE id = ${appId}::uuid`);
    if (app === undefined) throw new NotFoundError('No such provider app exists.');
    conditions.push(sql`app_id = ${appId}::uuid`);
  }
  if (isGiven(tenantId)) {
    const [tenant] = await deps.db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${tenantId}`);
    if (tenant === undefined) throw new NotFoundError('No such tenant exists.');
    conditions.push(sql`tenant_id = ${tenant.id}::uuid`);
  }
  if (conditions.length === 0) throw new InvalidInputError('Name an app, a tenant or a time.', ['input']);
  return conditions;
}

const isGiven = <Value>(value: Value | null | undefined): value is Value => value !== null && value !== undefined;

/**
 * Ends, on our side, a batch of what revocations cover and has not ended yet. Any number of processes may do so at once.
 *
 * @returns whether there may be more to do.
 */
export async function endRequested(deps: Deps): Promise<boolean> {
  const count = await deps.db.transaction(async (tx) => {
    const receipts = await tx.query<OpenReceipt>(sql`
      SELECT id, grant_id AS "grantId" FROM revocation_receipt WHERE ended_at IS NULL
      ORDER BY revocation_id, id LIMIT ${BATCH} FOR UPDATE SKIP LOCKED`);
    if (receipts.length > 0) await endCovered(deps, tx, receipts);
    return receipts.length;
  });
  if (count > 0) {
    deps.feed.publish(HEALTH_TOPIC);
    void revokePending(deps);
  }
  return count === BATCH;
}
