import { randomBytes } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { Secret } from '../secret.js';
import type { Place, Sealed, Vault } from '../vault/vault.js';
import { chainKey } from './audit-chain.js';

const KEY_BYTES = 32;
/** There is one. */
const ROW_ID = '00000000-0000-0000-0000-000000000000';
const PLACE: Place = { tenantId: null, table: 'audit_key', column: 'sealed_key', recordId: ROW_ID, version: 1 };

/** Gives the key of each chain, within the caller's transaction. */
export type AuditKeys = (tx: Sql, chainId: string) => Promise<Uint8Array>;

async function read(vault: Vault, tx: Sql): Promise<Buffer | null> {
  const [row] = await tx.query<{ sealedKey: Sealed }>(sql`
    SELECT sealed_key AS "sealedKey" FROM audit_key WHERE id = ${ROW_ID}::uuid`);
  return row === undefined ? null : Buffer.from((await vault.open(tx, PLACE, row.sealedKey)).reveal(), 'base64');
}

/**
 * Makes the secret that the keys of all chains are derived from, where there is none yet. It is sealed with the system's
 * key, so that it is sealed anew when that is replaced, stays the same for ever, and outlives every tenant: what was
 * chained once can be verified as long as the database and its root key are there.
 */
export async function createAuditKey(vault: Vault, tx: Sql): Promise<void> {
  if ((await read(vault, tx)) !== null) return;
  const { sealed } = await vault.seal(tx, PLACE, new Secret(randomBytes(KEY_BYTES).toString('base64')));
  await tx.query(sql`
    INSERT INTO audit_key (id, sealed_key) VALUES (${ROW_ID}::uuid, ${sealed}) ON CONFLICT (id) DO NOTHING`);
}

/** The vault is asked once; from then on a chain's key costs one HMAC. */
export function createAuditKeys(vault: Vault): AuditKeys {
  let master: Buffer | null = null;
  return async (tx, chainId) => {
    master ??= await read(vault, tx);
    if (master === null) throw new Error('The audit key is missing.');
    return chainKey(master, chainId);
  };
}
