import { createSecretKey, randomBytes, randomUUID, type KeyObject } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import sql from 'sql-template-tag';
import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Database, Sql } from '../src/database/database.js';
import { Secret } from '../src/secret.js';
import { inspectEnvelope } from '../src/vault/envelope.js';
import { RootKeyMismatchError, VaultOpenError, type VaultUnavailableError } from '../src/vault/errors.js';
import type { KeyringOptions } from '../src/vault/keyring.js';
import { createLocalRootKeys, type RootKeyProvider } from '../src/vault/root-key.js';
import { createVault, type Place, type Vault } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';

const secret = new Secret('SECRET-refresh-token');
const ownRoot = newRootKey();

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});

function newRootKey(): KeyObject {
  return createSecretKey(randomBytes(32));
}

/** Local root keys that can be switched off, as a remote provider can fail, and that count. */
function remoteRootKeys(...keys: KeyObject[]) {
  const local = createLocalRootKeys(keys);
  const state = { down: false, unwraps: 0 };
  const reach = () => {
    if (state.down) throw new Error('connect ETIMEDOUT');
  };
  const rootKeys: RootKeyProvider = {
    wrap: async (plain, context) => (reach(), local.wrap(plain, context)),
    unwrap: async (...wrapped) => {
      state.unwraps += 1;
      // The answer comes later, as over a network, so that callers can meet while it is on its way.
      await new Promise((resolve) => setImmediate(resolve));
      reach();
      return local.unwrap(...wrapped);
    },
    describe: async () => (reach(), local.describe()),
    health: async () => reach(),
    close: async () => undefined,
  };
  return { rootKeys, state };
}

function newVault(options: Partial<KeyringOptions> = {}): Vault {
  return createVault({ rootKeys: createLocalRootKeys([ownRoot]), ...options });
}

async function insertTenant(tx: Sql): Promise<string> {
  const id = randomUUID();
  await tx.query(sql`INSERT INTO tenant (id, external_id) VALUES (${id}::uuid, ${id})`);
  return id;
}

async function newTenant(vault: Vault = newVault()): Promise<string> {
  return database.transaction(async (tx) => {
    const tenantId = await insertTenant(tx);
    await vault.createTenantKey(tx, tenantId);
    return tenantId;
  });
}

function placeOf(tenantId: string | null): Place {
  return { tenantId, table: 'credential', column: 'sealed_refresh_token', recordId: randomUUID(), version: 1 };
}

/** What another process does that rotates the key of a tenant. */
async function rotate(tenantId: string, version: number): Promise<void> {
  const id = randomUUID();
  const context = { owner: tenantId, keyId: id, keyVersion: version };
  const { rootKeyId, blob } = await createLocalRootKeys([ownRoot]).wrap(randomBytes(32), context);
  await database.transaction(async (tx) => {
    await tx.query(sql`UPDATE tenant_key SET active = false WHERE owner = ${tenantId}`);
    await tx.query(sql`
      INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
      VALUES (${id}::uuid, ${tenantId}::uuid, ${tenantId}, ${version}, true, ${rootKeyId}, ${blob})`);
  });
}

async function failure(attempt: Promise<unknown>): Promise<unknown> {
  return attempt.then(
    () => expect.fail('it succeeded'),
    (error: unknown) => error,
  );
}

const unavailable = (reason: VaultUnavailableError['reason']) =>
  expect.objectContaining({ name: 'VaultUnavailableError', reason });

describe('a tenant and its key', () => {
  it('are made in one transaction, in which secrets can be sealed and opened at once', async () => {
    const vault = newVault();
    const { place, sealed, keyVersion } = await database.transaction(async (tx) => {
      const tenantId = await insertTenant(tx);
      await vault.createTenantKey(tx, tenantId);
      const place = placeOf(tenantId);
      const { sealed, keyVersion } = await vault.seal(tx, place, secret);
      expect((await vault.open(tx, place, sealed)).reveal()).toBe(secret.reveal());
      return { place, sealed, keyVersion };
    });

    expect(keyVersion).toBe(1);
    expect(inspectEnvelope(sealed).keyVersion).toBe(1);
    expect((await newVault().open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('leave nothing behind in the vault when that transaction is rolled back', async () => {
    const vault = newVault();
    const tenantId = await database.transaction(insertTenant);
    const rolledBack = database.transaction(async (tx) => {
      await vault.createTenantKey(tx, tenantId);
      await vault.seal(tx, placeOf(tenantId), secret);
      throw new Error('rolled back');
    });
    await expect(rolledBack).rejects.toThrow('rolled back');
    await expect(vault.seal(database, placeOf(tenantId), secret)).rejects.toEqual(unavailable('no-tenant-key'));
    await vault.createTenantKey(database, tenantId);
    const place = placeOf(tenantId);

    const { sealed } = await vault.seal(database, place, secret);

    expect((await newVault().open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('are one row, however many processes create the key at once', async () => {
    const owners = [null, ...(await Promise.all(Array.from({ length: 20 }, () => database.transaction(insertTenant))))];
    for (const owner of owners) {
      await Promise.all(Array.from({ length: 12 }, () => newVault().createTenantKey(database, owner)));

      const rows = await database.query(sql`SELECT id FROM tenant_key WHERE owner = ${owner ?? 'system'}`);
      expect(rows).toHaveLength(1);
    }
  });

  it('have the like for secrets of no tenant: the system key', async () => {
    await newVault().createTenantKey(database, null);
    const place: Place = { ...placeOf(null), table: 'provider_app', column: 'sealed_client_secret' };

    const { sealed } = await newVault().seal(database, place, secret);

    expect((await newVault().open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('are not given a first key again once it has been rotated away', async () => {
    const tenantId = await newTenant();
    await rotate(tenantId, 2);
    await database.query(sql`DELETE FROM tenant_key WHERE owner = ${tenantId} AND version = 1`);

    await newVault().createTenantKey(database, tenantId);

    const rows = await database.query(sql`SELECT version FROM tenant_key WHERE owner = ${tenantId}`);
    expect(rows).toEqual([{ version: 2 }]);
  });
});

describe('a sealed value', () => {
  it('opens for its own place only: no other tenant, table, column, row or version', async () => {
    const vault = newVault();
    const place = placeOf(await newTenant());
    const { sealed } = await vault.seal(database, place, secret);
    const others: Partial<Place>[] = [
      { tenantId: await newTenant() },
      { tenantId: null },
      { table: 'provider_revocation' },
      { column: 'sealed_access_token' },
      { recordId: randomUUID() },
      { version: 0 },
      { version: 2 },
    ];
    for (const other of others) {
      const error = await failure(vault.open(database, { ...place, ...other }, sealed));
      expect(error).toBeInstanceOf(VaultOpenError);
    }
    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('opens for no pair of tenants crosswise', async () => {
    const vault = newVault();
    const places = await Promise.all([0, 1, 2, 3].map(async () => placeOf(await newTenant(vault))));
    const values = await Promise.all(places.map((place) => vault.seal(database, place, secret)));
    for (const [at, place] of places.entries()) {
      for (const [from, { sealed }] of values.entries()) {
        // The row is the same on both sides: the tenant alone differs.
        const target = { ...place, recordId: places[from]?.recordId ?? '' };
        if (at === from) expect((await vault.open(database, target, sealed)).reveal()).toBe(secret.reveal());
        else await expect(vault.open(database, target, sealed)).rejects.toBeInstanceOf(VaultOpenError);
      }
    }
  });

  it('fails to open in one way only, whatever the reason', async () => {
    const vault = newVault();
    const place = placeOf(await newTenant());
    const sealed = Buffer.from((await vault.seal(database, place, secret)).sealed);
    const broken: Buffer[] = [
      Buffer.alloc(0),
      sealed.subarray(0, 50),
      sealed.subarray(0, -4),
      Buffer.concat([sealed, sealed]),
    ];
    for (let at = 0; at < sealed.length; at += 1) {
      const copy = Buffer.from(sealed);
      copy[at]! ^= 0x80;
      broken.push(copy);
    }
    const seen = new Set<string>();
    for (const copy of broken) {
      const error = (await failure(vault.open(database, place, copy))) as VaultOpenError;
      expect(error).toBeInstanceOf(VaultOpenError);
      seen.add(JSON.stringify([error.name, error.message, error.cause ?? null, Object.entries(error)]));
    }
    expect([...seen]).toEqual(['["VaultOpenError","The sealed value does not open",null,[["name","VaultOpenError"]]]']);
  });

  it('does not open any more once its tenant, and with it the key, is gone', async () => {
    const place = placeOf(await newTenant());
    const { sealed } = await newVault().seal(database, place, secret);

    await database.query(sql`DELETE FROM tenant WHERE id = ${place.tenantId}::uuid`);

    await expect(newVault().open(database, place, sealed)).rejects.toBeInstanceOf(VaultOpenError);
  });
});

describe("one tenant's key in another tenant's place", () => {
  it('is refused as a copied wrapped key', async () => {
    const [victim, thief] = [await newTenant(), await newTenant()];
    const { sealed } = await newVault().seal(database, placeOf(thief), secret);
    await database.query(sql`
      UPDATE tenant_key SET wrapped = (SELECT wrapped FROM tenant_key WHERE owner = ${victim}) WHERE owner = ${thief}`);
    const vault = newVault();

    await expect(vault.seal(database, placeOf(thief), secret)).rejects.toEqual(unavailable('wrapped-key-refused'));
    await expect(vault.open(database, placeOf(thief), sealed)).rejects.toEqual(unavailable('wrapped-key-refused'));
  });

  it('is refused as a row that changed its owner or version', async () => {
    const [victim, thief] = [await newTenant(), await newTenant()];
    const place = placeOf(victim);
    const { sealed } = await newVault().seal(database, place, secret);
    await database.query(sql`DELETE FROM tenant_key WHERE owner = ${thief}`);
    await database.query(sql`
      UPDATE tenant_key SET owner = ${thief}, tenant_id = ${thief}::uuid WHERE owner = ${victim}`);

    const stolen = newVault().open(database, { ...place, tenantId: thief }, sealed);
    await expect(stolen).rejects.toEqual(unavailable('wrapped-key-refused'));

    await database.query(sql`
      UPDATE tenant_key SET owner = ${victim}, tenant_id = ${victim}::uuid, version = 2 WHERE owner = ${thief}`);
    await expect(newVault().seal(database, place, secret)).rejects.toEqual(unavailable('wrapped-key-refused'));
    await expect(newVault().open(database, place, sealed)).rejects.toBeInstanceOf(VaultOpenError);
  });
});

describe('the cache of keys', () => {
  it('lets concurrent callers share one unwrap, and later ones need none', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const { sealed } = await newVault().seal(database, place, secret);
    const vault = newVault({ rootKeys });

    const opened = await Promise.all(Array.from({ length: 50 }, () => vault.open(database, place, sealed)));
    await Promise.all(Array.from({ length: 50 }, () => vault.seal(database, place, secret)));

    expect(new Set(opened.map((value) => value.reveal()))).toEqual(new Set([secret.reveal()]));
    expect(state.unwraps).toBe(1);
  });

  it('does not make a transaction wait for a statement outside of it', async () => {
    const place = placeOf(await newTenant());
    const { sealed } = await newVault().seal(database, place, secret);
    const vault = newVault();
    let outside: Promise<Secret> | undefined;

    const inside = await database.transaction(async (tx) => {
      await tx.query(sql`SELECT 1`);
      outside = vault.open(database, place, sealed);
      return vault.open(tx, place, sealed);
    });

    expect([inside.reveal(), (await outside)?.reveal()]).toEqual([secret.reveal(), secret.reveal()]);
  });

  it('bridges an outage of the root key provider, which others feel as unavailable', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const vault = newVault({ rootKeys });
    const { sealed } = await vault.seal(database, place, secret);
    state.down = true;
    const cold = newVault({ rootKeys });

    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
    await vault.seal(database, place, secret);
    await expect(cold.open(database, place, sealed)).rejects.toEqual(unavailable('provider-failed'));
    await expect(cold.seal(database, place, secret)).rejects.toEqual(unavailable('provider-failed'));
    state.down = false;
    expect((await cold.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('holds no more keys than it may, and forgets them in time', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const places = [placeOf(await newTenant()), placeOf(await newTenant())] as const;
    const values = await Promise.all(places.map((place) => newVault().seal(database, place, secret)));
    const small = newVault({ rootKeys, maxKeys: 1 });
    const forgetful = newVault({ rootKeys, keyTtlMs: 20 });
    const openBoth = async (vault: Vault) => {
      for (const [at, place] of places.entries())
        await vault.open(database, place, values[at]?.sealed ?? Buffer.alloc(0));
    };

    await openBoth(small);
    await openBoth(small);
    expect(state.unwraps).toBe(4);

    await openBoth(forgetful);
    expect(state.unwraps).toBe(6);
    await vi.waitFor(async () => {
      await openBoth(forgetful);
      expect(state.unwraps).toBe(8);
    });
  });

  it('bridges an outage that begins when the time of a key is just over, and asks the provider seldom meanwhile', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const vault = newVault({ rootKeys, keyTtlMs: 200 });
    const { sealed } = await vault.seal(database, place, secret);
    await setTimeout(210);
    state.down = true;
    const { unwraps } = state;

    for (let at = 0; at < 20; at += 1) {
      expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
    }

    expect(state.unwraps - unwraps).toBe(1);
    state.down = false;
    await vi.waitFor(async () => {
      await vault.open(database, place, sealed);
      expect(state.unwraps - unwraps).toBe(2);
    });
    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('uses no key for longer than twice its time, however long the root key provider is down', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const vault = newVault({ rootKeys, keyTtlMs: 100, activeTtlMs: 10 });
    const { sealed } = await vault.seal(database, place, secret);
    state.down = true;

    await vi.waitFor(() => expect(vault.open(database, place, sealed)).rejects.toEqual(unavailable('provider-failed')));
    await expect(vault.seal(database, place, secret)).rejects.toEqual(unavailable('provider-failed'));

    state.down = false;
    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });

  it('uses no key whose row is gone once its time is over, whatever the root key provider does', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const vault = newVault({ rootKeys, keyTtlMs: 50, activeTtlMs: 10 });
    const { sealed } = await vault.seal(database, place, secret);
    state.down = true;
    await database.query(sql`DELETE FROM tenant WHERE id = ${place.tenantId}::uuid`);
    await setTimeout(60);

    await expect(vault.open(database, place, sealed)).rejects.toBeInstanceOf(VaultOpenError);
    await expect(vault.seal(database, place, secret)).rejects.toEqual(unavailable('no-tenant-key'));
  });

  it('forgets the keys of one owner when it is told to, also one that is on its way, and no other', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const [gone, kept] = [placeOf(await newTenant()), placeOf(await newTenant())];
    const vault = newVault({ rootKeys });
    const [former, other] = [await vault.seal(database, gone, secret), await vault.seal(database, kept, secret)];
    vault.forgetKeys(gone.tenantId);
    const { unwraps } = state;
    const onItsWay = vault.open(database, gone, former.sealed);
    await vi.waitFor(() => expect(state.unwraps).toBe(unwraps + 1), { interval: 1 });
    vault.forgetKeys(gone.tenantId);
    await onItsWay;
    await database.query(sql`DELETE FROM tenant WHERE id = ${gone.tenantId}::uuid`);

    await expect(vault.open(database, gone, former.sealed)).rejects.toBeInstanceOf(VaultOpenError);
    await expect(vault.seal(database, gone, secret)).rejects.toEqual(unavailable('no-tenant-key'));
    await vault.open(database, kept, other.sealed);
    expect(state.unwraps).toBe(unwraps + 1);
  });

  it('tells how many keys it holds, how often one was at hand and how often the provider was asked', async () => {
    const places = [placeOf(await newTenant()), placeOf(await newTenant())] as const;
    const vault = newVault({ maxKeys: 1 });
    expect(vault.keyCacheStats()).toEqual({ hits: 0, unwraps: 0, size: 0 });
    const { sealed } = await vault.seal(database, places[0], secret);
    await vault.open(database, places[0], sealed);
    await vault.open(database, places[0], sealed);
    expect(vault.keyCacheStats()).toEqual({ hits: 2, unwraps: 1, size: 1 });
    await vault.seal(database, places[1], secret);
    expect(vault.keyCacheStats()).toEqual({ hits: 2, unwraps: 2, size: 1 });
  });

  it('asks a root key provider that fails far less often than callers come, and tells all of them', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    const place = placeOf(await newTenant());
    const { sealed } = await newVault().seal(database, place, secret);
    const vault = newVault({ rootKeys });
    state.down = true;

    const attempts = await Promise.allSettled(Array.from({ length: 1_000 }, () => vault.open(database, place, sealed)));

    const reasons = attempts.map((attempt) => (attempt as PromiseRejectedResult).reason as unknown);
    expect(reasons).toEqual(Array(1_000).fill(unavailable('provider-failed')));
    expect(state.unwraps).toBeLessThan(500);
  });

  it.each([{ maxKeys: 0 }, { keyTtlMs: 0 }, { activeTtlMs: -1 }, { keyTtlMs: Number.NaN }])(
    'is never without bounds (%j)',
    (options) => {
      expect(() => newVault(options)).toThrow(RangeError);
    },
  );
});

describe('a rotation by another process', () => {
  it('is seen in bounded time, and what the old version sealed still opens', async () => {
    const vault = newVault({ activeTtlMs: 20 });
    const place = placeOf(await newTenant());
    const before = await vault.seal(database, place, secret);

    await rotate(place.tenantId ?? '', 2);

    await vi.waitFor(async () => expect((await vault.seal(database, place, secret)).keyVersion).toBe(2));
    const after = await vault.seal(database, place, secret);
    expect(inspectEnvelope(after.sealed).keyId).not.toBe(inspectEnvelope(before.sealed).keyId);
    for (const reader of [vault, newVault()]) {
      for (const { sealed } of [before, after]) {
        expect((await reader.open(database, place, sealed)).reveal()).toBe(secret.reveal());
      }
    }
  });

  it('does no harm before it is seen: the former key still seals what opens', async () => {
    const vault = newVault();
    const place = placeOf(await newTenant());
    await vault.seal(database, place, secret);
    await rotate(place.tenantId ?? '', 2);

    const { sealed, keyVersion } = await vault.seal(database, place, secret);

    expect(keyVersion).toBe(1);
    expect((await newVault().open(database, place, sealed)).reveal()).toBe(secret.reveal());
  });
});

describe('without the right root key nothing is stored', () => {
  it('and no key row, when the provider fails while a tenant is made', async () => {
    const { rootKeys, state } = remoteRootKeys(ownRoot);
    state.down = true;
    const tenantId = await database.transaction(insertTenant);

    const creating = newVault({ rootKeys }).createTenantKey(database, tenantId);

    await expect(creating).rejects.toEqual(unavailable('provider-failed'));
    expect(await database.query(sql`SELECT id FROM tenant_key WHERE owner = ${tenantId}`)).toEqual([]);
  });

  it('and nothing is sealed for a tenant that has no key', async () => {
    const tenantId = await database.transaction(insertTenant);

    await expect(newVault().seal(database, placeOf(tenantId), secret)).rejects.toEqual(unavailable('no-tenant-key'));
  });

  it('and nothing is sealed or opened with keys of another root key', async () => {
    const place = placeOf(await newTenant());
    const { sealed } = await newVault().seal(database, place, secret);
    const stranger = newVault({ rootKeys: createLocalRootKeys([newRootKey()]) });

    await expect(stranger.seal(database, place, secret)).rejects.toEqual(unavailable('root-key-missing'));
    await expect(stranger.open(database, place, sealed)).rejects.toEqual(unavailable('root-key-missing'));
  });
});

describe('the check at start', () => {
  let fresh: Database;
  beforeAll(async () => {
    fresh = await openTestDatabase();
  });
  beforeEach(async () => {
    await fresh.query(sql`DELETE FROM tenant_key`);
    await fresh.query(sql`DELETE FROM root_key`);
  });

  const start = async (...keys: KeyObject[]) => {
    const vault = createVault({ rootKeys: createLocalRootKeys(keys) });
    await vault.verify(fresh);
    return vault;
  };
  const idOf = async (key: KeyObject) => (await createLocalRootKeys([key]).describe())[0]?.id ?? '';
  const knownIds = async () => {
    const rows = await fresh.query<{ id: string }>(sql`SELECT id FROM root_key ORDER BY created_at`);
    return new Set(rows.map(({ id }) => id));
  };

  it('makes the newest root key known to an empty database, and lets it in again', async () => {
    const [key, older] = [newRootKey(), newRootKey()];
    await start(key, older);
    await start(key);

    expect(await knownIds()).toEqual(new Set([await idOf(key)]));
  });

  it('stops with one sentence that names the fingerprints where another root key is given', async () => {
    const [right, wrong] = [newRootKey(), newRootKey()];
    await start(right);

    const error = await failure(start(wrong));

    expect(error).toBeInstanceOf(RootKeyMismatchError);
    expect((error as Error).message).toBe(
      `This database was sealed with root key ${await idOf(right)}, but the given root key is ${await idOf(wrong)}.`,
    );
    expect(await knownIds()).toEqual(new Set([await idOf(right)]));
  });

  it('takes up a new root key only beside one that the database knows', async () => {
    const [old, next] = [newRootKey(), newRootKey()];
    await start(old);
    await expect(start(next)).rejects.toBeInstanceOf(RootKeyMismatchError);

    await start(next, old);
    await start(next);

    expect(await knownIds()).toEqual(new Set([await idOf(old), await idOf(next)]));
  });

  it('stops where a root key is missing that still wraps a key', async () => {
    const [old, next] = [newRootKey(), newRootKey()];
    await (await start(old)).createTenantKey(fresh, null);
    await start(next, old);

    await expect(start(next)).rejects.toThrow(
      `This database still needs root key ${await idOf(old)}, but the given root key is ${await idOf(next)}.`,
    );
    await fresh.query(sql`DELETE FROM root_key`);
    await expect(start(next)).rejects.toBeInstanceOf(RootKeyMismatchError);
    expect(await knownIds()).toEqual(new Set());
  });

  it('stops where the check value shows another key behind the same fingerprint', async () => {
    const key = newRootKey();
    await start(key);
    await fresh.query(sql`UPDATE root_key SET check_value = ${randomBytes(32)}`);

    await expect(start(key)).rejects.toBeInstanceOf(RootKeyMismatchError);
  });

  it('stops at such a key also where the others fit', async () => {
    const [old, next] = [newRootKey(), newRootKey()];
    await start(old);
    await start(next, old);
    await fresh.query(sql`UPDATE root_key SET check_value = ${randomBytes(32)} WHERE id = ${await idOf(next)}`);

    await expect(start(next, old)).rejects.toThrow(`The given root key ${await idOf(next)} is not the key`);
  });

  it('lets one in where several start at once on an empty database with different root keys', async () => {
    const starts = await Promise.allSettled(Array.from({ length: 6 }, () => start(newRootKey())));

    const refused = starts.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason as unknown] : []));
    expect(refused).toHaveLength(5);
    for (const error of refused) expect(error).toBeInstanceOf(RootKeyMismatchError);
    expect((await knownIds()).size).toBe(1);
  });

  it('lets all in where several start at once with the same root key', async () => {
    const key = newRootKey();
    await Promise.all(Array.from({ length: 6 }, () => start(key)));

    expect(await knownIds()).toEqual(new Set([await idOf(key)]));
  });
});
