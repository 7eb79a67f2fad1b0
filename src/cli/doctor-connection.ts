import pg from 'pg';
import type { Sql, SqlStatement } from '../database/database.js';
import type { UrlSetting } from '../database/postgres-connect.js';
import { failed, type Finding } from './doctor-finding.js';

const CONNECT_MS = 5_000;

/** SQLSTATE of a protocol violation, which is what PgBouncer says when it does not let somebody in. */
const POOLER_REFUSES = '08P01';

/** Looks at a database server over one connection. A connection or statement that fails is a finding. */
export async function lookAt(
  url: string,
  setting: UrlSetting,
  look: (db: Sql, client: pg.Client) => Promise<Finding[]>,
): Promise<Finding[]> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: CONNECT_MS,
    query_timeout: CONNECT_MS,
  });
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch (error) {
    await client.end().catch(() => undefined);
    return [unreachable(error as NodeJS.ErrnoException, setting)];
  }
  const db: Sql = {
    query: async <Row>({ text, values }: SqlStatement) => (await client.query(text, values as unknown[])).rows as Row[],
  };
  try {
    return await look(db, client);
  } catch (error) {
    const { code = 'no code' } = error as NodeJS.ErrnoException;
    const remedy =
      'Look into the log of the server. The role needs the rights of the owner of the tables, or those that a start ' +
      'with LATCHKEY_MIGRATION_DATABASE_URL grants it.';
    return [failed('database', `a statement failed (${code})`, remedy)];
  } finally {
    await client.end();
  }
}

function unreachable({ code = 'no answer' }: NodeJS.ErrnoException, setting: UrlSetting): Finding {
  const check = setting === 'DATABASE_URL' ? 'database' : 'database role';
  const detail = setting === 'DATABASE_URL' ? `cannot be reached: ${code}` : `${setting} cannot be used: ${code}`;
  if (code.startsWith('28')) return failed(check, detail, `Correct user and password in ${setting}.`);
  if (code === '3D000')
    return failed(check, detail, `Make the database (createdb), or correct its name in ${setting}.`);
  if (code === POOLER_REFUSES)
    return failed(
      check,
      detail,
      `Let the pooler know the database and the role of ${setting}: its log says which it refused.`,
    );
  if (code === 'ENOTFOUND') return failed(check, detail, `The host in ${setting} has no address: correct it.`);
  return failed(check, detail, `Start PostgreSQL, let this machine reach it, or correct ${setting}.`);
}
