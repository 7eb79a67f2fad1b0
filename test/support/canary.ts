import sql, { raw } from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';
import { CANARY } from '../../src/sandbox/mint.js';

/** A secret, or the marker in it, as it would look in the encodings that secrets are put into by accident. */
function formsOf(secret: string): string[] {
  const bytes = Buffer.from(secret);
  return [
    secret,
    bytes.toString('hex'),
    encodeURIComponent(secret),
    // Base64 shows a text in three ways, by its place in what was encoded.
    ...[0, 1, 2].map((shift) =>
      Buffer.concat([Buffer.alloc(shift), bytes])
        .toString('base64')
        .slice(shift === 0 ? 0 : shift + 1, -4),
    ),
  ];
}

/** Everything the database holds, as text. */
export async function dumpDatabase(db: Database): Promise<string> {
  const tables = await db.query<{ name: string }>(sql`
    SELECT table_name AS name FROM information_schema.tables WHERE table_schema = 'public'`);
  const dumps = await Promise.all(
    tables.map(async ({ name }) => {
      const rows = await db.query<{ row: string }>(sql`SELECT t::text AS row FROM ${raw(`"${name}"`)} t`);
      return rows.map(({ row }) => `${name}: ${row}`).join('\n');
    }),
  );
  return dumps.join('\n');
}

/** Names of the places that hold a marked secret of the sandbox, or one of `others`, in any common encoding. */
export async function findCanaries(
  places: Record<string, string>,
  db?: Database,
  others: readonly string[] = [],
): Promise<string[]> {
  const forms = [CANARY, ...others].flatMap(formsOf);
  const all = db === undefined ? places : { ...places, database: await dumpDatabase(db) };
  return Object.entries(all).flatMap(([place, text]) =>
    forms.filter((form) => text.includes(form)).map((form) => `${place} holds ${form}`),
  );
}
