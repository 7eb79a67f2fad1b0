import { createTenant, updateTenant } from '../domain/tenant.js';
import { AlreadyExistsError, InvalidInputError, NotFoundError } from '../errors.js';
import { builder } from './builder.js';
import { checkPage, OLDEST_FIRST, TOTAL_COUNT, totalCountOf } from './connection.js';
import { GrantFilter, grantPage } from './grant.js';
import { healthEventPage, HealthEventConnection } from './health-event.js';
import { Installation, InstallationConnection } from './installation.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';
import { TenantKey } from './tenant-key.js';
import { UserConnection, UserConnectionConnection } from './user-connection.js';

const HealthSummary = builder
  .objectRef<Record<'HEALTHY' | 'DEGRADED' | 'REAUTHORIZATION_REQUIRED' | 'REVOKED', number>>('HealthSummary')
  .implement({
    description: 'How many connections have which status.',
    fields: (t) => ({
      healthy: t.int({ description: 'Working.', resolve: (counts) => counts.HEALTHY }),
      degraded: t.int({ description: 'Working or expected to recover.', resolve: (counts) => counts.DEGRADED }),
      reauthorizationRequired: t.int({
        description: 'In need of consent.',
        resolve: (counts) => counts.REAUTHORIZATION_REQUIRED,
      }),
      revoked: t.int({ description: 'Ended on purpose.', resolve: (counts) => counts.REVOKED }),
    }),
  });

/** One that is being deleted is gone for callers. */
const OPEN = { closedAt: null };

export const Tenant = builder.prismaNode('Tenant', {
  description: 'An organisation of yours: the unit of isolation, with encryption keys of its own.',
  id: { field: 'id' },
  findUnique: (id) => ({ id, ...OPEN }),
  select: { id: true },
  fields: (t) => ({
    externalId: t.exposeString('externalId', { description: 'Your own identifier, unique: `org_acme`.' }),
    name: t.exposeString('name', { nullable: true, description: 'A name to show; null where none was given.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    allowedOrigins: t.field({
      type: ['URL'],
      description: 'Exact origins that connect flows may return to and frontend sessions may be used from.',
      select: { allowedOrigins: true },
      resolve: (tenant) => tenant.allowedOrigins,
    }),
    installations: t.relatedConnection(
      'grants',
      {
        type: Installation,
        cursor: 'id',
        totalCount: true,
        description: 'Its installations, oldest first.',
        args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
        query: (args, ctx) => grantPage(ctx, 'INSTALLATION', args),
      },
      InstallationConnection,
    ),
    userConnections: t.relatedConnection(
      'grants',
      {
        type: UserConnection,
        cursor: 'id',
        totalCount: true,
        description: 'Its user connections, oldest first.',
        args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
        query: (args, ctx) => grantPage(ctx, 'USER_CONNECTION', args),
      },
      UserConnectionConnection,
    ),
    healthEvents: t.connection(
      {
        type: HealthEventConnection.node,
        description: 'Health transitions of its connections, oldest first.',
        resolve: (tenant, args, ctx, info) => healthEventPage(ctx, info, args, { tenantId: tenant.id }),
      },
      HealthEventConnection.connection,
    ),
    health: t.field({
      type: HealthSummary,
      description: 'How many of its connections have which status.',
      resolve: async (tenant, _args, ctx) => {
        const groups = await ctx.prisma.grant.groupBy({
          by: ['healthStatus'],
          where: { tenantId: tenant.id },
          _count: true,
        });
        const counts = { HEALTHY: 0, DEGRADED: 0, REAUTHORIZATION_REQUIRED: 0, REVOKED: 0 };
        for (const group of groups) counts[group.healthStatus] = group._count;
        return counts;
      },
    }),
    key: t.prismaField({
      type: TenantKey,
      description: 'The key that its secrets are sealed with.',
      resolve: (query, tenant, _args, ctx) =>
        ctx.prisma.tenantKey.findFirstOrThrow({ ...query, where: { tenantId: tenant.id, active: true } }),
    }),
  }),
});

const TenantConnection = builder.connectionObject(
  {
    type: Tenant,
    name: 'TenantConnection',
    description: 'One page of tenants.',
    fields: (t) => ({ totalCount: t.int({ description: TOTAL_COUNT, resolve: totalCountOf }) }),
  },
  { name: 'TenantEdge' },
);

builder.queryField('tenant', (t) =>
  t.prismaField({
    type: Tenant,
    nullable: true,
    description: 'The tenant with this identifier of yours; null where there is none.',
    args: { externalId: t.arg.string({ required: true, description: 'Your own identifier of the tenant.' }) },
    resolve: (query, _root, { externalId }, ctx) => ctx.prisma.tenant.findUnique({ ...query, where: { externalId } }),
  }),
);

builder.queryField('tenants', (t) =>
  t.prismaConnection(
    {
      type: Tenant,
      cursor: 'id',
      description: 'All tenants that the caller may see, oldest first.',
      totalCount: (_root, _args, ctx) => ctx.prisma.tenant.count({ where: OPEN }),
      resolve: (query, _root, args, ctx) => {
        checkPage(args);
        return ctx.prisma.tenant.findMany({ ...query, where: OPEN, orderBy: OLDEST_FIRST });
      },
    },
    TenantConnection,
  ),
);

const CreateTenantInput = builder.inputType('CreateTenantInput', {
  description: 'A new tenant.',
  fields: (t) => ({
    externalId: t.string({ required: true, description: 'Your own identifier, unique: `org_acme`.' }),
    name: t.string({ description: 'A name to show.' }),
    allowedOrigins: t.field({
      type: ['URL'],
      required: true,
      defaultValue: [],
      description: 'Exact origins that connect flows may return to: https, or http on loopback.',
    }),
  }),
});

builder.mutationField('createTenant', (t) =>
  t.prismaField({
    type: Tenant,
    nullable: true,
    description: 'Makes a tenant with an encryption key of its own.',
    errors: outcome('tenant', 'The new tenant.', [AlreadyExistsError, InvalidInputError]),
    args: { input: t.arg({ type: CreateTenantInput, required: true, description: 'What to make.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await createTenant(ctx, input);
      return ctx.prisma.tenant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const UpdateTenantInput = builder.inputType('UpdateTenantInput', {
  description: 'What to change of a tenant; what is left out stays.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your own identifier of the tenant.' }),
    name: t.string({ description: 'A name to show; null removes it.' }),
    allowedOrigins: t.field({ type: ['URL'], description: 'Exact origins that replace the present ones.' }),
  }),
});

builder.mutationField('updateTenant', (t) =>
  t.prismaField({
    type: Tenant,
    nullable: true,
    description: 'Changes a tenant.',
    errors: outcome('tenant', 'The tenant as it is now.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: UpdateTenantInput, required: true, description: 'What to change.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await updateTenant(ctx.own, { ...input, tenantId: ownTenantId(ctx, input.tenantId) });
      return ctx.prisma.tenant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
