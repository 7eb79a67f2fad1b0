import type { Prisma } from '../generated/prisma/client.js';
import { builder } from './builder.js';
import { rowsOf } from './connection.js';
import { HealthEvent } from './health-event.js';

/** Attempts of one delivery that are shown; replays add to them without end. */
const SHOWN_ATTEMPTS = 50;

export const WebhookDeliveryStatus = builder.enumType('WebhookDeliveryStatus', {
  description: 'How far a delivery has come.',
  values: {
    PENDING: { description: 'The endpoint has still to take it.' },
    DELIVERED: { description: 'The endpoint took it: it answered 2xx.' },
    FAILED: { description: 'Given up, after the last of its attempts or a 410.' },
  } as const,
});

const WebhookDeliveryFailure = builder.enumType('WebhookDeliveryFailure', {
  description: 'Why an attempt failed.',
  values: {
    REFUSED: { description: 'The endpoint answered something else than 2xx; redirects are not followed.' },
    TIMED_OUT: { description: 'It did not answer within 15 seconds.' },
    CONNECTION_FAILED: { description: 'There was no connection, its certificate was not accepted, or it broke.' },
    ADDRESS_NOT_ALLOWED: { description: 'Its name leads to a private address, which the operator does not allow.' },
  } as const,
});

const WebhookDeliveryAttempt = builder.prismaObject('WebhookDeliveryAttempt', {
  description: 'One attempt at a delivery that came to an end.',
  fields: (t) => ({
    startedAt: t.expose('startedAt', { type: 'DateTime', description: 'When it began: what was signed as its time.' }),
    durationMs: t.exposeInt('durationMs', { description: 'How long it took, in milliseconds.' }),
    httpStatus: t.exposeInt('httpStatus', {
      nullable: true,
      description: 'What the endpoint answered; null where it did not.',
    }),
    failure: t.expose('failure', {
      type: WebhookDeliveryFailure,
      nullable: true,
      description: 'Why it failed; null where the endpoint took it.',
    }),
  }),
});

export const WebhookDelivery = builder.prismaNode('WebhookDelivery', {
  description:
    'A health event that is told to a webhook endpoint. Kept for 30 days unless the operator says otherwise.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    event: t.relation('event', { type: HealthEvent, description: 'The event. Its `id` is sent as `webhook-id`.' }),
    status: t.expose('status', { type: WebhookDeliveryStatus, description: 'How far it has come.' }),
    attemptCount: t.exposeInt('attemptCount', { description: 'How many attempts were begun.' }),
    attempts: t.relation('attempts', {
      type: WebhookDeliveryAttempt,
      description: `The newest ${SHOWN_ATTEMPTS} attempts that came to an end, newest first.`,
      query: { orderBy: [{ startedAt: 'desc' }, { id: 'desc' }], take: SHOWN_ATTEMPTS },
    }),
    nextAttemptAt: t.expose('nextAttemptAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it is tried next; null: not again, or not before its endpoint is enabled.',
    }),
    queuedAt: t.expose('queuedAt', {
      type: 'DateTime',
      description: 'When the event happened, or its delivery was last asked for again.',
    }),
    deliveredAt: t.expose('deliveredAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the endpoint last took it; null before.',
    }),
  }),
});

const WebhookDeliveryFilter = builder.inputType('WebhookDeliveryFilter', {
  description: 'Which deliveries a list shows; all conditions must hold.',
  fields: (t) => ({ status: t.field({ type: WebhookDeliveryStatus, description: 'Only those of this status.' }) }),
});

export const WebhookDeliveryConnection = builder.connectionObject(
  { type: WebhookDelivery, name: 'WebhookDeliveryConnection', description: 'One page of deliveries.' },
  { name: 'WebhookDeliveryEdge' },
);

export { WebhookDeliveryFilter };

/** The order and the condition of a list of deliveries, newest first. */
export function deliveryPage(args: {
  filter?: { status?: 'PENDING' | 'DELIVERED' | 'FAILED' | null | undefined } | null | undefined;
}): { where: Prisma.WebhookDeliveryWhereInput; orderBy: Prisma.WebhookDeliveryOrderByWithRelationInput[] } {
  const status = args.filter?.status;
  return rowsOf(args, { where: status ? { status } : {}, orderBy: [{ queuedAt: 'desc' }, { id: 'desc' }] });
}
