import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import type { RootKeyProvider } from './root-key.js';

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

/**
 * Wraps a batch of tenant keys, and the system's, with the newest root key. The keys themselves, and all that is sealed
 * with them, stay as they are.
 *
 * Any number of processes may do so at once, and one that stops anywhere is followed by the next: a row is replaced only
 * where it still is as it was read. No transaction is open while the provider is asked.
 *
 * @throws {VaultUnavailableError} a key could not be unwrapped or wrapped; those before it are done.
 */
export async function rewrapKeys(db: Sql, rootKeys: RootKeyProvider): Promise<RootKeyProgress> {
  const [newest] = await rootKeys.describe();
  if (newest === undefined) return { rewrapped: 0, pending: 0 };
  const rows = await db.query<WrappedRow>(sql`
    SELECT id, owner, version, root_key_id AS "rootKeyId", wrapped FROM tenant_key
    WHERE root_key_id <> ${newest.id} ORDER BY id LIMIT ${BATCH}`);
  let rewrapped = 0;
  for (const row of rows) if (await rewrap(db, rootKeys, row)) rewrapped += 1;
  const [left] = await db.query<{ pending: number }>(sql`
    SELECT count(*) AS pending FROM tenant_key WHERE root_key_id <> ${newest.id}`);
  return { rewrapped, pending: left?.pending ?? 0 };
}

async function rewrap(db: Sql, rootKeys: RootKeyProvider, row: WrappedRow): Promise<boolean> {
  const context = { owner: row.owner, keyId: row.id, keyVersion: row.version };
  const plain = await rootKeys.unwrap(row.rootKeyId, row.wrapped, context);
  try {
    const { rootKeyId, blob } = await rootKeys.wrap(plain, context);
    const [changed] = await db.query(sql`
      UPDATE tenant_key SET root_key_id = ${rootKeyId}, wrapped = ${blob}::bytea
      WHERE id = ${row.id}::uuid AND root_key_id = ${row.rootKeyId} AND wrapped = ${row.wrapped}::bytea RETURNING id`);
    return changed !== undefined;
  } finally {
    plain.fill(0);
  }
}
