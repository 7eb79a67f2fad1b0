import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { KEY_BYTES } from './aead.js';
import { ownerOf, prepareKey, type EnvelopeKey } from './envelope.js';
import { VaultUnavailableError } from './errors.js';
import { createKeyCache, type KeyCacheStats } from './key-cache.js';
import type { RootKeyProvider, WrappedKey } from './root-key.js';

/** How long an unwrapped key is used without a look at its row, where nothing else is said. */
export const KEY_TTL_MS = 300_000;

export interface KeyringOptions {
  rootKeys: RootKeyProvider;
  /** Unwrapped keys held at most, about a kilobyte each; the least recently used one goes first. Default 10 000. */
  maxKeys?: number;
  /**
   * How long an unwrapped key is used without a look at its row. Default five minutes. While the root key provider fails,
   * a key whose row is there is used for as long again, so that an outage shorter than this is not felt.
   */
  keyTtlMs?: number;
  /**
   * How long a key is taken for its owner's active one: by then a rotation by another process is seen. Whoever destroys
   * an old version waits longer than this before trusting that nothing new is sealed with it. Default 5 s.
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
  /**
   * Makes a new version of the owner's key and its active one, in a transaction of its own. Of several that rotate at
   * once one makes the version, and all get it.
   *
   * @throws {VaultUnavailableError} there is no key, or the new one cannot be wrapped. Nothing has changed then.
   */
  rotate(database: Pick<Database, 'query' | 'transaction'>, tenantId: string | null): Promise<{ version: number }>;
  /** Forgets the owner's keys in this process. */
  forget(tenantId: string | null): void;
  stats(): KeyCacheStats;
}

interface KeyRow {
  id: string;
  version: number;
  rootKeyId: string;
  wrapped: Uint8Array;
}

const columns = sql`id, version, root_key_id AS "rootKeyId", wrapped`;

export function createKeyring(options: KeyringOptions): Keyring {
  const { rootKeys, maxKeys = 10_000, keyTtlMs = KEY_TTL_MS, activeTtlMs = 5_000 } = options;
  for (const bound of [maxKeys, keyTtlMs, activeTtlMs]) {
    // The cache takes zero for no bound at all.
    if (!(bound > 0)) throw new RangeError('The bounds of the key cache must be positive');
  }
  const unwrapped = createKeyCache({ maxKeys, ttlMs: keyTtlMs });
  const activeOf = new LRUCache<string, EnvelopeKey>({ max: maxKeys, ttl: activeTtlMs });

  /**
   * Concurrent callers share one unwrap. They do not share the query before it: one that holds a transaction must not
   * wait for a statement of another, which on the embedded database waits for that transaction to end.
   */
  const unwrap = (owner: string, row: KeyRow): Promise<EnvelopeKey> =>
    unwrapped.get({ owner, id: row.id, version: row.version }, () => unwrapRow(rootKeys, owner, row));

  return {
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
      const cached = unwrapped.fresh({ owner, id: keyId, version: keyVersion });
      if (cached !== undefined) return cached;
      // An envelope's version is a u32 that anyone may have written: as an integer it could fail instead of not match.
      const [row] = await tx.query<KeyRow>(sql`
        SELECT ${columns} FROM tenant_key WHERE id = ${keyId}::uuid AND owner = ${owner} AND version = ${keyVersion}::bigint`);
      return row === undefined ? null : unwrap(owner, row);
    },
    rotate: async (database, tenantId) => {
      const version = await replaceActiveKey(database, rootKeys, tenantId);
      activeOf.delete(ownerOf(tenantId));
      return { version };
    },
    forget: (tenantId) => {
      const owner = ownerOf(tenantId);
      activeOf.delete(owner);
      unwrapped.forget(owner);
    },
    stats: unwrapped.stats,
  };
}

interface NewKey {
  id: string;
  wrapped: WrappedKey;
}

/** A random key for one version of an owner's, of which nothing is left here but the wrapped form. */
async function wrapNewKey(rootKeys: RootKeyProvider, owner: string, version: number): Promise<NewKey> {
  const id = randomUUID();
  const plain = randomBytes(KEY_BYTES);
  try {
    return { id, wrapped: await guarded(rootKeys.wrap(plain, { owner, keyId: id, keyVersion: version })) };
  } finally {
    plain.fill(0);
  }
}

async function insertFirstKey(tx: Sql, rootKeys: RootKeyProvider, tenantId: string | null): Promise<void> {
  const owner = ownerOf(tenantId);
  const version = 1;
  const { id, wrapped } = await wrapNewKey(rootKeys, owner, version);
  await tx.query(sql`
    INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
    SELECT ${id}::uuid, ${tenantId}::uuid, ${owner}, ${version}::int, true, ${wrapped.rootKeyId}, ${wrapped.blob}::bytea
    WHERE NOT EXISTS (SELECT 1 FROM tenant_key WHERE owner = ${owner})
    ON CONFLICT DO NOTHING`);
}

/** The provider is asked before anything is locked. @returns the version that is active then, whoever has made it. */
async function replaceActiveKey(
  database: Pick<Database, 'query' | 'transaction'>,
  rootKeys: RootKeyProvider,
  tenantId: string | null,
): Promise<number> {
  const owner = ownerOf(tenantId);
  const activeVersion = async (client: Sql): Promise<number> => {
    const [row] = await client.query<{ version: number }>(sql`
      SELECT version FROM tenant_key WHERE owner = ${owner} AND active`);
    if (row === undefined) throw new VaultUnavailableError('no-tenant-key');
    return row.version;
  };
  const former = await activeVersion(database);
  const version = former + 1;
  const { id, wrapped } = await wrapNewKey(rootKeys, owner, version);
  return database.transaction(async (tx) => {
    const [mine] = await tx.query(sql`
      UPDATE tenant_key SET active = false, superseded_at = now()
      WHERE owner = ${owner} AND version = ${former} AND active RETURNING id`);
    if (mine === undefined) return activeVersion(tx);
    await tx.query(sql`
      INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
      VALUES (${id}::uuid, ${tenantId}::uuid, ${owner}, ${version}::int, true, ${wrapped.rootKeyId}, ${wrapped.blob}::bytea)`);
    return version;
  });
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
