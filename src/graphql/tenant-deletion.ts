import { deleteTenant } from '../domain/tenant-deletion.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { builder } from './builder.js';
import { outcome, selected } from './outcome.js';
import { Revocation } from './revocation.js';

const TenantDeletion = builder.prismaNode('TenantDeletion', {
  description: 'The receipt of a deleted tenant.',
  id: { field: 'id' },
  // Until its keys are destroyed there is nothing to prove.
  findUnique: (id) => ({ id, keysDestroyedAt: { not: null } }),
  select: { id: true },
  fields: (t) => ({
    tenantExternalId: t.exposeString('tenantExternalId', { description: 'Your own identifier of the tenant.' }),
    requestedAt: t.expose('requestedAt', { type: 'DateTime', description: 'When it was asked for.' }),
    keysDestroyedAt: t.field({
      type: 'DateTime',
      description: 'When the last key of the tenant was destroyed. Nothing that was sealed with it can be read since.',
      select: { keysDestroyedAt: true },
      resolve: ({ keysDestroyedAt }) => {
        if (keysDestroyedAt === null) throw new Error('The keys of the tenant are not destroyed yet.');
        return keysDestroyedAt;
      },
    }),
    revocation: t.relation('revocation', {
      type: Revocation,
      description: 'How far the provider has confirmed the end of its connections.',
    }),
  }),
});

const DeleteTenantInput = builder.inputType('DeleteTenantInput', {
  description: 'Which tenant to delete.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your own identifier of the tenant.' }),
    confirm: t.string({ required: true, description: 'Must repeat `tenantId`.' }),
  }),
});

builder.mutationField('deleteTenant', (t) =>
  t.prismaField({
    type: TenantDeletion,
    nullable: true,
    description:
      "Ends every connection of a tenant, then destroys the tenant's keys and rows. The provider is told in the background until it confirms.",
    errors: outcome('tenantDeletion', 'Its receipt.', [InvalidInputError, NotFoundError]),
    args: { input: t.arg({ type: DeleteTenantInput, required: true, description: 'Which to delete.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await deleteTenant(ctx, input);
      return ctx.prisma.tenantDeletion.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
