import { ConfigError } from './config.js';
import { FolderLockedError } from './database/folder-lock.js';
import { DatabaseUnreachableError } from './database/postgres.js';
import { TenantRoleError } from './database/tenant-wall.js';
import { ListenError } from './http/listener.js';
import { RootKeyInvalidError, RootKeyMismatchError, VaultUnavailableError } from './vault/errors.js';

const FOLDER_TROUBLES = new Set(['EACCES', 'EEXIST', 'EIO', 'ENOENT', 'ENOSPC', 'ENOTDIR', 'EPERM', 'EROFS']);

/** A sentence for the operator, where the failure is one that they can mend. */
export function explain(error: unknown): string | null {
  const known = [
    ConfigError,
    DatabaseUnreachableError,
    FolderLockedError,
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
    return `The database does not let us in (${code}). Check DATABASE_URL.`;
  return null;
}
