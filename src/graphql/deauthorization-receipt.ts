import { builder } from './builder.js';
import { checkPage } from './connection.js';

export const DeauthorizationReceipt = builder.prismaNode('DeauthorizationReceipt', {
  description: 'Proof of what was done when the provider told that an app was removed. Names nobody.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    receivedAt: t.expose('receivedAt', { type: 'DateTime', description: 'When the provider told it.' }),
    app: t.relation('app', { description: 'The app that was removed.' }),
    grantsRevoked: t.exposeInt('grantsRevoked', {
      description: 'How many connections ended by it. 0: they had ended before, and only data was left to remove.',
    }),
    purgedAt: t.expose('purgedAt', {
      type: 'DateTime',
      nullable: true,
      description: "When the provider user's data was removed; null while it is still to be.",
    }),
  }),
});

const DeauthorizationReceiptConnection = builder.connectionObject(
  {
    type: DeauthorizationReceipt,
    name: 'DeauthorizationReceiptConnection',
    description: 'One page of deauthorization receipts.',
  },
  { name: 'DeauthorizationReceiptEdge' },
);

builder.queryField('deauthorizationReceipts', (t) =>
  t.prismaConnection(
    {
      type: DeauthorizationReceipt,
      cursor: 'id',
      description: 'Proof of what was done about deauthorizations at the provider, oldest first.',
      resolve: (query, _root, args, ctx) => {
        checkPage(args);
        return ctx.prisma.deauthorizationReceipt.findMany({
          ...query,
          orderBy: [{ receivedAt: 'asc' }, { id: 'asc' }],
        });
      },
    },
    DeauthorizationReceiptConnection,
  ),
);
