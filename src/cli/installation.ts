import type { Config } from '../config.js';
import type { Database } from '../database/database.js';
import { actingAs, BY_OPERATOR, withAudit } from '../domain/audit.js';
import { createAuditKey } from '../domain/audit-key.js';
import { createAuditTrail } from '../domain/audit-trail.js';
import { createLog } from '../log.js';
import { openDatabase } from '../open-database.js';
import { openRootKeys } from '../root-keys.js';
import { createVault, type VerifiableVault } from '../vault/vault.js';

/**
 * Gives `use` the database that the settings name, migrated as at a start, and closes it. The embedded one has one
 * process at a time, so its server must be stopped.
 */
export async function withDatabase<T>(config: Config, use: (db: Database) => Promise<T>): Promise<T> {
  const db = await openDatabase({ ...config, databasePoolSize: 2 }, createLog('silent'));
  try {
    return await use(db);
  } finally {
    await db.close();
  }
}

/** As `withDatabase`, with the vault of its root keys. @throws {RootKeyMismatchError} */
export const withVault = <T>(config: Config, use: (parts: { db: Database; vault: VerifiableVault }) => Promise<T>) =>
  withDatabase(config, async (db) => {
    const rootKeys = await openRootKeys(config);
    try {
      const vault = createVault({ rootKeys });
      await vault.verify(db);
      return await use({ db, vault });
    } finally {
      await rootKeys.close();
    }
  });

/**
 * As `withVault`, for what changes something: what the transactions note is recorded as the operator's. Makes the keys of
 * the trail where there are none yet, as a start does.
 */
export const asOperator = <T>(config: Config, use: (parts: { db: Database; vault: VerifiableVault }) => Promise<T>) =>
  withVault(config, async ({ db: plain, vault }) => {
    const db = actingAs(withAudit(plain, createAuditTrail({ vault })), { principal: BY_OPERATOR });
    await vault.createTenantKey(db, null);
    await createAuditKey(vault, db);
    return use({ db, vault });
  });
