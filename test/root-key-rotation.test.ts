import { createSecretKey, randomBytes, randomUUID, type KeyObject } from 'node:crypto';
import sql from 'sql-template-tag';
import { beforeAll, describe, expect, it } from 'vitest';
import type { Database } from '../src/database/database.js';
import { rewrapKeys } from '../src/domain/tenant-key.js';
import { createLog } from '../src/log.js';
import { Secret } from '../src/secret.js';
import { RootKeyMismatchError, VaultOpenError } from '../src/vault/errors.js';
import { createLocalRootKeys, type RootKeyProvider } from '../src/vault/root-key.js';
import { createVault, type Place, type VerifiableVault } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';

const TENANTS = 230;
const secret = new Secret('SECRET-refresh-token');
const newRootKey = (): KeyObject => createSecretKey(randomBytes(32));
const idOf = async (key: KeyObject) => (await createLocalRootKeys([key]).describe())[0]?.id ?? '';

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});

/** A process that starts with these root keys. */
async function start(...keys: KeyObject[]): Promise<VerifiableVault> {
  const vault = createVault({ rootKeys: createLocalRootKeys(keys) });
  await vault.verify(database);
  return vault;
}

const placeOf = (tenantId: string): Place => ({
  tenantId,
  table: 'credential',
  column: 'sealed_refresh_token',
  recordId: tenantId,
  version: 1,
});

interface Stored {
  place: Place;
  sealed: Uint8Array;
}

/** An empty database in which a process with this root key has made tenants and sealed a secret for each. */
async function fill(key: KeyObject): Promise<Stored[]> {
  for (const table of [sql`DELETE FROM tenant_key`, sql`DELETE FROM root_key`, sql`DELETE FROM tenant`]) {
    await database.query(table);
  }
  const vault = await start(key);
  await vault.createTenantKey(database, null);
  return database.transaction(async (tx) => {
    const stored: Stored[] = [];
    for (let at = 0; at < TENANTS; at += 1) {
      const id = randomUUID();
      await tx.query(sql`INSERT INTO tenant (id, external_id) VALUES (${id}::uuid, ${id})`);
      await vault.createTenantKey(tx, id);
      stored.push({ place: placeOf(id), sealed: (await vault.seal(tx, placeOf(id), secret)).sealed });
    }
    return stored;
  });
}

async function openAll(vault: VerifiableVault, stored: readonly Stored[]): Promise<void> {
  for (const { place, sealed } of stored) {
    expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  }
}

/** How many keys each root key wraps. */
async function wrappedBy(): Promise<Record<string, number>> {
  const rows = await database.query<{ id: string; count: number }>(sql`
    SELECT root_key_id AS id, count(*) AS count FROM tenant_key GROUP BY root_key_id`);
  return Object.fromEntries(rows.map(({ id, count }) => [id, count]));
}

/** Works the background job off. */
async function rewrap(vault: VerifiableVault): Promise<void> {
  const log = createLog('silent');
  while (await rewrapKeys({ db: database, vault, log }));
}

describe('a rotated root key', () => {
  it('wraps every key anew, without a change of what is sealed, while both root keys open everything', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    const stored = await fill(former);
    const both = await start(newest, former);
    await openAll(both, stored.slice(0, 20));

    const progress = await both.rewrapKeys(database);

    expect(progress).toEqual({ rewrapped: 100, pending: TENANTS + 1 - 100 });
    await openAll(await start(newest, former), stored);
    await rewrap(both);
    expect(await wrappedBy()).toEqual({ [await idOf(newest)]: TENANTS + 1 });
    await openAll(both, stored);
    await openAll(await start(newest), stored);
  });

  it('is refused at the start as long as the former one is needed and not given, and then only the former one is', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    await fill(former);
    const both = await start(newest, former);
    await both.rewrapKeys(database);

    await expect(start(newest)).rejects.toThrow(
      `This database still needs root key ${await idOf(former)}, but the given root key is ${await idOf(newest)}.`,
    );
    await expect(start(former)).rejects.toBeInstanceOf(RootKeyMismatchError);
    await rewrap(both);
    await start(newest);
    await expect(start(former)).rejects.toThrow(
      `This database still needs root key ${await idOf(newest)}, but the given root key is ${await idOf(former)}.`,
    );
  });

  it('can first be given as the second one, so that processes which restart one by one always know it', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    const stored = await fill(former);
    const prepared = await start(former, newest);
    await rewrap(prepared);
    expect(await wrappedBy()).toEqual({ [await idOf(former)]: TENANTS + 1 });

    await rewrap(await start(newest, former));

    await openAll(prepared, stored);
    await prepared.rotateKey(database, stored[0]?.place.tenantId ?? null);
    await rewrap(await start(newest, former));
    await openAll(await start(newest), stored);
  });

  it('goes on where a process died, also between the question to the provider and the row', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    const stored = await fill(former);
    const local = createLocalRootKeys([newest, former]);
    let wraps = 0;
    const dying: RootKeyProvider = {
      ...local,
      wrap: async (plain, context) => {
        wraps += 1;
        if (wraps > 30) throw new Error('killed');
        return local.wrap(plain, context);
      },
    };
    await expect(createVault({ rootKeys: dying }).rewrapKeys(database)).rejects.toThrow('killed');
    expect(await wrappedBy()).toEqual({ [await idOf(former)]: TENANTS - 29, [await idOf(newest)]: 30 });

    await rewrap(await start(newest, former));

    await openAll(await start(newest), stored);
  });

  it('may be put in place by two processes at once, while keys are rotated and made', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    const stored = await fill(former);
    const [first, second] = [await start(newest, former), await start(newest, former)];
    const rotating = (async () => {
      for (const { place } of stored.slice(0, 30)) await second.rotateKey(database, place.tenantId);
    })();

    await Promise.all([rewrap(first), rewrap(second), rotating]);
    await rewrap(first);

    expect(await wrappedBy()).toEqual({ [await idOf(newest)]: TENANTS + 31 });
    const alone = await start(newest);
    await openAll(alone, stored);
    const [rotated] = stored;
    if (rotated === undefined) throw new Error('There is no tenant.');
    expect((await alone.seal(database, rotated.place, secret)).keyVersion).toBe(2);
  });
});

describe('a backup', () => {
  it('gives a destroyed key back as long as the root key that wrapped it exists, and no longer', async () => {
    const [former, newest] = [newRootKey(), newRootKey()];
    const [secretOfTenant] = await fill(former);
    if (secretOfTenant === undefined) throw new Error('There is no tenant.');
    const { place, sealed } = secretOfTenant;
    interface Row {
      id: string;
      rootKeyId: string;
      wrapped: Uint8Array;
    }
    const [backup] = await database.query<Row>(sql`
      SELECT id, root_key_id AS "rootKeyId", wrapped FROM tenant_key WHERE tenant_id = ${place.tenantId}::uuid`);
    if (backup === undefined) throw new Error('The tenant has no key.');
    await database.query(sql`DELETE FROM tenant_key WHERE tenant_id = ${place.tenantId}::uuid`);
    const both = await start(newest, former);
    await expect(both.open(database, place, sealed)).rejects.toBeInstanceOf(VaultOpenError);
    await rewrap(both);

    await database.query(sql`
      INSERT INTO tenant_key (id, tenant_id, owner, version, active, root_key_id, wrapped)
      VALUES (${backup.id}::uuid, ${place.tenantId}::uuid, ${place.tenantId}, 1, true, ${backup.rootKeyId}, ${backup.wrapped})`);

    expect((await both.open(database, place, sealed)).reveal()).toBe(secret.reveal());
    const without = createVault({ rootKeys: createLocalRootKeys([newest]) });
    await expect(without.open(database, place, sealed)).rejects.toMatchObject({ reason: 'root-key-missing' });
    await expect(start(newest)).rejects.toBeInstanceOf(RootKeyMismatchError);
  });
});
