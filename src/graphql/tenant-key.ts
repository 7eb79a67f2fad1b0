import { pendingReseal, rotateTenantKey } from '../domain/tenant-key.js';
import { NotFoundError } from '../errors.js';
import { builder } from './builder.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';

export const TenantKey = builder.prismaObject('TenantKey', {
  name: 'TenantKey',
  description: 'The data-encryption key of a tenant. Its bytes never leave the vault.',
  select: { tenantId: true, version: true },
  fields: (t) => ({
    version: t.exposeInt('version', { description: 'Which version new secrets are sealed with; counts from 1.' }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When this version was made.' }),
    pendingReseal: t.int({
      description: 'Ciphertexts still sealed under an older version; 0 once re-sealing has finished.',
      resolve: ({ tenantId, version }, _args, ctx) =>
        tenantId === null ? 0 : pendingReseal(ctx.db, tenantId, version),
    }),
  }),
});

const RotateTenantKeyInput = builder.inputType('RotateTenantKeyInput', {
  description: 'Whose key to rotate.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your own identifier of the tenant.' }),
  }),
});

builder.mutationField('rotateTenantKey', (t) =>
  t.prismaField({
    type: TenantKey,
    nullable: true,
    description:
      'Makes a new version of the key of a tenant, which seals from now on. What older versions sealed stays readable and is sealed anew in the background.',
    errors: outcome('tenantKey', 'The new version.', [NotFoundError]),
    args: { input: t.arg({ type: RotateTenantKeyInput, required: true, description: 'Whose key.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const tenantId = await rotateTenantKey(ctx.own, { tenantId: ownTenantId(ctx, input.tenantId) });
      return ctx.prisma.tenantKey.findFirstOrThrow({ ...selected(query), where: { tenantId, active: true } });
    },
  }),
);
