import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Secret } from '../secret.js';
import { createApiToken } from './api-token.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { GLOBAL_PERMISSIONS, type Permission, type Principal } from './principal.js';
import { requireName, requireTenant } from './tenant.js';

export interface ServerKeyInput {
  name: string;
  permissions: readonly Permission[];
  /** The product's identifier of the only tenant that the key reaches; null: all. */
  tenantId: string | null;
  expiresAt: Date | null;
}

/** Nobody hands on more than they have: a key that makes keys would otherwise be every key. */
function checkPermissions(creator: Principal, { permissions, tenantId }: ServerKeyInput): void {
  const refuse = (message: string) => new InvalidInputError(message, ['input', 'permissions']);
  if (permissions.length === 0) throw refuse('Give at least one permission.');
  if (permissions.some((permission) => !creator.permissions.includes(permission))) {
    throw refuse('A key cannot give permissions that it does not have.');
  }
  if (tenantId !== null && permissions.some((permission) => GLOBAL_PERMISSIONS.has(permission))) {
    throw refuse('A key that is restricted to a tenant cannot change provider apps, which belong to all.');
  }
}

/**
 * Makes a server key. The key itself is in the answer and nowhere else: only its hash is stored.
 *
 * @throws {InvalidInputError} it would reach further than its creator, or has already expired.
 * @throws {NotFoundError} there is no such tenant.
 */
export async function createServerKey(
  deps: Pick<Deps, 'db' | 'clock' | 'settings'>,
  creator: Principal,
  input: ServerKeyInput,
): Promise<{ id: string; key: Secret }> {
  requireName(input.name, ['input', 'name']);
  checkPermissions(creator, input);
  if (input.expiresAt !== null && input.expiresAt <= deps.clock.now()) {
    throw new InvalidInputError('Give a time in the future.', ['input', 'expiresAt']);
  }
  if (creator.tenantId !== null && input.tenantId === null) {
    throw new InvalidInputError('A key of one tenant makes keys of that tenant only; name it.', ['input', 'tenantId']);
  }
  const tenant = input.tenantId === null ? null : await requireTenant(deps.db, input.tenantId);
  const id = randomUUID();
  const { token, hash } = createApiToken('SERVER_KEY', id, deps.settings.publicUrl);
  await deps.db.transaction(async (tx) => {
    await tx.query(sql`
      INSERT INTO server_key (id, name, key_hash, permissions, tenant_id, expires_at)
      VALUES (${id}::uuid, ${input.name}, ${hash}, ${[...new Set(input.permissions)]}::"Permission"[],
        ${tenant?.id ?? null}::uuid, ${input.expiresAt})`);
    noteAudit(tx, { tenantId: tenant?.id ?? null, subject: `ServerKey:${id}` });
  });
  return { id, key: token };
}

/**
 * Ends a server key, and the frontend sessions that it made. Other processes notice within five seconds.
 *
 * @param tenantId the only tenant whose keys may be ended; null: any.
 * @returns the ids that authenticate nobody any more: the key's, and its sessions'.
 * @throws {NotFoundError} there is no such key.
 */
export async function revokeServerKey(
  deps: Pick<Deps, 'db'>,
  { id, tenantId }: { id: string; tenantId: string | null },
): Promise<string[]> {
  return deps.db.transaction(async (tx) => {
    const sessions = await tx.query<{ id: string }>(sql`
      SELECT id FROM frontend_session WHERE server_key_id = ${id}::uuid`);
    const [removed] = await tx.query(sql`
      DELETE FROM server_key WHERE id = ${id}::uuid AND (${tenantId}::uuid IS NULL OR tenant_id = ${tenantId}::uuid)
      RETURNING id`);
    if (removed === undefined) throw new NotFoundError('No such server key exists.');
    return [id, ...sessions.map((session) => session.id)];
  });
}

/** Remembers when keys were used, and writes it down for all of them together. */
export interface KeyUse {
  note(keyId: string): void;
  /** Stores what was noted since the last time. */
  record(): Promise<void>;
}

export function createKeyUse(deps: { db: Pick<Database, 'query'>; clock: Deps['clock'] }): KeyUse {
  let used = new Map<string, Date>();
  return {
    note: (keyId) => void used.set(keyId, deps.clock.now()),
    record: async () => {
      if (used.size === 0) return;
      const noted = used;
      used = new Map();
      try {
        await deps.db.query(sql`
          UPDATE server_key k SET last_used_at = greatest(k.last_used_at, noted.at)
          FROM unnest(${[...noted.keys()]}::uuid[], ${[...noted.values()]}::timestamptz[]) AS noted(id, at)
          WHERE k.id = noted.id`);
      } catch (error) {
        used = new Map([...noted, ...used]);
        throw error;
      }
    },
  };
}
