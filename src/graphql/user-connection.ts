import { revokeGrant } from '../domain/revocation-request.js';
import { NotFoundError } from '../errors.js';
import { builder } from './builder.js';
import { TOTAL_COUNT, totalCountOf } from './connection.js';
import { Grant, GrantFilter, grantPage, ProviderUser, providerUserColumns, providerUserOf, whereOf } from './grant.js';
import { requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownGrantId } from './reach.js';

export const UserConnection = builder.prismaNode('Grant', {
  variant: 'UserConnection',
  description: "One provider user's consent, for one user of your product, within a tenant.",
  interfaces: [Grant],
  id: { field: 'id' },
  select: { id: true, kind: true },
  findUnique: (id) => ({ id, kind: 'USER_CONNECTION' }),
  fields: (t) => ({
    externalUserId: t.string({
      description: 'Your own identifier of the user: `user_123`.',
      select: { externalUserId: true },
      resolve: (grant) => grant.externalUserId ?? '',
    }),
    providerUser: t.field({
      type: ProviderUser,
      nullable: true,
      description:
        'Who authorized it at the provider; null where the provider did not tell, and once the app was removed there.',
      select: providerUserColumns,
      resolve: (grant) => providerUserOf(grant),
    }),
  }),
});

export const UserConnectionConnection = builder.connectionObject(
  {
    type: UserConnection,
    name: 'UserConnectionConnection',
    description: 'One page of user connections.',
    fields: (t) => ({ totalCount: t.int({ description: TOTAL_COUNT, resolve: totalCountOf }) }),
  },
  { name: 'UserConnectionEdge' },
);

builder.queryField('userConnections', (t) =>
  t.prismaConnection(
    {
      type: UserConnection,
      cursor: 'id',
      description: 'User connections of all tenants that the caller may see, oldest first.',
      args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
      totalCount: (_root, args, ctx) =>
        ctx.prisma.grant.count({ where: { ...whereOf(args.filter), kind: 'USER_CONNECTION' } }),
      resolve: (query, _root, args, ctx) =>
        ctx.prisma.grant.findMany({ ...query, ...grantPage(ctx, 'USER_CONNECTION', args) }),
    },
    UserConnectionConnection,
  ),
);

const RevokeUserConnectionInput = builder.inputType('RevokeUserConnectionInput', {
  description: 'Which user connection to end.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The user connection.' }) }),
});

builder.mutationField('revokeUserConnection', (t) =>
  t.prismaField({
    type: UserConnection,
    nullable: true,
    description: 'Ends a user connection: here at once, at the provider as soon as it answers.',
    errors: outcome('userConnection', 'The user connection, ended.', [NotFoundError]),
    args: { input: t.arg({ type: RevokeUserConnectionInput, required: true, description: 'What to end.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await ownGrantId(ctx, requireRowId(input.id, 'UserConnection'));
      await revokeGrant(ctx, { id, kind: 'USER_CONNECTION', includeUsers: false });
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
