import pg from 'pg';

/** The settings that name a database. */
export type UrlSetting = 'DATABASE_URL' | 'LATCHKEY_MIGRATION_DATABASE_URL';

/** No connection to the server could be made. */
export class DatabaseUnreachableError extends Error {
  constructor(code: string | undefined, setting: UrlSetting) {
    const reason = code === undefined ? 'it does not answer' : `the system answers ${code}`;
    super(`The database cannot be reached: ${reason}. Check ${setting}.`);
    this.name = 'DatabaseUnreachableError';
  }
}

/** SQLSTATE classes that say the server is there and refuses: authorization, no such database. */
const REFUSALS = /^(28|3D)...$/;

/** @throws what the operator is told about a connection that could not be made. */
export function refuse(error: NodeJS.ErrnoException, setting: UrlSetting): never {
  throw error.code !== undefined && REFUSALS.test(error.code)
    ? error
    : new DatabaseUnreachableError(error.code, setting);
}

/** A few connections for the start, without limits on how long a statement may take. */
export function openStartPool(connectionString: string): pg.Pool {
  const pool = new pg.Pool({ connectionString, connectionTimeoutMillis: 5_000, application_name: 'latchkey migrate' });
  // The statement that loses its connection fails with the same error; without a listener it would end the process.
  pool.on('error', () => undefined);
  return pool;
}
