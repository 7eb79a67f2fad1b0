import { importGrant } from '../domain/grant-import.js';
import {
  GrantRefusedError,
  InvalidInputError,
  NotFoundError,
  ProviderUnavailableError,
  RefusedByProviderError,
} from '../errors.js';
import { Secret } from '../secret.js';
import { builder } from './builder.js';
import { Grant } from './grant.js';
import { requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';

const ImportGrantInput = builder.inputType('ImportGrantInput', {
  description: 'Tokens that were obtained elsewhere, and whose they are.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({
      description:
        'Your identifier of the user, for a user-managed app. Null: an installation of an admin-managed app.',
    }),
    appId: t.id({ required: true, description: 'The app that the tokens were issued to.' }),
    accessToken: t.string({
      description: 'While it works, it tells beforehand whom the tokens speak for: then a refusal costs nothing.',
    }),
    refreshToken: t.string({
      required: true,
      description: 'Spent by this call unless it is refused beforehand: whoever had it cannot use it any more.',
    }),
  }),
});

builder.mutationField('importGrant', (t) =>
  t.prismaField({
    type: Grant,
    nullable: true,
    description:
      'Takes over tokens that were obtained elsewhere: refreshes them once, which proves them and takes them away from whoever had them, and asks the provider whom they speak for before they are stored.',
    errors: outcome('grant', 'The installation or user connection.', [
      NotFoundError,
      InvalidInputError,
      GrantRefusedError,
      RefusedByProviderError,
      ProviderUnavailableError,
    ]),
    args: { input: t.arg({ type: ImportGrantInput, required: true, description: 'What to import where.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const { accessToken } = input;
      const id = await importGrant(ctx, {
        tenantId: ownTenantId(ctx, input.tenantId),
        userId: input.userId ?? null,
        appId: requireRowId(input.appId, 'ProviderApp'),
        accessToken: accessToken === null || accessToken === undefined ? null : new Secret(accessToken),
        refreshToken: new Secret(input.refreshToken),
      });
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
