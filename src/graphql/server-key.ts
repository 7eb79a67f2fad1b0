import { createServerKey, revokeServerKey } from '../domain/server-key.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Secret } from '../secret.js';
import { builder, encodeGlobalId } from './builder.js';
import { checkPage, OLDEST_FIRST } from './connection.js';
import { requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';
import { Tenant } from './tenant.js';
import { Permission } from './viewer.js';

/** What the row of a key that was just made carries besides. */
interface Made {
  key?: Secret;
}

const ServerKey = builder.prismaNode('ServerKey', {
  description: 'What a backend of yours authenticates with.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    name: t.exposeString('name', { description: 'A name to show.' }),
    permissions: t.field({
      type: [Permission],
      description: 'What its holder may do.',
      select: { permissions: true },
      resolve: (serverKey) => serverKey.permissions,
    }),
    tenant: t.relation('tenant', {
      type: Tenant,
      nullable: true,
      description: 'The only tenant that it reaches; null: all.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    lastUsedAt: t.expose('lastUsedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was last used, to within some seconds; null before the first time.',
    }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Until when it is good; null: until it is revoked.',
    }),
    key: t.field({
      type: 'Secret',
      nullable: true,
      description: 'The key itself: shown once, in the answer of `createServerKey`, and null ever after.',
      resolve: (serverKey) => (serverKey as Made).key ?? null,
    }),
  }),
});

const ServerKeyConnection = builder.connectionObject(
  { type: ServerKey, name: 'ServerKeyConnection', description: 'One page of server keys.' },
  { name: 'ServerKeyEdge' },
);

builder.queryField('serverKeys', (t) =>
  t.prismaConnection(
    {
      type: ServerKey,
      cursor: 'id',
      description: 'All server keys that were made and not revoked, oldest first.',
      resolve: (query, _root, args, ctx) => {
        checkPage(args);
        return ctx.prisma.serverKey.findMany({ ...query, orderBy: OLDEST_FIRST });
      },
    },
    ServerKeyConnection,
  ),
);

const CreateServerKeyInput = builder.inputType('CreateServerKeyInput', {
  description: 'A new server key.',
  fields: (t) => ({
    name: t.string({ required: true, description: 'A name to show.' }),
    permissions: t.field({
      type: [Permission],
      required: true,
      description: 'What its holder may do; none that the caller may not.',
    }),
    tenantId: t.string({ description: 'Your identifier of the only tenant that it reaches. Null: all.' }),
    expiresAt: t.field({ type: 'DateTime', description: 'Until when it is good. Null: until it is revoked.' }),
  }),
});

builder.mutationField('createServerKey', (t) =>
  t.prismaField({
    type: ServerKey,
    nullable: true,
    description: 'Makes a server key. The key itself is in this answer and nowhere else.',
    errors: outcome('serverKey', 'The new key. Ask for its `key` now.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: CreateServerKeyInput, required: true, description: 'What to make.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const { id, key } = await createServerKey(ctx.own, ctx.principal, {
        name: input.name,
        permissions: input.permissions,
        tenantId: input.tenantId === null || input.tenantId === undefined ? null : ownTenantId(ctx, input.tenantId),
        expiresAt: input.expiresAt ?? null,
      });
      const row = await ctx.prisma.serverKey.findUniqueOrThrow({ ...selected(query), where: { id } });
      return Object.assign(row, { key } satisfies Made);
    },
  }),
);

const RevokeServerKeyInput = builder.inputType('RevokeServerKeyInput', {
  description: 'Which server key to end.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The key.' }) }),
});

builder.mutationField('revokeServerKey', (t) =>
  t.id({
    nullable: true,
    description:
      'Ends a server key and the frontend sessions that it made: at once here, in every process within 5 seconds.',
    errors: outcome('deletedId', 'The id that nothing has any more.', [NotFoundError]),
    args: { input: t.arg({ type: RevokeServerKeyInput, required: true, description: 'What to end.' }) },
    resolve: async (_root, { input }, ctx) => {
      const id = requireRowId(input.id, 'ServerKey');
      ctx.principals.forget(await revokeServerKey(ctx.own, { id, tenantId: ctx.principal.tenantId }));
      return encodeGlobalId('ServerKey', id);
    },
  }),
);
