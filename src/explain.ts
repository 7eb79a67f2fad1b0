import { ConfigError } from './config.js';
import { FolderLockedError } from './database/folder-lock.js';
import { MigrationLockLostError } from './database/migration-lock.js';
import { DatabaseUnreachableError } from './database/postgres-connect.js';
import { MigrationUrlError } from './database/postgres-start.js';
import { TenantRoleError } from './database/tenant-wall.js';
import { ListenError } from './http/listener.js';
import { RootKeyInvalidError, RootKeyMismatchError, VaultUnavailableError } from './vault/errors.js';

const FOLDER_TROUBLES = new Set(['EACCES', 'EEXIST', 'EIO', 'ENOENT', 'ENOSPC', 'ENOTDIR', 'EPERM', 'EROFS']);

/** As PgBouncer refuses parameters of a session, and PostgreSQL a statement that another session has prepared, or has not. */
const isRefusedByPooler = (error: unknown): boolean =>
  error instanceof Error &&
  (error.message.startsWith('unsupported startup parameter') ||
    ['26000', '42P05'].includes(String((error as NodeJS.ErrnoException).code)));

/** A sentence for the operator, where the failure is one that they can mend. */
export function explain(error: unknown): string | null {
  const known = [
    ConfigError,
    DatabaseUnreachableError,
    FolderLockedError,
    MigrationLockLostError,
    MigrationUrlError,
    TenantRoleError,
    ListenError,
    RootKeyInvalidError,
    RootKeyMismatchError,
  ];
  if (known.some((type) => error instanceof type)) return (error as Error).message;
  if (error instanceof VaultUnavailableError) {
    const { message, cause } = error;
    return cause instanceof Error ? `${message} (${cause.message}).` : `${message}.`;
  }
  const { code, path } = error as NodeJS.ErrnoException;
  if (code !== undefined && FOLDER_TROUBLES.has(code)) {
    return `The data folder cannot be used: the system answers ${code}${path === undefined ? '' : ` for ${path}`}. Set LATCHKEY_DATA_DIR to a folder that can be written.`;
  }
  // PostgreSQL's classes 28 (authorization) and 3D (no such database).
  if (code !== undefined && /^(28|3D)/.test(code))
    return `The database does not let us in (${code}). Check DATABASE_URL, and LATCHKEY_MIGRATION_DATABASE_URL where it is set.`;
  if (isRefusedByPooler(error)) {
    return 'There is a connection pooler before the database that does not take named prepared statements, or limits as parameters of a session. Set LATCHKEY_PREPARED_STATEMENTS=0.';
  }
  return null;
}
