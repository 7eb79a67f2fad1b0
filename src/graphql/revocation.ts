import { revokeGrants } from '../domain/revocation-request.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { builder } from './builder.js';
import { isGiven, rowsOf } from './connection.js';
import { Grant } from './grant.js';
import { requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';

/** Ended on both sides. */
const CONFIRMED = { endedAt: { not: null }, confirmedAt: { not: null } };
const PENDING = { OR: [{ endedAt: null }, { confirmedAt: null }] };

const RevocationReceipt = builder.prismaObject('RevocationReceipt', {
  name: 'RevocationReceipt',
  description: 'What became of one connection that a revocation covers.',
  select: { id: true },
  fields: (t) => ({
    grant: t.relation('grant', {
      type: Grant,
      nullable: true,
      description: 'The connection; null once its provider app or tenant was removed.',
    }),
    endedAt: t.expose('endedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it ended here; null while that is still to be done.',
    }),
    confirmedAt: t.expose('confirmedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the provider confirmed it; null until then.',
    }),
  }),
});

export const Revocation = builder.prismaNode('Revocation', {
  description: 'A request to end connections. What it covers is settled when it is made.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    requestedAt: t.expose('requestedAt', { type: 'DateTime', description: 'When it was asked for.' }),
    total: t.exposeInt('total', { description: 'How many connections it covers.' }),
    confirmed: t.relationCount('receipts', {
      where: CONFIRMED,
      description: 'How many of them the provider has confirmed, or held nothing that it would know.',
    }),
    pending: t.relationCount('receipts', {
      where: PENDING,
      description: 'How many of them have still to end here or to be confirmed by the provider.',
    }),
    receipts: t.relatedConnection(
      'receipts',
      {
        type: RevocationReceipt,
        cursor: 'id',
        description: 'What became of each.',
        query: (args) => rowsOf(args, { orderBy: { id: 'asc' } }),
      },
      { name: 'RevocationReceiptConnection', description: 'One page of revocation receipts.' },
      { name: 'RevocationReceiptEdge' },
    ),
  }),
});

builder.prismaInterfaceFields(Grant, (t) => ({
  revocation: t.field({
    type: Revocation,
    nullable: true,
    description: 'The latest request to end it; null where it was never asked for here.',
    select: (_args, _ctx, nested) => ({
      revocationReceipts: {
        take: 1,
        orderBy: { revocation: { requestedAt: 'desc' } },
        select: { revocation: nested(true) },
      },
    }),
    resolve: (grant) => grant.revocationReceipts[0]?.revocation ?? null,
  }),
}));

const RevokeGrantsInput = builder.inputType('RevokeGrantsInput', {
  description: 'Which connections to end; all conditions must hold. At least one of the fields must be given.',
  fields: (t) => ({
    appId: t.id({ description: 'Those of this provider app.' }),
    tenantId: t.string({ description: 'Those of this tenant, by your identifier.' }),
    connectedAfter: t.field({ type: 'DateTime', description: 'Those last authorized then or later.' }),
    connectedBefore: t.field({ type: 'DateTime', description: 'Those last authorized before.' }),
  }),
});

builder.mutationField('revokeGrants', (t) =>
  t.prismaField({
    type: Revocation,
    nullable: true,
    description:
      'Break-glass: ends every connection that matches, here at once, at the provider until each is confirmed. Goes on by itself, also after a crash.',
    errors: outcome('revocation', 'How far it has come.', [InvalidInputError, NotFoundError]),
    args: { input: t.arg({ type: RevokeGrantsInput, required: true, description: 'Which to end.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const appId = isGiven(input.appId) ? requireRowId(input.appId, 'ProviderApp') : null;
      const id = await revokeGrants(ctx, { ...input, appId });
      return ctx.prisma.revocation.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
