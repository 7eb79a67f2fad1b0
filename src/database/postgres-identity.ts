import type pg from 'pg';
import type { DatabaseIdentity } from './database.js';

const INSUFFICIENT_PRIVILEGE = '42501';

/** By a statement or two; no rights beyond those of every role. */
export async function readIdentity(pool: pg.Pool | pg.Client): Promise<DatabaseIdentity> {
  const database = `SELECT oid::text FROM pg_database WHERE datname = current_database()`;
  const client: pg.ClientBase = pool as pg.Client;
  const result = await client
    .query<{ oid: string; system: string | null }>(
      `SELECT (${database}) AS oid, system_identifier::text AS system FROM pg_control_system()`,
    )
    .catch((error: NodeJS.ErrnoException) => {
      if (error.code !== INSUFFICIENT_PRIVILEGE) throw error;
      return client.query<{ oid: string; system: string | null }>(`SELECT (${database}) AS oid, NULL AS system`);
    });
  const { oid = '', system = null } = result.rows[0] ?? {};
  return { kind: 'postgres', systemIdentifier: system, oid };
}
