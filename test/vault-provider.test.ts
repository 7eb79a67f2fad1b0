import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import sql from 'sql-template-tag';
import { beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { Database } from '../src/database/database.js';
import { Secret } from '../src/secret.js';
import { RootKeyMismatchError, VaultOpenError, VaultUnavailableError } from '../src/vault/errors.js';
import type { KeyringOptions } from '../src/vault/keyring.js';
import { createLocalRootKeys, type RootKeyProvider } from '../src/vault/root-key.js';
import { createVault, type Place } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';
import { unavailable } from './support/root-key-battery.js';

const secret = new Secret('SECRET-token');
const place: Place = {
  tenantId: null,
  table: 'provider_app',
  column: 'sealed_client_secret',
  recordId: 'a',
  version: 1,
};
const newRootKeys = () => createLocalRootKeys([createSecretKey(randomBytes(32))]);

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});
beforeEach(async () => {
  await database.query(sql`DELETE FROM tenant_key`);
  await database.query(sql`DELETE FROM root_key`);
});

/** Local root keys that keep every plain key that went in or out. */
function watchedRootKeys(...providers: RootKeyProvider[]) {
  const [local = newRootKeys()] = providers;
  const plains: Uint8Array[] = [];
  const rootKeys: RootKeyProvider = {
    ...local,
    wrap: (plain, context) => {
      plains.push(plain);
      return local.wrap(plain, context);
    },
    unwrap: async (...wrapped) => {
      const plain = await local.unwrap(...wrapped);
      plains.push(plain);
      return plain;
    },
  };
  return { rootKeys, plains };
}

const start = (rootKeys: RootKeyProvider, options: Partial<KeyringOptions> = {}) =>
  createVault({ rootKeys, ...options });

describe('a plain key', () => {
  const nothing = new Uint8Array(32);

  it('is random, and overwritten as soon as it is wrapped or taken over', async () => {
    const { rootKeys, plains } = watchedRootKeys();
    const seen: string[] = [];
    const wrap: RootKeyProvider['wrap'] = (plain, context) => {
      seen.push(Buffer.from(plain).toString('hex'));
      return rootKeys.wrap(plain, context);
    };
    const vault = start({ ...rootKeys, wrap });
    await vault.createTenantKey(database, null);
    const { sealed } = await vault.seal(database, place, secret);
    await vault.rotateKey(database, null);
    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());

    expect(new Set(seen).size).toBe(2);
    expect(seen.every((text) => /^(?!0+$)[0-9a-f]{64}$/.test(text))).toBe(true);
    expect(plains.map((plain) => Buffer.compare(plain, nothing))).toEqual([0, 0, 0]);
  });

  it('is overwritten where the provider fails, and where it is no key', async () => {
    const { rootKeys, plains } = watchedRootKeys();
    const failing: RootKeyProvider = {
      ...rootKeys,
      wrap: async (plain, context) => {
        await rootKeys.wrap(plain, context);
        throw new Error('connect ECONNREFUSED');
      },
    };
    await expect(start(failing).createTenantKey(database, null)).rejects.toMatchObject({
      reason: 'provider-failed',
      cause: new Error('connect ECONNREFUSED'),
    });
    await start(rootKeys).createTenantKey(database, null);
    const short = Buffer.alloc(31, 7);
    const refusing = start({ ...rootKeys, unwrap: async () => short });
    await expect(refusing.seal(database, place, secret)).rejects.toEqual(unavailable('wrapped-key-refused'));

    expect([...plains, short].map((plain) => plain.every((byte) => byte === 0))).toEqual([true, true, true]);
  });

  it('is overwritten when it is wrapped anew, also where the new root key fails', async () => {
    const former = newRootKeys();
    await start(former).createTenantKey(database, null);
    const newest = newRootKeys();
    const { rootKeys, plains } = watchedRootKeys(former);
    const both: RootKeyProvider = { ...rootKeys, wrap: newest.wrap, describe: newest.describe };
    const denied = new VaultUnavailableError('root-key-denied');
    await expect(start({ ...both, wrap: () => Promise.reject(denied) }).rewrapKeys(database)).rejects.toBe(denied);
    expect(await start(both).rewrapKeys(database)).toEqual({ rewrapped: 1, pending: 0 });

    expect(plains.map((plain) => Buffer.compare(plain, nothing))).toEqual([0, 0]);
  });
});

describe('a key that is wrapped anew', () => {
  it('by another process meanwhile is left to it, and counted there alone', async () => {
    const [former, newest] = [newRootKeys(), newRootKeys()];
    await start(former).createTenantKey(database, null);
    const both: RootKeyProvider = { ...former, wrap: newest.wrap, describe: newest.describe };
    const unwrap: RootKeyProvider['unwrap'] = async (...wrapped) => {
      expect(await start(both).rewrapKeys(database)).toEqual({ rewrapped: 1, pending: 0 });
      return former.unwrap(...wrapped);
    };
    expect(await start({ ...both, unwrap }).rewrapKeys(database)).toEqual({ rewrapped: 0, pending: 0 });
  });
});

describe('what the provider says', () => {
  it('is passed on as it is where it is one of our reasons', async () => {
    const denied = new VaultUnavailableError('root-key-denied');
    const vault = start({ ...newRootKeys(), wrap: () => Promise.reject(denied) });
    await expect(vault.createTenantKey(database, null)).rejects.toBe(denied);
  });

  it('is an outage from its first failure to its next answer, bridged for as long as unwrapped keys last', async () => {
    const local = newRootKeys();
    let isDown = false;
    const wrap: RootKeyProvider['wrap'] = (...asked) =>
      isDown ? Promise.reject(new Error('connect ETIMEDOUT')) : local.wrap(...asked);
    const vault = start({ ...local, wrap }, { keyTtlMs: 60 });
    await vault.createTenantKey(database, null);
    expect(vault.rootKeyHealth()).toEqual({ failingMs: 0, isBridged: true });
    isDown = true;
    await expect(vault.rotateKey(database, null)).rejects.toEqual(unavailable('provider-failed'));
    await setTimeout(5);
    expect(vault.rootKeyHealth().failingMs).toBeGreaterThan(0);
    await setTimeout(70);
    expect(vault.rootKeyHealth().isBridged).toBe(false);
    isDown = false;
    await vault.rotateKey(database, null);
    expect(vault.rootKeyHealth()).toEqual({ failingMs: 0, isBridged: true });
  });

  it('bridges five minutes where nothing else is said', async () => {
    const vault = start({ ...newRootKeys(), wrap: () => Promise.reject(new Error('connect ETIMEDOUT')) });
    await vault.createTenantKey(database, null).catch(() => undefined);
    await setTimeout(5);
    expect(vault.rootKeyHealth()).toMatchObject({ isBridged: true, failingMs: expect.any(Number) });
    expect(vault.rootKeyHealth().failingMs).toBeGreaterThan(0);
  });

  it('of no root key at all leaves the keys as they are', async () => {
    const local = newRootKeys();
    await start(local).createTenantKey(database, null);
    const none: RootKeyProvider = { ...local, describe: async () => [] };
    expect(await start(none).rewrapKeys(database)).toEqual({ rewrapped: 0, pending: 0 });
    await database.query(sql`DELETE FROM tenant_key`);
    await start(none).verify(database);
    expect(await database.query(sql`SELECT id FROM root_key`)).toEqual([]);
  });
});

describe('a database', () => {
  it('fits the root keys that it knows, by fingerprint and check value, and no others', async () => {
    const [own, other] = [newRootKeys(), newRootKeys()];
    expect(await start(own).fits(database)).toBe(false);
    await start(own).verify(database);
    expect(await start(own).fits(database)).toBe(true);
    expect(await start(other).fits(database)).toBe(false);
    const both: RootKeyProvider = {
      ...other,
      describe: async () => [...(await other.describe()), ...(await own.describe())],
    };
    expect(await start(both).fits(database)).toBe(true);
    await database.query(sql`UPDATE root_key SET check_value = ${randomBytes(32)}`);
    expect(await start(own).fits(database)).toBe(false);
  });

  it('names all root keys that are missing, known and given, where they do not fit', async () => {
    const keys = [createSecretKey(randomBytes(32)), createSecretKey(randomBytes(32))] as const;
    const [first, second] = [createLocalRootKeys([keys[0]]), createLocalRootKeys([keys[1]])];
    const ids = await Promise.all([first, second].map(async (each) => (await each.describe())[0]?.id ?? ''));
    await start(first).verify(database);
    await start(createLocalRootKeys([keys[1], keys[0]])).verify(database);
    const strangers = createLocalRootKeys([createSecretKey(randomBytes(32)), createSecretKey(randomBytes(32))]);
    const given = (await strangers.describe()).map(({ id }) => id).join(', ');
    const refused = await start(strangers)
      .verify(database)
      .catch((error: unknown) => error as Error);
    expect(refused).toBeInstanceOf(RootKeyMismatchError);
    const named = /^This database was sealed with root key (.+), but the given root key is (.+)\.$/.exec(
      String((refused as Error).message),
    );
    expect(named?.[1]?.split(', ').toSorted()).toEqual(ids.toSorted());
    expect(named?.[2]).toBe(given);
    const none: RootKeyProvider = { ...first, describe: async () => [] };
    await expect(start(none).verify(database)).rejects.toThrow('but the given root key is none.');
  });

  it('names every root key that still wraps a key', async () => {
    const [first, second, third] = [newRootKeys(), newRootKeys(), newRootKeys()];
    await start(first).createTenantKey(database, null);
    const id = randomUUID();
    await database.query(sql`INSERT INTO tenant (id, external_id) VALUES (${id}::uuid, ${id})`);
    await start(second).createTenantKey(database, id);
    const missing = (await Promise.all([first, second].map((each) => each.describe()))).flat().map((each) => each.id);
    await expect(start(third).verify(database)).rejects.toThrow(
      `This database still needs root key ${missing.toSorted().join(', ')}, but the given root key is ${(await third.describe())[0]?.id}.`,
    );
  });
});

describe('a key that is rotated', () => {
  it('seals with its new version at once where it was rotated, and tells when the former one was superseded', async () => {
    const vault = start(newRootKeys());
    await vault.createTenantKey(database, null);
    expect((await vault.seal(database, place, secret)).keyVersion).toBe(1);
    expect(await vault.rotateKey(database, null)).toEqual({ version: 2 });
    expect((await vault.seal(database, place, secret)).keyVersion).toBe(2);
    const rows = await database.query(sql`
      SELECT version, active, superseded_at IS NULL AS current FROM tenant_key ORDER BY version`);
    expect(rows).toEqual([
      { version: 1, active: false, current: false },
      { version: 2, active: true, current: true },
    ]);
  });

  it('of an owner that has none is told so, and nothing is made', async () => {
    await expect(start(newRootKeys()).rotateKey(database, null)).rejects.toEqual(unavailable('no-tenant-key'));
    expect(await database.query(sql`SELECT id FROM tenant_key`)).toEqual([]);
  });

  it('is one version where another process was faster, which is given back', async () => {
    const local = newRootKeys();
    const faster = start(local);
    await faster.createTenantKey(database, null);
    let isFirst = true;
    const wrap: RootKeyProvider['wrap'] = async (...asked) => {
      if (isFirst) {
        isFirst = false;
        await faster.rotateKey(database, null);
        await faster.rotateKey(database, null);
      }
      return local.wrap(...asked);
    };
    expect(await start({ ...local, wrap }).rotateKey(database, null)).toEqual({ version: 3 });
    expect(await database.query(sql`SELECT version FROM tenant_key WHERE active`)).toEqual([{ version: 3 }]);
  });
});

describe('a vault', () => {
  it('seals for the owner alone that the sealer was asked for', async () => {
    const vault = start(newRootKeys());
    await vault.createTenantKey(database, null);
    const { seal, keyVersion } = await vault.sealer(database, null);
    expect(keyVersion).toBe(1);
    expect(() => seal({ ...place, tenantId: randomUUID() }, secret)).toThrow(
      new RangeError('The place belongs to another owner'),
    );
    expect((await vault.open(database, place, seal(place, secret))).reveal()).toBe(secret.reveal());
  });

  it('does not open what names a version that no key can have', async () => {
    const vault = start(newRootKeys());
    await vault.createTenantKey(database, null);
    const sealed = Buffer.from((await vault.seal(database, place, secret)).sealed);
    sealed.writeUInt32BE(0xffff_ffff, 20);
    await expect(vault.open(database, place, sealed)).rejects.toBeInstanceOf(VaultOpenError);
  });

  it('needs no database to open with a key that is at hand', async () => {
    const vault = start(newRootKeys());
    await vault.createTenantKey(database, null);
    const { sealed } = await vault.seal(database, place, secret);
    const query = () => Promise.reject(new Error('Connection terminated'));
    expect((await vault.open({ query }, place, sealed)).reveal()).toBe(secret.reveal());
    expect(vault.keyCacheStats().hits).toBe(1);
  });

  it('passes on what the database says, as an error of its own', async () => {
    const vault = start(newRootKeys());
    await vault.createTenantKey(database, null);
    const { sealed } = await vault.seal(database, place, secret);
    const gone = new Error('Connection terminated');
    const cold = start(newRootKeys());
    const query = () => Promise.reject(gone);
    await expect(cold.open({ query }, place, sealed)).rejects.toBe(gone);
  });

  it.each([{ maxKeys: 0 }, { keyTtlMs: -1 }])('names what is wrong with its bounds (%j)', (options) => {
    expect(() => start(newRootKeys(), options)).toThrow(new RangeError('The bounds of the key cache must be positive'));
  });
});
