import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { KEY_BYTES } from './aead.js';
import { ownerOf, prepareKey, type EnvelopeKey } from './envelope.js';
import { VaultUnavailableError } from './errors.js';
import type { RootKeyProvider } from './root-key.js';

export interface KeyringOptions {
  rootKeys: RootKeyProvider;
  /** Unwrapped keys held at most, about a kilobyte each; the least recently used one goes first. Default 10 000. */
  maxKeys?: number;
  /** How long an unwrapped key is used, also when its row or the root key provider is gone. Default five minutes. */
  keyTtlMs?: number;
  /**
   * How long a key is taken for its owner's active one: by then a rotation by another process is seen. A job that
   * retires an old version waits this long before it trusts that nothing new is sealed with it. Default 5 s.
   */
  activeTtlMs?: number;
}

/** Tenant keys: their rows, and a bounded cache of the unwrapped ones. */
export interface Keyring {
  /** Creates version 1 for an owner that has no key yet; otherwise, and where another process is faster, nothing. */
  create(sql: Sql, tenantId: string | null): Promise<void>;
  /**
   * The key that new secrets of the owner are sealed with.
   *
   * @throws {VaultUnavailableError} there is none, or it cannot be unwrapped.
   */
  active(sql: Sql, tenantId: string | null): Promise<EnvelopeKey>;
  /**
   * One key of the owner, active or not; null: it has no such key.
   *
   * @throws {VaultUnavailableError} it cannot be unwrapped.
   */
  find(sql: Sql, tenantId: string | null, keyId: string, keyVersion: number): Promise<EnvelopeKey | null>;
  /** Unwrapped keys in memory. */
  readonly size: number;
}

interface KeyRow {
  id: string;
  version: number;
  rootKeyId: string;
  wrapped: Uint8Array;
}

const columns = sql`id, version, root_key_id AS "rootKeyId", wrapped`;

export function createKeyring(options: KeyringOptions): Keyring {
  const { rootKeys, maxKeys = 10_000, keyTtlMs = 300_000, activeTtlMs = 5_000 } = options;
  for (const bound of [maxKeys, keyTtlMs, activeTtlMs]) {
    // The cache takes zero for no bound at all.
    if (!(bound > 0)) throw new RangeError('The bounds of the key cache must be positive');
  }
  const unwrapped = new LRUCache<string, EnvelopeKey>({ max: maxKeys, ttl: keyTtlMs });
  const activeOf = new LRUCache<string, EnvelopeKey>({ max: maxKeys, ttl: activeTtlMs });
  const unwrapping = new Map<string, Promise<EnvelopeKey>>();

  /**
   * Concurrent callers share one unwrap. They do not share the query before it: one that holds a transaction must not
   * wait for a statement of another, which on the embedded database waits for that transaction to end.
   */
  function unwrap(owner: string, row: KeyRow): Promise<EnvelopeKey> {
    const name = nameOf(owner, row.id, row.version);
    const cached = unwrapped.get(name);
    if (cached !== undefined) return Promise.resolve(cached);
    let running = unwrapping.get(name);
    if (running === undefined) {
      running = unwrapRow(rootKeys, owner, row)
        .then((key) => {
          unwrapped.set(name, key);
          return key;
        })
        .finally(() => unwrapping.delete(name));
      unwrapping.set(name, running);
    }
    return running;
  }

  return {
    get size() {
      return unwrapped.size;
    },
    create: (tx, tenantId) => insertFirstKey(tx, rootKeys, tenantId),
    active: async (tx, tenantId) => {
      const owner = ownerOf(tenantId);
      const cached = activeOf.get(owner);
      if (cached !== undefined) return cached;
      // A row of the caller's own transaction may still be rolled back; were it cached, others would seal with a key
      // that then exists nowhere. (`xmin` names the transaction that wrote the row; the vault uses no savepoints.)
      const [row] = await tx.query<KeyRow & { committed: boolean }>(sql`
        SELECT ${columns}, xmin IS DISTINCT FROM pg_current_xact_id_if_assigned()::xid AS committed
        FROM tenant_key WHERE owner = ${owner} AND active ORDER BY version DESC LIMIT 1`);
      if (row === undefined) throw new VaultUnavailableError('no-tenant-key');
      const key = await unwrap(owner, row);
      if (row.committed) activeOf.set(owner, key);
      return key;
    },
    find: async (tx, tenantId, keyId, keyVersion) => {
      const owner = ownerOf(tenantId);
      const cached = unwrapped.get(nameOf(owner, keyId, keyVersion));
      if (cached !== undefined) return cached;
      // An envelope's version is a u32 that anyone may have written: as an integer it could fail instead of not match.
      const [row] = await tx.query<KeyRow>(sql`
        SELECT ${columns} FROM tenant_key WHERE id = ${keyId}::uuid AND owner = ${owner} AND version = ${keyVersion}::bigint`);
      return row === undefined ? null : unwrap(owner, row);
    },
  };
}

function nameOf(owner: string, keyId: string, keyVersion: number): string {
  return `${owner}/${keyId}/${keyVersion}`;
}

async function insertFirstKey(tx: Sql, rootKeys: RootKeyProvider, tenantId: string | null): Promise<void> {
  const owner = ownerOf(tenantId);
  const id = randomUUID();
  const version = 1;
  const plain = randomBytes(KEY_BYTES);
  try {
    const context = { owner, keyId: id, keyVersion: version };
    const { rootKeyId, blob } = await guarded(rootKeys.wrap(plain, context));
    await tx.query(sql`
      INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
      SELECT ${id}::uuid, ${tenantId}::uuid, ${owner}, ${version}::int, true, ${rootKeyId}, ${blob}::bytea
      WHERE NOT EXISTS (SELECT 1 FROM tenant_key WHERE owner = ${owner})
      ON CONFLICT (owner, version) DO NOTHING`);
  } finally {
    plain.fill(0);
  }
}

async function unwrapRow(rootKeys: RootKeyProvider, owner: string, row: KeyRow): Promise<EnvelopeKey> {
  const { id, version } = row;
  const plain = await guarded(rootKeys.unwrap(row.rootKeyId, row.wrapped, { owner, keyId: id, keyVersion: version }));
  try {
    if (plain.length !== KEY_BYTES) throw new VaultUnavailableError('wrapped-key-refused');
    return prepareKey({ id, version, owner, key: createSecretKey(plain) });
  } finally {
    plain.fill(0);
  }
}

/** A provider's failures, whatever they are, as the one that callers of the vault know. */
async function guarded<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer;
  } catch (error) {
    throw error instanceof VaultUnavailableError
      ? error
      : new VaultUnavailableError('provider-failed', { cause: error });
  }
}
