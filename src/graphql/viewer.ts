import { builder } from './builder.js';
import { PERMISSIONS, type Permission as PermissionValue, type Principal } from './context.js';
import { Tenant } from './tenant.js';

const PrincipalKind = builder.enumType('PrincipalKind', {
  description: 'What kind of caller it is.',
  values: {
    SERVER_KEY: { description: 'A backend of yours.' },
    FRONTEND_SESSION: { description: 'A browser, for a short time and within bounds.' },
  },
});

const PERMISSION_DESCRIPTIONS: Record<PermissionValue, string> = {
  CREDENTIALS_READ: 'Read access tokens.',
  CONNECTIONS_READ: 'Read tenants, connections and their health.',
  CONNECTIONS_WRITE: 'Connect, refresh, check and revoke.',
  TENANTS_WRITE: 'Make and change tenants.',
  PROVIDER_APPS_WRITE: 'Register, change and remove provider apps.',
  SESSIONS_CREATE: 'Make frontend sessions.',
  KEYS_WRITE: 'Make and revoke server keys.',
  AUDIT_READ: 'Read the audit trail.',
};

export const Permission = builder.enumType('Permission', {
  description: 'What a caller may do.',
  values: Object.fromEntries(
    PERMISSIONS.map((name) => [name, { value: name, description: PERMISSION_DESCRIPTIONS[name] }]),
  ) as Record<PermissionValue, { value: PermissionValue; description: string }>,
});

const Viewer = builder.objectRef<Principal>('Viewer').implement({
  description: 'Who is calling.',
  fields: (t) => ({
    kind: t.field({ type: PrincipalKind, description: 'What kind of caller.', resolve: (viewer) => viewer.kind }),
    permissions: t.field({
      type: [Permission],
      description: 'What they may do.',
      resolve: (viewer) => [...viewer.permissions],
    }),
    tenant: t.prismaField({
      type: Tenant,
      nullable: true,
      description: 'Set for a frontend session and for a server key that is restricted to one tenant.',
      resolve: (query, viewer, _args, ctx) =>
        viewer.tenantId === null ? null : ctx.prisma.tenant.findUnique({ ...query, where: { id: viewer.tenantId } }),
    }),
    externalUserId: t.exposeString('externalUserId', {
      nullable: true,
      description: 'The user of your product that a frontend session acts for.',
    }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Until when the key or session is good; null: until it is revoked.',
    }),
  }),
});

builder.queryField('viewer', (t) =>
  t.field({ type: Viewer, description: 'Who is calling.', resolve: (_root, _args, ctx) => ctx.principal }),
);
