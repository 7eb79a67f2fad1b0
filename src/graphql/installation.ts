import { connectServerToServer } from '../domain/server-to-server.js';
import { revokeGrant } from '../domain/revocation-request.js';
import { InvalidInputError, NotFoundError, ProviderUnavailableError, RefusedByProviderError } from '../errors.js';
import { builder } from './builder.js';
import type { Context } from './context.js';
import { TOTAL_COUNT, totalCountOf } from './connection.js';
import { Grant, GrantFilter, grantPage, ProviderUser, providerUserColumns, providerUserOf, whereOf } from './grant.js';
import { NO_ROW, requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownGrantId, ownTenantId } from './reach.js';
import { UserConnection, UserConnectionConnection } from './user-connection.js';

export const Installation = builder.prismaNode('Grant', {
  variant: 'Installation',
  description:
    'A provider app present in one provider account, for one tenant, with the credential an administrator granted.',
  interfaces: [Grant],
  id: { field: 'id' },
  select: { id: true, kind: true },
  findUnique: (id) => ({ id, kind: 'INSTALLATION' }),
  fields: (t) => ({
    installedBy: t.field({
      type: ProviderUser,
      nullable: true,
      description:
        'Who authorized it at the provider; null where the provider did not tell, and once the app was removed there.',
      select: providerUserColumns,
      resolve: (grant) => providerUserOf(grant),
    }),
    userConnections: t.prismaConnection(
      {
        type: UserConnection,
        cursor: 'id',
        description: "The tenant's user connections in the same provider account, oldest first.",
        args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
        totalCount: async (grant, args, ctx) =>
          ctx.prisma.grant.count({ where: { ...whereOf(args.filter), ...(await accountOf(ctx, grant.id)) } }),
        resolve: async (query, grant, args, ctx) => {
          const { where, orderBy } = grantPage(ctx, 'USER_CONNECTION', args);
          return ctx.prisma.grant.findMany({
            ...query,
            where: { ...where, ...(await accountOf(ctx, grant.id)) },
            orderBy,
          });
        },
      },
      UserConnectionConnection,
    ),
  }),
});

builder.prismaObjectField(UserConnection, 'installation', (t) =>
  t.prismaField({
    type: Installation,
    nullable: true,
    description: "The tenant's installation in the same provider account, where there is one.",
    select: { tenantId: true, providerAccountId: true },
    resolve: (query, grant, _args, ctx) =>
      ctx.prisma.grant.findFirst({
        ...query,
        where: { tenantId: grant.tenantId, providerAccountId: grant.providerAccountId, kind: 'INSTALLATION' },
        // Enums sort as declared: the healthiest first.
        orderBy: [{ healthStatus: 'asc' }, { createdAt: 'asc' }],
      }),
  }),
);

/** The user connections that live under an installation: same tenant, same provider account. */
async function accountOf(ctx: Pick<Context, 'prisma'>, id: string) {
  const { tenantId, providerAccountId } = await ctx.prisma.grant.findUniqueOrThrow({
    where: { id },
    select: { tenantId: true, providerAccountId: true },
  });
  return { tenantId, providerAccountId, kind: 'USER_CONNECTION' as const };
}

export const InstallationConnection = builder.connectionObject(
  {
    type: Installation,
    name: 'InstallationConnection',
    description: 'One page of installations.',
    fields: (t) => ({ totalCount: t.int({ description: TOTAL_COUNT, resolve: totalCountOf }) }),
  },
  { name: 'InstallationEdge' },
);

builder.queryField('installations', (t) =>
  t.prismaConnection(
    {
      type: Installation,
      cursor: 'id',
      description: 'Installations of all tenants that the caller may see, oldest first.',
      args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
      totalCount: (_root, args, ctx) =>
        ctx.prisma.grant.count({ where: { ...whereOf(args.filter), kind: 'INSTALLATION' } }),
      resolve: (query, _root, args, ctx) =>
        ctx.prisma.grant.findMany({ ...query, ...grantPage(ctx, 'INSTALLATION', args) }),
    },
    InstallationConnection,
  ),
);

const ConnectServerToServerInput = builder.inputType('ConnectServerToServerInput', {
  description: 'Which server-to-server app to install where.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    appId: t.id({ required: true, description: 'A server-to-server app.' }),
    providerAccountId: t.string({
      required: true,
      description: "The account id that Zoom shows with the app's credentials.",
    }),
  }),
});

builder.mutationField('connectServerToServer', (t) =>
  t.prismaField({
    type: Installation,
    nullable: true,
    description: 'Installs a server-to-server app, which has no consent screen: its first token proves it.',
    errors: outcome('installation', 'The installation.', [
      NotFoundError,
      InvalidInputError,
      RefusedByProviderError,
      ProviderUnavailableError,
    ]),
    args: { input: t.arg({ type: ConnectServerToServerInput, required: true, description: 'What to install.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await connectServerToServer(ctx, {
        ...input,
        tenantId: ownTenantId(ctx, input.tenantId),
        appId: requireRowId(input.appId, 'ProviderApp'),
      });
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const RevokeInstallationInput = builder.inputType('RevokeInstallationInput', {
  description: 'Which installation to end.',
  fields: (t) => ({
    id: t.id({ required: true, description: 'The installation.' }),
    includeUsers: t.boolean({
      required: true,
      defaultValue: true,
      description: 'Also end the user connections under it.',
    }),
  }),
});

/**
 * An installation serves the whole tenant, so a browser that acts for one user ends it only if it may make one.
 *
 * @returns an id that nothing has where the caller may not end it.
 */
async function endable(ctx: Context, id: string): Promise<string> {
  const { externalUserId, actions } = ctx.principal;
  if (externalUserId !== null && !actions.includes('CONNECT_INSTALLATION')) return NO_ROW;
  return ownGrantId(ctx, id);
}

builder.mutationField('revokeInstallation', (t) =>
  t.prismaField({
    type: Installation,
    nullable: true,
    description: 'Ends an installation: here at once, at the provider as soon as it answers.',
    errors: outcome('installation', 'The installation, ended.', [NotFoundError]),
    args: { input: t.arg({ type: RevokeInstallationInput, required: true, description: 'What to end.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const { includeUsers } = input;
      const id = await revokeGrant(ctx, {
        id: await endable(ctx, requireRowId(input.id, 'Installation')),
        kind: 'INSTALLATION',
        includeUsers,
      });
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
