import { randomBytes, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readConfig } from '../src/config.js';
import type { Database } from '../src/database/database.js';
import { openRootKeys } from '../src/root-keys.js';
import { Secret } from '../src/secret.js';
import { RootKeyMismatchError } from '../src/vault/errors.js';
import { createVault, type Place, type VerifiableVault } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';
import { startKmsStandIn } from './support/kms-stand-in.js';
import { kmsSettings, pkcs11Settings, useCredentials } from './support/root-key-stages.js';
import { createSoftHsm } from './support/softhsm.js';

const TENANTS = 105;
const secret = new Secret('SECRET-refresh-token');

const kms = await startKmsStandIn();
afterAll(() => kms.stop());
useCredentials(kms.credentials);
const hsm = await createSoftHsm();
await hsm.createKey('root');

const env = { LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64') };
const pkcs11 = pkcs11Settings(hsm, ['root']);
const awsKms = kmsSettings(kms, [kms.createKey()]);

let database: Database;
beforeAll(async () => {
  database = await openTestDatabase();
});

/** A process that starts with these providers, newest first. */
async function start(providers: string, settings: Record<string, string>): Promise<VerifiableVault> {
  const given = { ...settings, LATCHKEY_ROOT_KEY_PROVIDER: providers, LATCHKEY_ROOT_KEY_TIMEOUT_MS: '20000' };
  const rootKeys = await openRootKeys(readConfig(given));
  afterAll(() => rootKeys.close());
  const vault = createVault({ rootKeys });
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

async function makeTenant(vault: VerifiableVault): Promise<{ place: Place; sealed: Uint8Array }> {
  const id = randomUUID();
  return database.transaction(async (tx) => {
    await tx.query(sql`INSERT INTO tenant (id, external_id) VALUES (${id}::uuid, ${id})`);
    await vault.createTenantKey(tx, id);
    return { place: placeOf(id), sealed: (await vault.seal(tx, placeOf(id), secret)).sealed };
  });
}

async function rewrapAll(vault: VerifiableVault): Promise<void> {
  while ((await vault.rewrapKeys(database)).pending > 0);
}

test('root keys move from the environment to a token and on to AWS KMS, while everything stays readable', async () => {
  const stored: Awaited<ReturnType<typeof makeTenant>>[] = [];
  const first = await start('env', env);
  await first.createTenantKey(database, null);
  for (let at = 0; at < TENANTS; at += 1) stored.push(await makeTenant(first));
  const readBy = async (vault: VerifiableVault) => {
    for (const { place, sealed } of stored)
      expect((await vault.open(database, place, sealed)).reveal()).toBe(secret.reveal());
  };

  // Given behind first, so that processes that restart one by one can all unwrap what the first of them wraps.
  const prepared = await start('env,pkcs11', { ...env, ...pkcs11 });
  const toToken = await start('pkcs11,env', { ...env, ...pkcs11 });
  stored.push(await makeTenant(toToken));
  await toToken.rewrapKeys(database);
  await readBy(prepared);
  await expect(start('pkcs11', pkcs11)).rejects.toThrow(
    /^This database still needs root key [0-9a-f]{16}, but the given/,
  );
  await rewrapAll(toToken);
  await readBy(await start('pkcs11', pkcs11));
  await expect(start('env', env)).rejects.toBeInstanceOf(RootKeyMismatchError);

  const toKms = await start('aws-kms,pkcs11', { ...pkcs11, ...awsKms });
  await toKms.rotateKey(database, stored[0]?.place.tenantId ?? null);
  await rewrapAll(toKms);
  const last = await start('aws-kms', awsKms);
  await readBy(last);
  expect((await last.seal(database, stored[0]?.place ?? placeOf(''), secret)).keyVersion).toBe(2);
});

test('a database is not opened with another key of the same provider', async () => {
  const other = kmsSettings(kms, [kms.createKey()]);
  await hsm.createKey('other');

  await expect(start('aws-kms', other)).rejects.toThrow(
    /^This database was sealed with root key .*aws-kms:arn:aws:kms:/,
  );
  await expect(start('pkcs11', pkcs11Settings(hsm, ['other']))).rejects.toBeInstanceOf(RootKeyMismatchError);
});
