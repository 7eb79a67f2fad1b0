import sql, { join, raw } from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { VaultOpenError } from '../vault/errors.js';
import type { Sealed, Sealer } from '../vault/vault.js';
import type { Deps } from './deps.js';
import { isStale, SEALED_TABLES, type SealedTable, staleCiphertexts } from './sealed-column.js';

/** Rows that one statement replaces; other writers of one of them wait for it. */
const BATCH = 100;
/** Rows that are looked up at once. */
const PAGE = 10_000;
/** Rows that one turn seals anew before the job looks whether it is to stop. */
const TURN = 2_000;

/** An owner whose key has superseded versions. */
interface Owner {
  /** Null: the system. */
  tenantId: string | null;
  /** The version that is active. */
  version: number;
}

/** Ciphertexts of an owner that an older version of its key sealed. */
export async function countStale(db: Sql, { tenantId, version }: Owner): Promise<number> {
  let count = 0;
  for (const table of SEALED_TABLES) {
    const [row] = await db.query<{ count: number }>(sql`
      SELECT coalesce(sum(${staleCiphertexts(table, version)}), 0)::int AS count FROM ${raw(table.name)} t
      WHERE ${table.ownedBy(tenantId)} AND ${isStale(table, version)}`);
    count += row?.count ?? 0;
  }
  return count;
}

/** Owners with superseded key versions that are not destroyed yet. */
export const ownersToReseal = (db: Sql): Promise<Owner[]> =>
  db.query<Owner>(sql`
    SELECT tenant_id AS "tenantId", version FROM tenant_key
    WHERE active AND owner IN (SELECT owner FROM tenant_key WHERE NOT active) ORDER BY owner`);

/**
 * Seals a bounded number of ciphertexts of rotated keys with the active versions.
 *
 * Any number of processes may do so at once, and one that stops anywhere is followed by the next: a row is replaced only
 * where its ciphertexts and its version are still those that were read, so nothing newer is overwritten. Leases and
 * fences stay as they are, so a refresh that is under way commits as if nothing had happened. No row is locked while a
 * secret is open.
 *
 * @returns whether there may be more to do at once.
 */
export async function resealStale(deps: Pick<Deps, 'db' | 'vault' | 'log'>): Promise<boolean> {
  let room = TURN;
  for (const owner of await ownersToReseal(deps.db)) {
    for (const table of SEALED_TABLES) {
      room -= await resealTable(deps, table, owner, room);
      if (room <= 0) return true;
    }
  }
  return false;
}

async function resealTable(
  deps: Pick<Deps, 'db' | 'vault' | 'log'>,
  table: SealedTable,
  owner: Owner,
  room: number,
): Promise<number> {
  const stale = await deps.db.query<{ id: string }>(sql`
    SELECT ${raw(table.id)} AS id FROM ${raw(table.name)} t
    WHERE ${table.ownedBy(owner.tenantId)} AND ${isStale(table, owner.version)} LIMIT ${Math.min(PAGE, room)}`);
  if (stale.length === 0) return 0;
  const sealer = await deps.vault.sealer(deps.db, owner.tenantId);
  // Another process has rotated the key moments ago, and this one still seals with the version before.
  if (sealer.keyVersion < owner.version) return 0;
  let done = 0;
  for (let at = 0; at < stale.length; at += BATCH) {
    const ids = stale.slice(at, at + BATCH).map(({ id }) => id);
    done += await resealBatch(deps, { table, tenantId: owner.tenantId, sealer }, ids);
  }
  deps.log.info('secrets were sealed with the new version of a key', {
    job: 'reseal',
    count: done,
    ...(owner.tenantId === null ? {} : { tenantId: owner.tenantId }),
  });
  return done;
}

interface Target {
  table: SealedTable;
  tenantId: string | null;
  sealer: Sealer;
}

interface StaleRow {
  id: string;
  version: number;
  sealed: Record<string, Sealed | null>;
}

async function resealBatch(
  deps: Pick<Deps, 'db' | 'vault' | 'log'>,
  target: Target,
  ids: readonly string[],
): Promise<number> {
  const replaced: (StaleRow & { anew: Record<string, Sealed | null> })[] = [];
  for (const row of await read(deps.db, target.table, ids)) {
    try {
      replaced.push({ ...row, anew: await resealRow(deps, target, row) });
    } catch (error) {
      if (!(error instanceof VaultOpenError)) throw error;
      // It stays as it is, and so does the key that it names.
      deps.log.error('a stored secret does not open and cannot be sealed anew', { job: 'reseal' });
    }
  }
  if (replaced.length === 0) return 0;
  return store(deps.db, target, replaced);
}

async function read(db: Sql, table: SealedTable, ids: readonly string[]): Promise<StaleRow[]> {
  const columns = table.columns.map((name) => raw(`t.${name} AS "${name}"`));
  const rows = await db.query<Record<string, unknown> & { id: string; version: number }>(sql`
    SELECT t.${raw(table.id)} AS id, ${raw(table.rowVersion === null ? '1' : `t.${table.rowVersion}`)} AS version,
      ${join(columns)}
    FROM ${raw(table.name)} t WHERE t.${raw(table.id)} = ANY(${ids}::uuid[])`);
  return rows.map((row) => ({
    id: row.id,
    version: row.version,
    sealed: Object.fromEntries(table.columns.map((name) => [name, row[name] as Sealed | null])),
  }));
}

async function resealRow(
  deps: Pick<Deps, 'db' | 'vault'>,
  { table, tenantId, sealer }: Target,
  { id, version, sealed }: StaleRow,
): Promise<Record<string, Sealed | null>> {
  const anew: Record<string, Sealed | null> = {};
  for (const name of table.columns) {
    const former = sealed[name] ?? null;
    const place = { tenantId, table: table.name, column: name, recordId: id, version };
    anew[name] = former === null ? null : sealer.seal(place, await deps.vault.open(deps.db, place, former));
  }
  return anew;
}

/** Rows that somebody else has locked are left for the next turn, so that this waits for nobody. */
async function store(
  db: Sql,
  { table, sealer }: Target,
  rows: readonly (StaleRow & { anew: Record<string, Sealed | null> })[],
): Promise<number> {
  const values = (pick: (row: (typeof rows)[number], name: string) => Sealed | null) =>
    join(table.columns.map((name) => sql`${rows.map((row) => pick(row, name))}::bytea[]`));
  const list = (prefix: string) => table.columns.map((name) => `${prefix}_${name}`).join(', ');
  const unchanged = table.columns.map((name) => raw(`t.${name} IS NOT DISTINCT FROM new.former_${name}`));
  if (table.rowVersion !== null) unchanged.push(raw(`t.${table.rowVersion} = new.version`));
  const changes = table.columns.map((name) => raw(`${name} = new.anew_${name}`));
  if (table.keyVersion !== null) changes.push(sql`${raw(table.keyVersion)} = ${sealer.keyVersion}`);
  const stored = await db.query(sql`
    WITH free AS (
      SELECT ${raw(table.id)} AS id FROM ${raw(table.name)}
      WHERE ${raw(table.id)} = ANY(${rows.map(({ id }) => id)}::uuid[]) FOR UPDATE SKIP LOCKED
    )
    UPDATE ${raw(table.name)} t SET ${join(changes)}
    FROM free, unnest(${rows.map(({ id }) => id)}::uuid[], ${rows.map(({ version }) => version)}::int[],
      ${values((row, name) => row.sealed[name] ?? null)}, ${values((row, name) => row.anew[name] ?? null)})
      AS new(id, version, ${raw(list('former'))}, ${raw(list('anew'))})
    WHERE t.${raw(table.id)} = free.id AND new.id = free.id AND ${join(unchanged, ' AND ')}
    RETURNING t.${raw(table.id)}`);
  return stored.length;
}
