import { LRUCache } from 'lru-cache';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { AuditOutcome, AuditPrincipalKind } from '../generated/prisma/enums.js';
import type { Vault } from '../vault/vault.js';
import {
  type AuditHead,
  type AuditRecord,
  commitTo,
  eventHash,
  headSeal,
  NO_HASH,
  SYSTEM_CHAIN,
} from './audit-chain.js';
import { type AuditKeys, createAuditKeys } from './audit-key.js';

/** Chains that are remembered to be there. */
const MAX_KNOWN = 50_000;

/** Who did something, as the trail names them. */
export interface AuditPrincipal {
  kind: AuditPrincipalKind;
  /** The row of the key, session or app; else a word of ours. */
  id: string;
  /** The product's user that a frontend session acts for. */
  externalUserId: string | null;
  clientAddress: string | null;
}

/** An event that is to be recorded. */
export interface AuditEntry {
  /** The tenant's row; null: of no tenant. */
  tenantId: string | null;
  principal: AuditPrincipal;
  action: string;
  outcome?: AuditOutcome;
  subject?: string | null;
  grantId?: string | null;
  credentialVersion?: number | null;
  count?: number;
  reason?: string | null;
  reference?: string | null;
  /** How long ago it was, for what is recorded later than it happened; the last of several, too. Milliseconds. */
  agoMs?: number;
  lastAgoMs?: number;
  /** What the event does to its own chain: closes it for good, or lets go of the events up to one. */
  chain?: { closes: true } | { anchor: { sequence: number; hash: Uint8Array } };
}

/** Appends events to their chains. */
export interface AuditTrail {
  /**
   * Within the caller's transaction, as the last thing it does: the heads of the chains are locked until it ends, in one
   * order, and nothing may be locked behind them.
   *
   * @throws {AuditChainAlteredError} a head is not as it was left. Nothing may be appended to it any more.
   */
  append(tx: Sql, entries: readonly AuditEntry[]): Promise<void>;
}

/** Somebody has changed where a chain stands without its key. */
export class AuditChainAlteredError extends Error {
  constructor(chainId: string) {
    super(`The head of the audit chain ${chainId} was altered.`);
    this.name = 'AuditChainAlteredError';
  }
}

interface LockedHead extends AuditHead {
  seal: Uint8Array;
  now: Date;
}

const BY_ITSELF: AuditPrincipal = { kind: 'SYSTEM', id: 'audit', externalUserId: null, clientAddress: null };

const chainOf = ({ tenantId }: AuditEntry): string => tenantId ?? SYSTEM_CHAIN;

const lockHeads = (tx: Sql, ids: readonly string[]): Promise<LockedHead[]> =>
  tx.query<LockedHead>(sql`
    SELECT id, sequence, hash, recorded_at AS "recordedAt", anchor_sequence AS "anchorSequence",
      anchor_hash AS "anchorHash", closed_at AS "closedAt", seal,
      date_trunc('milliseconds', clock_timestamp()) AS now
    FROM audit_chain WHERE id = ANY(${ids}::uuid[]) ORDER BY id FOR UPDATE`);

/** @returns those that were made by this very transaction. */
async function makeHeads(tx: Sql, ids: readonly string[]): Promise<string[]> {
  const made = await tx.query<{ id: string }>(sql`
    INSERT INTO audit_chain (id, sequence, hash, recorded_at, anchor_sequence, anchor_hash, seal)
    SELECT id, 0, ${NO_HASH}, 'epoch', 0, ${NO_HASH}, ''::bytea FROM unnest(${ids}::uuid[]) AS new(id) ORDER BY id
    ON CONFLICT (id) DO NOTHING RETURNING id`);
  return made.map(({ id }) => id);
}

/** The entry as the next event of its chain. Moves the head on. */
function link(key: Uint8Array, head: LockedHead, entry: AuditEntry) {
  const { principal, chain } = entry;
  const recordedAt = head.now > head.recordedAt ? head.now : head.recordedAt;
  const ago = (ms: number) => new Date(recordedAt.getTime() - Math.max(0, Math.round(ms)));
  // What is told about a person would be told after the erasure.
  const isErased = head.closedAt !== null;
  const detail = isErased ? { externalUserId: null, clientAddress: null } : principal;
  const { salt, digest } = commitTo(detail);
  const record: AuditRecord = {
    chainId: head.id,
    sequence: head.sequence + 1,
    recordedAt,
    occurredAt: ago(entry.agoMs ?? 0),
    lastOccurredAt: ago(entry.lastAgoMs ?? entry.agoMs ?? 0),
    action: entry.action,
    outcome: entry.outcome ?? 'DONE',
    principalKind: principal.kind,
    principalId: principal.id,
    subject: entry.subject ?? null,
    grantId: entry.grantId ?? null,
    credentialVersion: entry.credentialVersion ?? null,
    count: entry.count ?? 1,
    reason: entry.reason ?? null,
    reference: entry.reference ?? null,
    detailDigest: digest,
  };
  const hash = eventHash(key, head.hash, record);
  head.sequence = record.sequence;
  head.hash = hash;
  head.recordedAt = recordedAt;
  if (chain !== undefined && 'closes' in chain) head.closedAt ??= recordedAt;
  if (chain !== undefined && 'anchor' in chain) {
    head.anchorSequence = chain.anchor.sequence;
    head.anchorHash = chain.anchor.hash;
  }
  return { ...record, externalUserId: detail.externalUserId, clientAddress: detail.clientAddress, salt, hash };
}

type Linked = ReturnType<typeof link>;

/** One statement for all of them, whatever chains they belong to. */
async function store(tx: Sql, heads: readonly (AuditHead & { seal: Uint8Array })[], events: readonly Linked[]) {
  const of = <K extends keyof Linked>(name: K) => events.map((event) => event[name]);
  await tx.query(sql`
    WITH head AS (
      UPDATE audit_chain c SET sequence = n.sequence, hash = n.hash, recorded_at = n.recorded_at,
        anchor_sequence = n.anchor_sequence, anchor_hash = n.anchor_hash, closed_at = n.closed_at, seal = n.seal
      FROM unnest(${heads.map(({ id }) => id)}::uuid[], ${heads.map(({ sequence }) => sequence)}::int[],
        ${heads.map(({ hash }) => hash)}::bytea[], ${heads.map(({ recordedAt }) => recordedAt)}::timestamptz[],
        ${heads.map(({ anchorSequence }) => anchorSequence)}::int[],
        ${heads.map(({ anchorHash }) => anchorHash)}::bytea[],
        ${heads.map(({ closedAt }) => closedAt)}::timestamptz[], ${heads.map(({ seal }) => seal)}::bytea[])
        AS n(id, sequence, hash, recorded_at, anchor_sequence, anchor_hash, closed_at, seal)
      WHERE c.id = n.id
    )
    INSERT INTO audit_event (chain_id, sequence, recorded_at, occurred_at, last_occurred_at, action, outcome,
      principal_kind, principal_id, subject, grant_id, credential_version, count, reason, reference,
      external_user_id, client_address, detail_salt, detail_digest, hash)
    SELECT * FROM unnest(${of('chainId')}::uuid[], ${of('sequence')}::int[], ${of('recordedAt')}::timestamptz[],
      ${of('occurredAt')}::timestamptz[], ${of('lastOccurredAt')}::timestamptz[], ${of('action')}::text[],
      ${of('outcome')}::"AuditOutcome"[], ${of('principalKind')}::"AuditPrincipalKind"[],
      ${of('principalId')}::text[], ${of('subject')}::text[], ${of('grantId')}::uuid[],
      ${of('credentialVersion')}::int[], ${of('count')}::int[], ${of('reason')}::text[],
      ${of('reference')}::text[], ${of('externalUserId')}::text[], ${of('clientAddress')}::text[],
      ${of('salt')}::bytea[], ${of('detailDigest')}::bytea[], ${of('hash')}::bytea[])`);
}

/**
 * Two statements for any number of events: one that locks the heads, in the order of their ids and the system's first,
 * and one that writes.
 */
export function createAuditTrail({ vault }: { vault: Vault }): AuditTrail {
  const keys: AuditKeys = createAuditKeys(vault);
  const known = new LRUCache<string, true>({ max: MAX_KNOWN });

  /** Chains that are not there yet. Only what is committed is remembered. */
  async function absent(tx: Sql, ids: readonly string[]): Promise<string[]> {
    const unknown = ids.filter((id) => !known.has(id));
    if (unknown.length === 0) return [];
    const rows = await tx.query<{ id: string }>(sql`
      SELECT id FROM audit_chain WHERE id = ANY(${unknown}::uuid[]) AND sequence > 0`);
    const there = new Set(rows.map(({ id }) => id));
    for (const id of there) known.set(id, true);
    return unknown.filter((id) => !there.has(id));
  }

  /** Makes chains under the lock of the system's, which tells of each that it was begun. */
  async function begin(tx: Sql, ids: readonly string[]): Promise<{ fresh: Set<string>; begun: AuditEntry[] }> {
    const system = await makeHeads(tx, [SYSTEM_CHAIN]);
    await lockHeads(tx, [SYSTEM_CHAIN]);
    const made = await makeHeads(
      tx,
      ids.filter((id) => id !== SYSTEM_CHAIN),
    );
    const begun = made.map((id): AuditEntry => ({
      tenantId: null,
      principal: BY_ITSELF,
      action: 'audit.chain_begun',
      subject: `Tenant:${id}`,
    }));
    return { fresh: new Set([...system, ...made]), begun };
  }

  async function append(tx: Sql, given: readonly AuditEntry[]): Promise<void> {
    if (given.length === 0) return;
    const without = await absent(tx, [...new Set(given.map(chainOf))]);
    const { fresh, begun } = without.length === 0 ? { fresh: new Set(), begun: [] } : await begin(tx, without);
    const entries = [...begun, ...given];
    const heads = new Map<string, LockedHead>();
    const chainKeys = new Map<string, Uint8Array>();
    for (const head of await lockHeads(tx, [...new Set(entries.map(chainOf))])) {
      const key = await keys(tx, head.id);
      const isIntact = fresh.has(head.id) || headSeal(key, head).equals(head.seal);
      if (!isIntact) throw new AuditChainAlteredError(head.id);
      heads.set(head.id, head);
      chainKeys.set(head.id, key);
    }
    const events = entries.map((entry) => {
      const [head, key] = [heads.get(chainOf(entry)), chainKeys.get(chainOf(entry))];
      // Chains are never deleted.
      if (head === undefined || key === undefined) throw new AuditChainAlteredError(chainOf(entry));
      return link(key, head, entry);
    });
    const sealed = [...heads.values()].map((head) => ({
      ...head,
      seal: headSeal(chainKeys.get(head.id) ?? NO_HASH, head),
    }));
    await store(tx, sealed, events);
  }

  return { append };
}
