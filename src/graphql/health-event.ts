import { queryFromInfo } from '@pothos/plugin-prisma';
import type { GraphQLResolveInfo } from 'graphql';
import { positionEvents, requireKnownPosition } from '../domain/health-event.js';
import type { HealthEventPointer } from '../feed/event-stream.js';
import { stoppable } from '../feed/stoppable.js';
import type { Prisma } from '../generated/prisma/client.js';
import { builder } from './builder.js';
import { cursorOf, cursorPage, explainExpired, isGiven, type PageArgs, positionOf, type Wanted } from './connection.js';
import type { Context } from './context.js';
import { Grant } from './grant.js';
import { forbidden } from './guard.js';
import { HealthReason, HealthStatus } from './health.js';
import { NO_ROW, rowId } from './ids.js';

export const HealthEvent = builder.prismaNode('HealthEvent', {
  description: "One transition of a connection's health. Kept; delivered at least once, in order per tenant.",
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    cursor: t.string({
      description: 'Pass as `after` to resume a subscription or a list right behind this event.',
      select: { position: true },
      resolve: (event) => cursorOf(event.position ?? 0n),
    }),
    occurredAt: t.expose('occurredAt', { type: 'DateTime', description: 'When it happened.' }),
    grant: t.relation('grant', {
      type: Grant,
      nullable: true,
      description: 'The connection; null once its provider app was removed.',
    }),
    tenant: t.relation('tenant', { description: 'The tenant.' }),
    previous: t.expose('previous', {
      type: HealthStatus,
      nullable: true,
      description: 'The status before; null for a new connection.',
    }),
    current: t.expose('current', { type: HealthStatus, description: 'The status since.' }),
    reason: t.expose('reason', { type: HealthReason, description: 'Why.' }),
  }),
});

/** The connection type of every list of health events. */
export const HealthEventConnection = {
  node: HealthEvent,
  connection: builder.connectionObject(
    { type: HealthEvent, name: 'HealthEventConnection', description: 'One page of health events.' },
    { name: 'HealthEventEdge' },
  ),
};

builder.prismaInterfaceFields(Grant, (t) => ({
  healthEvents: t.connection(
    {
      type: HealthEvent,
      description: 'Its health transitions, oldest first.',
      resolve: (grant, args, ctx, info) => healthEventPage(ctx, info, args, { grantId: grant.id }),
    },
    HealthEventConnection.connection,
  ),
}));

/** @throws RESYNC_REQUIRED */
const requireKnown = (ctx: Context, position: number): Promise<void> =>
  requireKnownPosition(ctx.db, position).catch((error: unknown) => {
    throw explainExpired(error);
  });

/**
 * A page of events in the order of their positions, which are also their cursors.
 *
 * @throws BAD_USER_INPUT for a cursor that none is, RESYNC_REQUIRED for one that is older than what is kept.
 */
export async function healthEventPage(
  ctx: Context,
  info: GraphQLResolveInfo,
  args: PageArgs,
  where: Prisma.HealthEventWhereInput,
) {
  const read = async ({ order, take }: Wanted) => {
    await positionEvents(ctx.db);
    const [after, before] = [args.after, args.before].map((cursor) => (isGiven(cursor) ? positionOf(cursor) : null));
    const position: Prisma.BigIntNullableFilter = {
      not: null,
      ...(isGiven(after) ? { gt: after } : {}),
      ...(isGiven(before) ? { lt: before } : {}),
    };
    const path = ['edges', 'node'];
    const { select, include } = queryFromInfo({ context: ctx, info, path, typeName: 'HealthEvent' }) as {
      select?: Prisma.HealthEventSelect;
      include?: Prisma.HealthEventInclude;
    };
    const rows = await ctx.prisma.healthEvent.findMany({
      ...(select ? { select: { ...select, position: true } } : include ? { include } : {}),
      where: { ...where, position },
      orderBy: { position: order },
      take,
    });
    for (const cursor of [after, before].filter(isGiven)) await requireKnown(ctx, cursor);
    return rows;
  };
  return cursorPage(args, read, ({ position }) => cursorOf(position ?? 0n));
}

const HealthEventFilter = builder.inputType('HealthEventFilter', {
  description: 'Which health events a list shows; all conditions must hold.',
  fields: (t) => ({
    tenantId: t.string({ description: 'Your identifier of the tenant.' }),
    grantId: t.id({ description: 'The installation or user connection.' }),
  }),
});

builder.queryField('healthEvents', (t) =>
  t.connection(
    {
      type: HealthEvent,
      description: 'Health transitions of all connections that the caller may see, oldest first.',
      args: { filter: t.arg({ type: HealthEventFilter, description: 'Only those that match.' }) },
      resolve: (_root, args, ctx, info) =>
        healthEventPage(ctx, info, args, {
          ...(isGiven(args.filter?.tenantId) ? { tenant: { externalId: args.filter.tenantId } } : {}),
          ...(isGiven(args.filter?.grantId)
            ? { grantId: rowId(args.filter.grantId, 'Installation', 'UserConnection') ?? NO_ROW }
            : {}),
        }),
    },
    HealthEventConnection.connection,
  ),
);

builder.subscriptionField('healthChanged', (t) =>
  t.prismaField({
    type: HealthEvent,
    nullable: true,
    description:
      'Health transitions the caller may see, from now on or, with `after`, from right behind that event: nothing is skipped and nothing out of order per tenant. A cursor older than what is kept ends with RESYNC_REQUIRED.',
    args: {
      tenantId: t.arg.string({ description: 'Only those of this tenant, by your identifier.' }),
      grantId: t.arg.id({ description: 'Only those of this installation or user connection.' }),
      after: t.arg.string({ description: 'The cursor of the last event that was seen.' }),
    },
    subscribe: (_root, args, ctx) => {
      // Before there is a stream, as the access rules refuse.
      requireOwnTenant(ctx, args);
      return stoppable((signal) => subscribeToHealth(ctx, args, signal));
    },
    resolve: (query, event, _args, ctx) =>
      ctx.prisma.healthEvent.findUnique({ ...query, where: { id: (event as { id: string }).id } }),
  }),
);

/** Within a tenant, only whoever acts for one user must be asked about each event. */
export const isVisible = async ({ principal, prisma }: Context, { id }: { id: string }): Promise<boolean> =>
  principal.externalUserId === null || (await prisma.healthEvent.count({ where: { id } })) === 1;

/** What a subscription is about, from its arguments. */
export interface HealthWatch {
  /** Position to go on behind; null: from now on. */
  after: number | null;
  matches: (event: HealthEventPointer) => boolean;
}

interface WatchArgs {
  tenantId?: string | null | undefined;
  grantId?: string | null | undefined;
  after?: string | null | undefined;
}

/** @throws FORBIDDEN for a tenant other than the principal's, be there such a tenant or not. */
function requireOwnTenant({ principal }: Pick<Context, 'principal'>, { tenantId }: WatchArgs): void {
  if (principal.tenantId !== null && isGiven(tenantId) && tenantId !== principal.tenantExternalId) throw forbidden();
}

/**
 * Which events a principal asks for, and gets: those of another tenant are left out whatever is asked for.
 *
 * @throws BAD_USER_INPUT for a cursor that none is, FORBIDDEN for a tenant other than the principal's.
 */
export async function healthWatch(ctx: Context, args: WatchArgs): Promise<HealthWatch> {
  const after = isGiven(args.after) ? positionOf(args.after) : null;
  const grantId = isGiven(args.grantId) ? (rowId(args.grantId, 'Installation', 'UserConnection') ?? NO_ROW) : null;
  const { tenantId: own } = ctx.principal;
  requireOwnTenant(ctx, args);
  const tenant = isGiven(args.tenantId)
    ? await ctx.prisma.tenant.findUnique({ where: { externalId: args.tenantId }, select: { id: true } })
    : null;
  const tenantId = isGiven(args.tenantId) ? (tenant?.id ?? NO_ROW) : null;
  return {
    after,
    matches: (event) =>
      (own === null || event.tenantId === own) &&
      (tenantId === null || event.tenantId === tenantId) &&
      (grantId === null || event.grantId === grantId),
  };
}

async function* subscribeToHealth(ctx: Context, args: WatchArgs, signal: AbortSignal) {
  const watch = await healthWatch(ctx, args);
  try {
    for await (const event of ctx.healthEvents.subscribe({ ...watch, signal })) {
      // Asked anew for each event: who has lost a permission since is told nothing that came after.
      if ((await ctx.principals.changed([ctx.principal])).size > 0) throw forbidden();
      if (await isVisible(ctx, event)) yield event;
    }
  } catch (error) {
    throw explainExpired(error);
  }
}
