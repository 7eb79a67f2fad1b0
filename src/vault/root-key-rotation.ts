import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import type { RootKeyProvider, WrappedKey } from './root-key.js';

const BATCH = 100;

/** How far the keys of the database are wrapped by the newest root key. */
export interface RootKeyProgress {
  /** Keys that this turn has wrapped anew. */
  rewrapped: number;
  /** Keys that an older root key still wraps. */
  pending: number;
}

interface WrappedRow {
  id: string;
  owner: string;
  version: number;
  rootKeyId: string;
  wrapped: Uint8Array;
}

interface Rewrapped {
  row: WrappedRow;
  newest: WrappedKey;
}

/**
 * Wraps a batch of tenant keys, and the system's, with the newest root key. The keys themselves, and all that is sealed
 * with them, stay as they are.
 *
 * Any number of processes may do so at once, and one that stops anywhere is followed by the next: a row is replaced only
 * where it still is as it was read. The provider is asked before the one transaction that replaces them, whose result is
 * their number.
 *
 * @throws {VaultUnavailableError} a key could not be unwrapped or wrapped; those before it are done.
 */
export async function rewrapKeys(
  db: Pick<Database, 'query' | 'transaction'>,
  rootKeys: RootKeyProvider,
): Promise<RootKeyProgress> {
  const [newest] = await rootKeys.describe();
  if (newest === undefined) return { rewrapped: 0, pending: 0 };
  const rows = await db.query<WrappedRow>(sql`
    SELECT id, owner, version, root_key_id AS "rootKeyId", wrapped FROM tenant_key
    WHERE root_key_id <> ${newest.id} ORDER BY id LIMIT ${BATCH}`);
  const done: Rewrapped[] = [];
  let rewrapped = 0;
  try {
    for (const row of rows) done.push({ row, newest: await rewrap(rootKeys, row) });
  } finally {
    if (done.length > 0) rewrapped = await db.transaction((tx) => replaceWrapped(tx, done));
  }
  const [left] = await db.query<{ pending: number }>(sql`
    SELECT count(*) AS pending FROM tenant_key WHERE root_key_id <> ${newest.id}`);
  return { rewrapped, pending: left?.pending ?? 0 };
}

async function rewrap(rootKeys: RootKeyProvider, row: WrappedRow): Promise<WrappedKey> {
  const context = { owner: row.owner, keyId: row.id, keyVersion: row.version };
  const plain = await rootKeys.unwrap(row.rootKeyId, row.wrapped, context);
  try {
    return await rootKeys.wrap(plain, context);
  } finally {
    plain.fill(0);
  }
}

/** @returns how many were as they had been read. */
async function replaceWrapped(tx: Sql, done: readonly Rewrapped[]): Promise<number> {
  const former = <K extends keyof WrappedRow>(name: K) => done.map(({ row }) => row[name]);
  const replaced = await tx.query(sql`
    UPDATE tenant_key k SET root_key_id = n.root_key_id, wrapped = n.wrapped
    FROM unnest(${former('id')}::uuid[], ${former('rootKeyId')}::text[], ${former('wrapped')}::bytea[],
      ${done.map(({ newest }) => newest.rootKeyId)}::text[], ${done.map(({ newest }) => newest.blob)}::bytea[])
      AS n(id, former_root_key_id, former_wrapped, root_key_id, wrapped)
    WHERE k.id = n.id AND k.root_key_id = n.former_root_key_id AND k.wrapped = n.former_wrapped RETURNING k.id`);
  return replaced.length;
}
