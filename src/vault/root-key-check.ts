import sql from 'sql-template-tag';
import type { Database, Sql } from '../database/database.js';
import { RootKeyMismatchError } from './errors.js';
import type { RootKeyDescription, RootKeyProvider } from './root-key.js';

/**
 * Checks at start that the given root keys are those of the database, and makes a new one known to it.
 *
 * The newest given key is registered where the database knows none yet, or where it is new and one that the database
 * knows is given beside it. Runs in a transaction of its own and under a lock, so that of two processes that start at
 * once on an empty database with different keys the second one fails.
 *
 * @throws {RootKeyMismatchError} none of the keys that the database knows is given, a given one has the id of a known
 *   one and is another, or a key that still wraps tenant keys is not given.
 */
export async function verifyRootKeys(
  database: Pick<Database, 'transaction'>,
  rootKeys: RootKeyProvider,
): Promise<void> {
  const given = await rootKeys.describe();
  await database.transaction(async (tx) => {
    // Not the table's lock, which only those get who may change or remove its rows.
    await tx.query(sql`SELECT pg_advisory_xact_lock(hashtextextended('root_key', 0))::text`);
    const known = await tx.query<RootKeyDescription>(sql`SELECT id, check_value AS "checkValue" FROM root_key`);
    refuseMismatch(given, known, await idsInUse(tx));
    const [newest] = given;
    if (newest === undefined || known.some(({ id }) => id === newest.id)) return;
    await tx.query(sql`INSERT INTO root_key (id, check_value) VALUES (${newest.id}, ${newest.checkValue})`);
  });
}

/** Whether the database still is one that the given root keys belong to. Reads only, and takes no lock. */
export async function fitsRootKeys(db: Sql, rootKeys: RootKeyProvider): Promise<boolean> {
  const given = await rootKeys.describe();
  const known = await db.query<RootKeyDescription>(sql`SELECT id, check_value AS "checkValue" FROM root_key`);
  return known.some((key) => given.some((other) => isSameKey(key, other)));
}

async function idsInUse(tx: Sql): Promise<string[]> {
  const rows = await tx.query<{ id: string }>(sql`SELECT DISTINCT root_key_id AS id FROM tenant_key ORDER BY id`);
  return rows.map(({ id }) => id);
}

function refuseMismatch(
  given: readonly RootKeyDescription[],
  known: readonly RootKeyDescription[],
  inUse: readonly string[],
): void {
  const matching = given.filter((key) => known.some((other) => isSameKey(key, other)));
  const contradicting = given.filter((key) => known.some((other) => key.id === other.id && !isSameKey(key, other)));
  const missing = inUse.filter((id) => !given.some((key) => key.id === id));
  if (contradicting.length > 0) {
    throw new RootKeyMismatchError(
      `The given root key ${names(contradicting)} is not the key that this database knows by that fingerprint.`,
    );
  }
  if (known.length > 0 && matching.length === 0) {
    throw new RootKeyMismatchError(
      `This database was sealed with root key ${names(known)}, but the given root key is ${names(given)}.`,
    );
  }
  if (missing.length > 0) {
    throw new RootKeyMismatchError(
      `This database still needs root key ${missing.join(', ')}, but the given root key is ${names(given)}.`,
    );
  }
}

function isSameKey(a: RootKeyDescription, b: RootKeyDescription): boolean {
  return a.id === b.id && Buffer.compare(a.checkValue, b.checkValue) === 0;
}

function names(keys: readonly RootKeyDescription[]): string {
  return keys.length === 0 ? 'none' : keys.map(({ id }) => id).join(', ');
}
