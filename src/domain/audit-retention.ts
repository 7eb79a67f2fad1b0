import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { noteAudit } from './audit.js';
import { SYSTEM_CHAIN } from './audit-chain.js';
import type { Deps } from './deps.js';

const ROWS_AT_ONCE = 1_000;
const CHAINS_AT_ONCE = 100;

/**
 * Removes audit events that are older than the retention, from the start of each chain. First the chain moves its anchor
 * past them, which is an event of its own and keeps the hash that the next event follows on; only then may they go. They
 * are removed by a function of the database, because the role that the server works as may not.
 */
export async function pruneAudit(deps: Pick<Deps, 'db' | 'log'>, retentionDays: number): Promise<void> {
  for (;;) {
    const due = await deps.db.query<{ id: string }>(sql`
      SELECT c.id FROM audit_chain c
      WHERE EXISTS (SELECT 1 FROM audit_event e WHERE e.chain_id = c.id AND e.sequence = c.anchor_sequence + 1
        AND e.recorded_at < now() - make_interval(days => ${retentionDays}))
      ORDER BY c.id LIMIT ${CHAINS_AT_ONCE}`);
    for (const { id } of due) await moveAnchor(deps, id, retentionDays);
    if (due.length < CHAINS_AT_ONCE) break;
  }
  // Also what a process that died had still to remove.
  for (;;) {
    const [removed] = await deps.db.query<{ count: number }>(sql`SELECT prune_audit_events(${ROWS_AT_ONCE}) AS count`);
    const count = removed?.count ?? 0;
    if (count === 0) return;
    deps.log.info('audit events that have served their time were removed', { count });
  }
}

async function moveAnchor(deps: Pick<Deps, 'db'>, chainId: string, retentionDays: number): Promise<void> {
  await deps.db.transaction(async (tx) => {
    const [last] = await tx.query<{ sequence: number; hash: Uint8Array }>(sql`
      SELECT e.sequence, e.hash FROM audit_event e JOIN audit_chain c ON c.id = e.chain_id
      WHERE e.chain_id = ${chainId}::uuid AND e.sequence > c.anchor_sequence
        AND e.recorded_at < now() - make_interval(days => ${retentionDays})
      ORDER BY e.sequence DESC LIMIT 1`);
    if (last === undefined) return;
    noteAudit(tx, {
      tenantId: chainId === SYSTEM_CHAIN ? null : chainId,
      action: 'audit.pruned',
      reference: String(last.sequence),
      chain: { anchor: last },
    });
  });
}

/** Ends the chain of a tenant that is being deleted: from then on nothing about persons is added to it. */
export async function closeChain(tx: Sql, tenantId: string): Promise<void> {
  const [open] = await tx.query(sql`
    SELECT id FROM audit_chain WHERE id = ${tenantId}::uuid AND closed_at IS NULL`);
  if (open === undefined) return;
  noteAudit(tx, { tenantId, action: 'tenant.deleted', subject: `Tenant:${tenantId}`, chain: { closes: true } });
}

/** Erases what the events of a closed chain tell about persons. @returns how many events. */
export async function eraseDetails(tx: Sql, tenantId: string): Promise<number> {
  const [erased] = await tx.query<{ count: number }>(sql`
    SELECT erase_audit_details(${tenantId}::uuid, ${ROWS_AT_ONCE}) AS count`);
  return erased?.count ?? 0;
}

/** Writes where a closed chain ended into the system's chain, so that its end is proved also when it is pruned. */
export async function noteEndOfChain(tx: Sql, tenantId: string): Promise<void> {
  const [end] = await tx.query<{ sequence: number; hash: Uint8Array }>(sql`
    SELECT sequence, hash FROM audit_chain WHERE id = ${tenantId}::uuid`);
  const reference = end && `${end.sequence}:${Buffer.from(end.hash).toString('hex')}`;
  noteAudit(tx, {
    tenantId: null,
    action: 'tenant.deleted',
    subject: `Tenant:${tenantId}`,
    ...(reference === undefined ? {} : { reference }),
  });
}
