import type { FrontendAction, Permission } from '../generated/prisma/enums.js';

/** Every permission that a server key can have, in the order in which they are listed. */
export const PERMISSIONS = [
  'CREDENTIALS_READ',
  'CONNECTIONS_READ',
  'CONNECTIONS_WRITE',
  'TENANTS_WRITE',
  'PROVIDER_APPS_WRITE',
  'SESSIONS_CREATE',
  'KEYS_WRITE',
  'AUDIT_READ',
] as const satisfies readonly Permission[];

/** Permissions over what belongs to no tenant; a key that is restricted to one cannot have them. */
export const GLOBAL_PERMISSIONS: ReadonlySet<Permission> = new Set(['PROVIDER_APPS_WRITE']);

export const FRONTEND_ACTIONS = [
  'CONNECT_INSTALLATION',
  'CONNECT_USER',
  'READ_CONNECTIONS',
  'REVOKE',
] as const satisfies readonly FrontendAction[];

export type { FrontendAction, Permission };

/** Who is calling, established before anything of the request is parsed. */
export interface Principal {
  kind: 'SERVER_KEY' | 'FRONTEND_SESSION';
  /** The row of the key or session; null: the admin key of the settings. */
  id: string | null;
  /** Of a server key; a frontend session has none. */
  permissions: readonly Permission[];
  /** Of a frontend session; a server key has none. */
  actions: readonly FrontendAction[];
  /** The only tenant that the caller reaches; null: not restricted. Set together with `tenantExternalId`. */
  tenantId: string | null;
  tenantExternalId: string | null;
  /** The only user of the product that a frontend session acts for; null: not restricted. */
  externalUserId: string | null;
  expiresAt: Date | null;
  /** Where a frontend session may be used from. */
  origins: readonly string[];
  /** Where the trips of a frontend session return to; null: each trip says. */
  returnTo: string | null;
}

/** The key of the settings, which is there before any other can be made. */
export const ADMIN: Principal = {
  kind: 'SERVER_KEY',
  id: null,
  permissions: PERMISSIONS,
  actions: [],
  tenantId: null,
  tenantExternalId: null,
  externalUserId: null,
  expiresAt: null,
  origins: [],
  returnTo: null,
};

/** May not do anything. */
export const NOBODY: Principal = { ...ADMIN, permissions: [] };
