import { createHash, createHmac, randomBytes } from 'node:crypto';
import type { AuditOutcome, AuditPrincipalKind } from '../generated/prisma/enums.js';
import { encodeFields, type Field } from '../vault/fields.js';

/** The chain of what belongs to no tenant. Every other chain has the id of its tenant. */
export const SYSTEM_CHAIN = '00000000-0000-0000-0000-000000000000';

/** What the first event of a chain follows on. */
export const NO_HASH = Buffer.alloc(32);

const EVENT = 'latchkey audit event 1';
const HEAD = 'latchkey audit chain 1';
const SALT_BYTES = 16;

/** What an event tells about persons: kept beside the hash, which covers only its digest, so that it can be erased. */
export interface AuditDetail {
  externalUserId: string | null;
  clientAddress: string | null;
}

/** An event as the hash covers it. */
export interface AuditRecord {
  chainId: string;
  sequence: number;
  recordedAt: Date;
  occurredAt: Date;
  lastOccurredAt: Date;
  action: string;
  outcome: AuditOutcome;
  principalKind: AuditPrincipalKind;
  principalId: string;
  subject: string | null;
  grantId: string | null;
  credentialVersion: number | null;
  count: number;
  reason: string | null;
  reference: string | null;
  detailDigest: Uint8Array | null;
}

/** Where a chain stands. */
export interface AuditHead {
  id: string;
  sequence: number;
  hash: Uint8Array;
  recordedAt: Date;
  anchorSequence: number;
  anchorHash: Uint8Array;
  closedAt: Date | null;
}

/** Nothing is a number, everything else a text: so no text reads as nothing. */
const fieldOf = (value: string | number | Date | Uint8Array | null): Field => {
  if (value === null) return 0;
  if (value instanceof Date) return value.toISOString();
  return value instanceof Uint8Array ? Buffer.from(value).toString('hex') : String(value);
};

/**
 * The hash of an event: HMAC-SHA256, under the chain's key, over the hash of the event before and all that it says. The
 * order of the fields is part of the format.
 */
export function eventHash(key: Uint8Array, previous: Uint8Array, record: AuditRecord): Buffer {
  const fields = [
    EVENT,
    record.chainId,
    record.sequence,
    record.recordedAt,
    record.occurredAt,
    record.lastOccurredAt,
    record.action,
    record.outcome,
    record.principalKind,
    record.principalId,
    record.subject,
    record.grantId,
    record.credentialVersion,
    record.count,
    record.reason,
    record.reference,
    record.detailDigest,
  ].map(fieldOf);
  return createHmac('sha256', key).update(encodeFields(fields, previous)).digest();
}

/** HMAC over where a chain stands: whoever can write to the database, but lacks the key, cannot make it end earlier. */
export function headSeal(key: Uint8Array, head: AuditHead): Buffer {
  const fields = [
    HEAD,
    head.id,
    head.sequence,
    head.hash,
    head.recordedAt,
    head.anchorSequence,
    head.anchorHash,
    head.closedAt,
  ].map(fieldOf);
  return createHmac('sha256', key).update(encodeFields(fields)).digest();
}

/** The key of one chain. */
export const chainKey = (masterKey: Uint8Array, chainId: string): Buffer =>
  createHmac('sha256', masterKey)
    .update(encodeFields(['latchkey audit key 1', chainId]))
    .digest();

/** Salted, so that an erased user or address cannot be guessed back from it. */
export function detailDigest(salt: Uint8Array, { externalUserId, clientAddress }: AuditDetail): Buffer {
  return createHash('sha256')
    .update(encodeFields([fieldOf(externalUserId), fieldOf(clientAddress)], salt))
    .digest();
}

/** @returns nulls where nothing is told about a person. */
export function commitTo(detail: AuditDetail): { salt: Buffer | null; digest: Buffer | null } {
  if (detail.externalUserId === null && detail.clientAddress === null) return { salt: null, digest: null };
  const salt = randomBytes(SALT_BYTES);
  return { salt, digest: detailDigest(salt, detail) };
}
