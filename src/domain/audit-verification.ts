import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { Vault } from '../vault/vault.js';
import { type AuditHead, type AuditRecord, detailDigest, eventHash, headSeal, SYSTEM_CHAIN } from './audit-chain.js';
import { type AuditKeys, createAuditKeys } from './audit-key.js';

const PAGE = 1_000;
/** Events behind a wrong one that are looked at for one that belongs in its place. */
const WINDOW = 100;

/**
 * What is wrong with a chain:
 *
 * - `altered`: an event is not what was recorded, or was recorded without the key.
 * - `removed`: an event is missing before others.
 * - `reordered`: another event than the one that was recorded there.
 * - `truncated`: the newest events are missing.
 * - `inserted`: there are events behind the newest one.
 * - `head-altered`: where the chain stands was changed without the key.
 * - `erased`: what an event tells about persons is gone, and its tenant is not deleted.
 * - `rolled-back`: the chain does not hold what an earlier verification has seen of it.
 * - `missing`: the whole chain is gone, and the system's chain says that it was begun.
 */
export type AuditFault =
  | 'altered'
  | 'removed'
  | 'reordered'
  | 'truncated'
  | 'inserted'
  | 'head-altered'
  | 'erased'
  | 'rolled-back'
  | 'missing';

/** Where a chain stood when it was verified. Kept elsewhere, it shows later that nothing was rolled back. */
export interface KnownHead {
  sequence: number;
  /** Hexadecimal. */
  hash: string;
}

export interface ChainVerification {
  /** `system`, or the tenant's row. */
  chain: string;
  /** The product's identifier; null for the system's chain and for a tenant that was deleted. */
  tenantExternalId: string | null;
  /** Events that were verified. */
  count: number;
  /** Events before this one have served their time. */
  firstSequence: number;
  head: KnownHead;
  /** The first thing that is wrong; null: nothing is. */
  fault: { sequence: number; kind: AuditFault } | null;
}

type StoredHead = AuditHead & { seal: Uint8Array };

interface StoredEvent extends AuditRecord {
  externalUserId: string | null;
  clientAddress: string | null;
  salt: Uint8Array | null;
  hash: Uint8Array;
}

const readHeads = (db: Sql, chainId: string | null): Promise<(StoredHead & { externalId: string | null })[]> =>
  db.query(sql`
    SELECT c.id, c.sequence, c.hash, c.recorded_at AS "recordedAt", c.anchor_sequence AS "anchorSequence",
      c.anchor_hash AS "anchorHash", c.closed_at AS "closedAt", c.seal, t.external_id AS "externalId"
    FROM audit_chain c LEFT JOIN tenant t ON t.id = c.id
    WHERE (${chainId}::uuid IS NULL OR c.id = ${chainId}::uuid) ORDER BY c.id`);

const readEvents = (db: Sql, chainId: string, after: number): Promise<StoredEvent[]> =>
  db.query<StoredEvent>(sql`
    SELECT chain_id AS "chainId", sequence, recorded_at AS "recordedAt", occurred_at AS "occurredAt",
      last_occurred_at AS "lastOccurredAt", action, outcome, principal_kind AS "principalKind",
      principal_id AS "principalId", subject, grant_id AS "grantId", credential_version AS "credentialVersion", count,
      reason, reference, external_user_id AS "externalUserId", client_address AS "clientAddress", detail_salt AS salt,
      detail_digest AS "detailDigest", hash
    FROM audit_event WHERE chain_id = ${chainId}::uuid AND sequence > ${after} ORDER BY sequence LIMIT ${PAGE}`);

const hexOf = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');
const isSame = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0;

/** @returns what is wrong with an event by itself, where it follows on `previous`; null: nothing. */
function faultOf(key: Uint8Array, head: StoredHead, previous: Uint8Array, event: StoredEvent): AuditFault | null {
  if (!isSame(eventHash(key, previous, event), event.hash)) return 'altered';
  const { salt, detailDigest: digest, externalUserId, clientAddress } = event;
  if (salt === null && externalUserId === null && clientAddress === null) {
    return digest === null || head.closedAt !== null ? null : 'erased';
  }
  return salt !== null && digest !== null && isSame(detailDigest(salt, event), digest) ? null : 'altered';
}

/** Whether an event further on is the one that was recorded in this place. */
const isElsewhere = (key: Uint8Array, previous: Uint8Array, sequence: number, others: readonly StoredEvent[]) =>
  others.some((other) => isSame(eventHash(key, previous, { ...other, sequence }), other.hash));

interface Walk {
  count: number;
  fault: ChainVerification['fault'];
  /** The hash of the event that an earlier verification ended with; null: it is not there. */
  knownHash: string | null;
}

/** Goes from the anchor to the head. Events that are appended meanwhile are left alone. */
async function walk(db: Sql, key: Uint8Array, head: StoredHead, known: KnownHead | undefined): Promise<Walk> {
  let [previous, sequence] = [head.anchorHash, head.anchorSequence];
  let knownHash = known?.sequence === sequence ? hexOf(previous) : null;
  const at = (kind: AuditFault, wrong = sequence + 1): Walk => ({
    count: sequence - head.anchorSequence,
    fault: { sequence: wrong, kind },
    knownHash,
  });
  for (let page = await readEvents(db, head.id, sequence); ; page = await readEvents(db, head.id, sequence)) {
    for (const [index, event] of page.entries()) {
      if (sequence === head.sequence) break;
      const rest = page.slice(index + 1, index + 1 + WINDOW);
      if (event.sequence !== sequence + 1) return at('removed');
      const fault = faultOf(key, head, previous, event);
      if (fault === 'altered' && isElsewhere(key, previous, event.sequence, rest)) return at('reordered');
      if (fault !== null) return at(fault);
      previous = event.hash;
      sequence = event.sequence;
      if (known?.sequence === sequence) knownHash = hexOf(previous);
    }
    if (page.length < PAGE || sequence === head.sequence) break;
  }
  if (sequence < head.sequence) return at('truncated');
  if (!isSame(previous, head.hash)) return at('head-altered', sequence);
  return { count: sequence - head.anchorSequence, fault: null, knownHash };
}

async function verifyChain(
  db: Sql,
  key: Uint8Array,
  head: StoredHead,
  known: KnownHead | undefined,
): Promise<Pick<ChainVerification, 'count' | 'fault'>> {
  const { count, fault, knownHash } = await walk(db, key, head, known);
  if (fault !== null) return { count, fault };
  if (!isSame(headSeal(key, head), head.seal)) {
    return { count, fault: { sequence: head.sequence, kind: 'head-altered' } };
  }
  // What is behind the head by now may have been appended meanwhile, but then the head has moved on as well.
  const [beyond] = await db.query<{ sequence: number }>(sql`
    SELECT e.sequence FROM audit_event e JOIN audit_chain c ON c.id = e.chain_id
    WHERE c.id = ${head.id}::uuid AND e.sequence > c.sequence ORDER BY e.sequence LIMIT 1`);
  if (beyond !== undefined) return { count, fault: { sequence: beyond.sequence, kind: 'inserted' } };
  if (known !== undefined && known.sequence >= head.anchorSequence && knownHash !== known.hash) {
    return { count, fault: { sequence: Math.min(known.sequence, head.sequence + 1), kind: 'rolled-back' } };
  }
  return { count, fault: null };
}

/** Retention moves the anchor and removes events while they are read; then it is looked again. */
async function verifyStable(db: Sql, keys: AuditKeys, found: StoredHead, known: KnownHead | undefined) {
  let head = found;
  for (;;) {
    const result = await verifyChain(db, await keys(db, head.id), head, known);
    if (result.fault === null) return { head, ...result };
    const [now] = await readHeads(db, head.id);
    if (now === undefined || now.anchorSequence === head.anchorSequence) return { head, ...result };
    head = now;
  }
}

/** Chains that the system's chain says were begun, and that are gone. */
async function missingChains(db: Sql, tenantId: string | null): Promise<string[]> {
  const begun = await db.query<{ id: string }>(sql`
    SELECT DISTINCT substring(e.subject from 8)::uuid AS id FROM audit_event e
    WHERE e.chain_id = ${SYSTEM_CHAIN}::uuid AND e.action = 'audit.chain_begun'
      AND (${tenantId}::uuid IS NULL OR e.subject = 'Tenant:' || ${tenantId}::text)
      AND NOT EXISTS (SELECT 1 FROM audit_chain c WHERE c.id = substring(e.subject from 8)::uuid)`);
  return begun.map(({ id }) => id);
}

/**
 * Verifies the audit trail: that no event was altered, removed, put elsewhere or added without the key, from the first
 * that is kept to the newest. Reads only, page by page, and may run beside the server.
 *
 * That a whole chain was put back to an earlier state, with its head, shows only by comparison with what an earlier
 * verification has answered: give its heads as `knownHeads`, by `chain`.
 *
 * @param options `tenantId`: the row of the only tenant to look at; absent: all, and the system's own chain.
 * @throws {VaultUnavailableError} the key of the trail cannot be opened.
 */
export async function verifyAudit(
  { db, vault }: { db: Sql; vault: Vault },
  options: { tenantId?: string; knownHeads?: Readonly<Record<string, KnownHead>> } = {},
): Promise<ChainVerification[]> {
  const { tenantId = null, knownHeads = {} } = options;
  const keys = createAuditKeys(vault);
  const verified: ChainVerification[] = [];
  const nameOf = (id: string) => (id === SYSTEM_CHAIN ? 'system' : id);
  for (const { externalId, ...found } of await readHeads(db, tenantId)) {
    const chain = nameOf(found.id);
    const { head, count, fault } = await verifyStable(db, keys, found, knownHeads[chain]);
    verified.push({
      chain,
      tenantExternalId: externalId?.includes(' ') ? null : externalId,
      count,
      firstSequence: head.anchorSequence + 1,
      head: { sequence: head.sequence, hash: hexOf(head.hash) },
      fault,
    });
  }
  const there = new Set(verified.map(({ chain }) => chain));
  const known = Object.keys(knownHeads).filter((chain) => tenantId === null || chain === tenantId);
  const gone = [...(await missingChains(db, tenantId)), ...known].filter((chain) => !there.has(chain));
  for (const chain of new Set(gone)) {
    const head = knownHeads[chain] ?? { sequence: 0, hash: '' };
    const fault = { sequence: 1, kind: 'missing' as const };
    verified.push({ chain, tenantExternalId: null, count: 0, firstSequence: 1, head, fault });
  }
  return verified;
}
