import { replayWebhookDeliveries } from '../domain/delivery-replay.js';
import {
  createWebhookEndpoint,
  deleteWebhookEndpoint,
  rotateWebhookEndpointSecret,
  updateWebhookEndpoint,
} from '../domain/webhook-endpoint.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import type { Secret } from '../secret.js';
import { builder, encodeGlobalId } from './builder.js';
import { checkPage, isGiven, OLDEST_FIRST } from './connection.js';
import type { Context } from './context.js';
import { requireRowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';
import { Tenant } from './tenant.js';
import { deliveryPage, WebhookDelivery, WebhookDeliveryConnection, WebhookDeliveryFilter } from './webhook-delivery.js';

/** What the row of an endpoint carries besides, whose secret was just made. */
interface Made {
  secret?: Secret;
}

const reachOf = ({ principal }: Context) => ({ onlyTenantId: principal.tenantId });

const WebhookEndpointStatus = builder.enumType('WebhookEndpointStatus', {
  description: 'Whether an endpoint is told of events.',
  values: {
    ENABLED: { description: 'It is.' },
    DISABLED: { description: 'It is not, until it is enabled by `updateWebhookEndpoint`.' },
  } as const,
});

const WebhookEndpointDisabledReason = builder.enumType('WebhookEndpointDisabledReason', {
  description: 'Why an endpoint is disabled.',
  values: {
    REQUESTED: { description: 'Somebody asked for it.' },
    GONE: { description: 'It answered 410 Gone.' },
    FAILING: { description: 'It has taken nothing for five days.' },
  } as const,
});

export const WebhookEndpoint = builder.prismaNode('WebhookEndpoint', {
  description: 'An address of a backend of yours that is told of health events as they happen.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    tenant: t.relation('tenant', {
      type: Tenant,
      nullable: true,
      description: 'The only tenant that it is told about; null: all.',
    }),
    url: t.expose('url', { type: 'URL', description: 'Where it is told.' }),
    description: t.exposeString('description', {
      nullable: true,
      description: 'A text to show; null where none was given.',
    }),
    status: t.field({
      type: WebhookEndpointStatus,
      description: 'Whether it is told of events.',
      select: { disabledAt: true },
      resolve: ({ disabledAt }) => (disabledAt === null ? 'ENABLED' : 'DISABLED'),
    }),
    disabledAt: t.expose('disabledAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Since when it is disabled. What happens meanwhile can be replayed.',
    }),
    disabledReason: t.expose('disabledReason', {
      type: WebhookEndpointDisabledReason,
      nullable: true,
      description: 'Why it is disabled; null while it is enabled.',
    }),
    failingSince: t.expose('failingSince', {
      type: 'DateTime',
      nullable: true,
      description: 'Its first failure since it last took something; null while it takes what it is told.',
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was made.' }),
    secret: t.field({
      type: 'Secret',
      nullable: true,
      description:
        'What signs, as `whsec_…`: shown once, in the answer of `createWebhookEndpoint` and `rotateWebhookEndpointSecret`, and null ever after.',
      resolve: (endpoint) => (endpoint as Made).secret ?? null,
    }),
    secretSetAt: t.expose('secretSetAt', { type: 'DateTime', description: 'When the present secret was made.' }),
    formerSecretRetiresAt: t.expose('formerSecretRetiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Until when the former secret signs as well; null where there is none.',
    }),
    deliveries: t.relatedConnection(
      'deliveries',
      {
        type: WebhookDelivery,
        cursor: 'id',
        description: 'What it was and is to be told, newest first.',
        args: { filter: t.arg({ type: WebhookDeliveryFilter, description: 'Only those that match.' }) },
        query: (args) => deliveryPage(args),
      },
      WebhookDeliveryConnection,
    ),
  }),
});

const WebhookEndpointConnection = builder.connectionObject(
  { type: WebhookEndpoint, name: 'WebhookEndpointConnection', description: 'One page of webhook endpoints.' },
  { name: 'WebhookEndpointEdge' },
);

const WebhookEndpointFilter = builder.inputType('WebhookEndpointFilter', {
  description: 'Which webhook endpoints a list shows; all conditions must hold.',
  fields: (t) => ({
    tenantId: t.string({ description: 'Only those for this tenant alone, by your identifier.' }),
  }),
});

builder.queryField('webhookEndpoints', (t) =>
  t.prismaConnection(
    {
      type: WebhookEndpoint,
      cursor: 'id',
      description: 'All webhook endpoints that the caller may see, oldest first.',
      args: { filter: t.arg({ type: WebhookEndpointFilter, description: 'Only those that match.' }) },
      resolve: (query, _root, args, ctx) => {
        checkPage(args);
        const { tenantId } = args.filter ?? {};
        const where = isGiven(tenantId) ? { tenant: { externalId: tenantId } } : {};
        return ctx.prisma.webhookEndpoint.findMany({ ...query, where, orderBy: OLDEST_FIRST });
      },
    },
    WebhookEndpointConnection,
  ),
);

const CreateWebhookEndpointInput = builder.inputType('CreateWebhookEndpointInput', {
  description: 'A new webhook endpoint.',
  fields: (t) => ({
    url: t.field({
      type: 'URL',
      required: true,
      description: 'Where to send: https in production, and no private address unless the operator allows it.',
    }),
    tenantId: t.string({ description: 'Your identifier of the only tenant that it is told about. Null: all.' }),
    description: t.string({ description: 'A text to show.' }),
  }),
});

builder.mutationField('createWebhookEndpoint', (t) =>
  t.prismaField({
    type: WebhookEndpoint,
    nullable: true,
    description:
      'Makes a webhook endpoint, which is told of health events from now on. Its secret is in this answer and nowhere else.',
    errors: outcome('webhookEndpoint', 'The new endpoint. Ask for its `secret` now.', [
      NotFoundError,
      InvalidInputError,
    ]),
    args: { input: t.arg({ type: CreateWebhookEndpointInput, required: true, description: 'What to make.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const { id, secret } = await createWebhookEndpoint(ctx, reachOf(ctx), {
        url: input.url,
        tenantId: isGiven(input.tenantId) ? ownTenantId(ctx, input.tenantId) : null,
        description: input.description ?? null,
      });
      const row = await ctx.prisma.webhookEndpoint.findUniqueOrThrow({ ...selected(query), where: { id } });
      return Object.assign(row, { secret } satisfies Made);
    },
  }),
);

const UpdateWebhookEndpointInput = builder.inputType('UpdateWebhookEndpointInput', {
  description: 'What to change of a webhook endpoint; what is left out stays.',
  fields: (t) => ({
    id: t.id({ required: true, description: 'The endpoint.' }),
    url: t.field({ type: 'URL', description: 'Where to send from now on, also what is still to be delivered.' }),
    description: t.string({ description: 'A text to show; null removes it.' }),
    enabled: t.boolean({
      description:
        'False holds what is still to be delivered; true goes on with it. What happens in between is told only if it is replayed.',
    }),
  }),
});

builder.mutationField('updateWebhookEndpoint', (t) =>
  t.prismaField({
    type: WebhookEndpoint,
    nullable: true,
    description: 'Changes a webhook endpoint.',
    errors: outcome('webhookEndpoint', 'The endpoint as it is now.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: UpdateWebhookEndpointInput, required: true, description: 'What to change.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = requireRowId(input.id, 'WebhookEndpoint');
      const { url = null, enabled = null, description } = input;
      await updateWebhookEndpoint(ctx, reachOf(ctx), { id, url, enabled, description });
      return ctx.prisma.webhookEndpoint.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const RotateWebhookEndpointSecretInput = builder.inputType('RotateWebhookEndpointSecretInput', {
  description: 'Which secret to replace.',
  fields: (t) => ({
    id: t.id({ required: true, description: 'The endpoint.' }),
    retireFormerSecretAt: t.field({
      type: 'DateTime',
      description: 'Until when the former secret signs as well (default: 24 hours, at most 30 days).',
    }),
  }),
});

builder.mutationField('rotateWebhookEndpointSecret', (t) =>
  t.prismaField({
    type: WebhookEndpoint,
    nullable: true,
    description:
      'Gives a webhook endpoint a new secret. Until the former one retires, each delivery carries a signature of both.',
    errors: outcome('webhookEndpoint', 'The endpoint. Ask for its `secret` now.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: RotateWebhookEndpointSecretInput, required: true, description: 'Whose secret.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = requireRowId(input.id, 'WebhookEndpoint');
      const retireFormerSecretAt = input.retireFormerSecretAt ?? null;
      const secret = await rotateWebhookEndpointSecret(ctx, reachOf(ctx), { id, retireFormerSecretAt });
      const row = await ctx.prisma.webhookEndpoint.findUniqueOrThrow({ ...selected(query), where: { id } });
      return Object.assign(row, { secret } satisfies Made);
    },
  }),
);

const DeleteWebhookEndpointInput = builder.inputType('DeleteWebhookEndpointInput', {
  description: 'Which webhook endpoint to remove.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The endpoint.' }) }),
});

builder.mutationField('deleteWebhookEndpoint', (t) =>
  t.id({
    nullable: true,
    description: 'Removes a webhook endpoint with its deliveries. A delivery that is under way may still arrive.',
    errors: outcome('deletedId', 'The id that nothing has any more.', [NotFoundError]),
    args: { input: t.arg({ type: DeleteWebhookEndpointInput, required: true, description: 'What to remove.' }) },
    resolve: async (_root, { input }, ctx) => {
      const id = requireRowId(input.id, 'WebhookEndpoint');
      await deleteWebhookEndpoint(ctx, reachOf(ctx), id);
      return encodeGlobalId('WebhookEndpoint', id);
    },
  }),
);

const WebhookReplay = builder.objectRef<{ count: number }>('WebhookReplay').implement({
  description: 'Deliveries that were made due again.',
  fields: (t) => ({
    count: t.exposeInt('count', { description: 'How many; those that were being sent at the moment are not counted.' }),
  }),
});

const ReplayWebhookDeliveriesInput = builder.inputType('ReplayWebhookDeliveriesInput', {
  description: 'What to deliver again: named deliveries, or the events that meet all of the other conditions.',
  fields: (t) => ({
    endpointId: t.id({ required: true, description: 'The endpoint.' }),
    deliveryIds: t.idList({ description: 'These deliveries, 1 to 100.' }),
    tenantId: t.string({ description: 'Only events of this tenant, by your identifier.' }),
    fromSequence: t.int({ description: 'Of that tenant the event with this `sequence` and those after it.' }),
    toSequence: t.int({ description: 'None after the event with this `sequence`.' }),
    since: t.field({ type: 'DateTime', description: 'What happened then or later.' }),
    until: t.field({ type: 'DateTime', description: 'What happened then or earlier.' }),
  }),
});

builder.mutationField('replayWebhookDeliveries', (t) =>
  t.field({
    type: WebhookReplay,
    nullable: true,
    description:
      'Delivers events again, whether or not they were taken, and also those from before the endpoint was made: at most 10,000 at a time, in their order and with the same `webhook-id` as before.',
    errors: outcome('webhookReplay', 'What was made due.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: ReplayWebhookDeliveriesInput, required: true, description: 'What to replay.' }) },
    resolve: async (_root, { input }, ctx) => ({
      count: await replayWebhookDeliveries(ctx, reachOf(ctx), {
        endpointId: requireRowId(input.endpointId, 'WebhookEndpoint'),
        deliveryIds: input.deliveryIds?.map((id) => requireRowId(String(id), 'WebhookDelivery')) ?? null,
        range: {
          tenantId: isGiven(input.tenantId) ? ownTenantId(ctx, input.tenantId) : null,
          fromSequence: input.fromSequence ?? null,
          toSequence: input.toSequence ?? null,
          since: input.since ?? null,
          until: input.until ?? null,
        },
      }),
    }),
  }),
);
