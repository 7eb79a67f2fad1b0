import type { Database, Sql } from '../database/database.js';
import type { Secret } from '../secret.js';
import { EnvelopeError, inspectEnvelope, openEnvelope, sealEnvelope, type Place, type Sealed } from './envelope.js';
import { VaultOpenError } from './errors.js';
import { createKeyring, KEY_TTL_MS, type KeyringOptions } from './keyring.js';
import type { KeyCacheStats } from './key-cache.js';
import { fitsRootKeys, verifyRootKeys } from './root-key-check.js';
import { rewrapKeys, type RootKeyProgress } from './root-key-rotation.js';
import { watchRootKeys } from './root-key-watch.js';

export type { Place, Sealed };

/**
 * Seals secrets and opens them again: the only code that makes or reads sealed columns.
 *
 * Each tenant has a data-encryption key of its own, wrapped by a root key that never enters the database. `sql` is the
 * caller's database or transaction, so that a key, a row and what is sealed into it commit together. Safe for
 * concurrent use; unwrapped keys are cached for a bounded time.
 */
export interface Vault {
  /**
   * Creates the first key of a tenant, or of the system (null), where it has none yet. Call it in the transaction that
   * makes the tenant.
   *
   * @throws {VaultUnavailableError} the key could not be wrapped. Nothing is stored.
   */
  createTenantKey(sql: Sql, tenantId: string | null): Promise<void>;
  /**
   * What seals for one tenant, or the system, with the key that is active now. It needs no database any more: get one
   * before something is asked of the provider whose answer must be sealed whatever happens meanwhile, and use it
   * shortly.
   *
   * @throws {VaultUnavailableError} the owner has no key, or it could not be unwrapped.
   */
  sealer(sql: Sql, tenantId: string | null): Promise<Sealer>;
  /**
   * @returns the sealed bytes and the version of the tenant key that sealed them.
   * @throws {VaultUnavailableError} the owner has no key, or it could not be unwrapped.
   * @throws {RangeError} the secret or the place is not well-formed Unicode, or the place's version is not a u32.
   */
  seal(sql: Sql, place: Place, secret: Secret): Promise<{ sealed: Sealed; keyVersion: number }>;
  /**
   * @throws {VaultOpenError} the bytes were not sealed for this place with a key of this database, or were changed.
   * @throws {VaultUnavailableError} the key could not be unwrapped.
   */
  open(sql: Sql, place: Place, sealed: Sealed): Promise<Secret>;
  /**
   * Gives a tenant, or the system (null), a new version of its key, which seals from now on: in this process at once, in
   * others within seconds. What older versions sealed still opens. Opens a transaction; of several callers at once one
   * makes the version, and all get it.
   *
   * @throws {VaultUnavailableError} the owner has no key, or the new one could not be wrapped. Nothing has changed then.
   */
  rotateKey(database: Pick<Database, 'query' | 'transaction'>, tenantId: string | null): Promise<{ version: number }>;
  /** Forgets the keys of an owner in this process, when their rows are destroyed. */
  forgetKeys(tenantId: string | null): void;
  /** Wraps a batch of keys that an older root key wraps with the newest one, as `rewrapKeys` says. */
  rewrapKeys(database: Pick<Database, 'query' | 'transaction'>): Promise<RootKeyProgress>;
  /** How the cache of unwrapped keys does. */
  keyCacheStats(): KeyCacheStats;
}

/** Seals with one version of one owner's key. */
export interface Sealer {
  readonly keyVersion: number;
  /** @throws {RangeError} as `Vault.seal` does, and for a place of another owner. */
  seal(place: Place, secret: Secret): Sealed;
}

/** A vault with what the start of the process needs. */
export interface VerifiableVault extends Vault {
  /**
   * Checks that the given root keys are those of the database; await it before the vault is used. Opens a transaction.
   *
   * @throws {RootKeyMismatchError} they are not. The message is fit for the operator's terminal.
   */
  verify(database: Pick<Database, 'transaction'>): Promise<void>;
  /** Whether the database still is one that the given root keys belong to; changes nothing. */
  fits(sql: Sql): Promise<boolean>;
  /** How the provider of root keys does, by its last answer. Never waits for it. */
  rootKeyHealth(): RootKeyHealth;
}

export interface RootKeyHealth {
  /** For how long it has not answered; 0: it does. */
  failingMs: number;
  /** Whether unwrapped keys still make up for that, for owners whose keys were in use when it began. */
  isBridged: boolean;
}

/** The keys stay with `rootKeys` and in this vault's cache; two vaults of one process share nothing. */
export function createVault(options: KeyringOptions): VerifiableVault {
  const { rootKeys, failingMs } = watchRootKeys(options.rootKeys);
  const { keyTtlMs = KEY_TTL_MS } = options;
  const keyring = createKeyring({ ...options, rootKeys });
  const sealer: Vault['sealer'] = async (sql, tenantId) => {
    const key = await keyring.active(sql, tenantId);
    return {
      keyVersion: key.version,
      seal: (place, secret) => {
        if (place.tenantId !== tenantId) throw new RangeError('The place belongs to another owner');
        return sealEnvelope(key, place, secret);
      },
    };
  };
  return {
    fits: (sql) => fitsRootKeys(sql, rootKeys),
    verify: (database) => verifyRootKeys(database, rootKeys),
    createTenantKey: (sql, tenantId) => keyring.create(sql, tenantId),
    rotateKey: keyring.rotate,
    forgetKeys: keyring.forget,
    rewrapKeys: (database) => rewrapKeys(database, rootKeys),
    keyCacheStats: keyring.stats,
    rootKeyHealth: () => {
      const ms = failingMs();
      return { failingMs: ms, isBridged: ms < keyTtlMs };
    },
    sealer,
    seal: async (sql, place, secret) => {
      const { seal, keyVersion } = await sealer(sql, place.tenantId);
      return { sealed: seal(place, secret), keyVersion };
    },
    open: async (sql, place, sealed) => {
      try {
        const { keyId, keyVersion } = inspectEnvelope(sealed);
        const key = await keyring.find(sql, place.tenantId, keyId, keyVersion);
        if (key !== null) return openEnvelope(key, place, sealed);
      } catch (error) {
        if (!(error instanceof EnvelopeError)) throw error;
      }
      throw new VaultOpenError();
    },
  };
}
