import { SYSTEM_CHAIN } from '../domain/audit-chain.js';
import type { AuditEvent as AuditEventRow, Prisma } from '../generated/prisma/client.js';
import { builder, encodeGlobalId } from './builder.js';
import { auditCursorOf, auditPlaceOf, cursorPage, isGiven, type PageArgs, type Wanted } from './connection.js';
import type { Context } from './context.js';
import { Grant } from './grant.js';
import { NO_ROW, rowId } from './ids.js';
import { Tenant } from './tenant.js';
import { AuditOutcome as AuditOutcomes, AuditPrincipalKind as AuditPrincipalKinds } from '../generated/prisma/enums.js';

const AuditPrincipalKind = builder.enumType('AuditPrincipalKind', {
  description: 'What somebody who reads or changes something is.',
  values: {
    [AuditPrincipalKinds.SERVER_KEY]: { description: 'A server key.' },
    [AuditPrincipalKinds.ADMIN_KEY]: { description: 'The admin key of the settings.' },
    [AuditPrincipalKinds.FRONTEND_SESSION]: { description: 'A frontend session.' },
    [AuditPrincipalKinds.SIGNED_URL]: { description: 'Whoever had a signed URL.' },
    [AuditPrincipalKinds.PROVIDER]: { description: 'Zoom, by a signed webhook to a provider app.' },
    [AuditPrincipalKinds.SYSTEM]: { description: 'This server by itself.' },
    [AuditPrincipalKinds.BROWSER]: {
      description: 'Whoever came back from the consent screen with the state of a trip.',
    },
    [AuditPrincipalKinds.OPERATOR]: { description: 'Whoever ran a command that works on the database itself.' },
  } as const,
});

const AuditOutcome = builder.enumType('AuditOutcome', {
  description: 'What came of it.',
  values: {
    [AuditOutcomes.DONE]: { description: 'It was done.' },
    [AuditOutcomes.REFUSED]: { description: 'It was asked for and refused; nothing changed.' },
  } as const,
});

/** As the API gives the ids of keys and sessions out, so that they can be compared. */
function principalIdOf({ principalKind, principalId }: AuditEventRow): string {
  if (principalKind === 'SERVER_KEY') return encodeGlobalId('ServerKey', principalId);
  if (principalKind === 'FRONTEND_SESSION') return encodeGlobalId('FrontendSession', principalId);
  if (principalKind === 'BROWSER') return encodeGlobalId('AuthorizationSession', principalId);
  if (principalKind === 'PROVIDER') return encodeGlobalId('ProviderApp', principalId);
  return principalId;
}

/** `ServerKey:` and its row, as the API gives its id out; what is no row here is told as it is. */
function subjectOf(subject: string): string {
  const at = subject.indexOf(':');
  const [typename, id] = [subject.slice(0, at), subject.slice(at + 1)];
  return /^[A-Z]/.test(typename) ? encodeGlobalId(typename, id) : subject;
}

const idOf = ({ chainId, sequence }: AuditEventRow): string => `${chainId}:${sequence}`;

const AUDIT_EVENT_ID = /^([0-9a-f-]{36}):(\d{1,9})$/;

const AuditEvent = builder.objectRef<AuditEventRow>('AuditEvent');

builder.node(AuditEvent, {
  description:
    'Who read or changed something. Written with the change itself, never altered, and chained: a removed or altered one is found out.',
  id: { resolve: idOf },
  loadOne: async (id, ctx: Context) => {
    const [, chainId = NO_ROW, sequence = '0'] = AUDIT_EVENT_ID.exec(id) ?? [];
    const where = { chainId, sequence: Number(sequence) };
    return ctx.prisma.auditEvent.findFirst({ where });
  },
  isTypeOf: (value) => typeof value === 'object' && value !== null && 'chainId' in value && 'sequence' in value,
  fields: (t) => ({
    cursor: t.string({ description: 'Pass as `after` to go on behind this event.', resolve: auditCursorOf }),
    occurredAt: t.expose('occurredAt', {
      type: 'DateTime',
      description:
        'When it happened, by the clock of the database; the first time where it stands for several reads or attempts.',
    }),
    lastOccurredAt: t.expose('lastOccurredAt', {
      type: 'DateTime',
      description: 'The last time, where it stands for several reads or attempts.',
    }),
    count: t.exposeInt('count', {
      description: 'How many reads or refused attempts it stands for, or how many things were changed.',
    }),
    tenant: t.prismaField({
      type: Tenant,
      nullable: true,
      description: 'The tenant it happened in; null for what belongs to no tenant, and once the tenant is deleted.',
      resolve: (query, { chainId }, _args, ctx) =>
        chainId === SYSTEM_CHAIN ? null : ctx.db.prisma.tenant.findUnique({ ...query, where: { id: chainId } }),
    }),
    action: t.exposeString('action', {
      description: 'What was done: `credential.read`, `grant.revoked`, `key.created` and so on.',
    }),
    outcome: t.expose('outcome', { type: AuditOutcome, description: 'What came of it.' }),
    reason: t.exposeString('reason', {
      nullable: true,
      description: 'The name of the error that it was refused with, or the reason of a change of health.',
    }),
    principalKind: t.expose('principalKind', { type: AuditPrincipalKind, description: 'What kind of caller it was.' }),
    principalId: t.string({
      description:
        'Who it was: the id of a server key, frontend session, provider app or, of a browser, its trip; or a word.',
      resolve: principalIdOf,
    }),
    externalUserId: t.exposeString('externalUserId', {
      nullable: true,
      description: 'The user of your product that a frontend session acted for; erased with the tenant.',
    }),
    clientAddress: t.exposeString('clientAddress', {
      nullable: true,
      description: 'The address that the request came from, where it is known and one; erased with the tenant.',
    }),
    subject: t.string({
      nullable: true,
      description:
        'The id of what it was about, where that is no connection; the field of a query or subscription that was refused.',
      resolve: ({ subject }) => (subject === null ? null : subjectOf(subject)),
    }),
    grant: t.prismaField({
      type: Grant,
      nullable: true,
      description: 'The connection it was about; null where it was about none, and once that is removed.',
      // Whoever sees the event sees the tenant, but an attempt that was refused may have named another tenant's grant.
      resolve: (query, { grantId, chainId }, _args, ctx) =>
        grantId === null
          ? null
          : ctx.db.prisma.grant.findUnique({ ...query, where: { id: grantId, tenantId: chainId } }),
    }),
    credentialVersion: t.exposeInt('credentialVersion', {
      nullable: true,
      description: 'Of a read: the version of the credential that was handed out.',
    }),
  }),
});

const AuditFilter = builder.inputType('AuditFilter', {
  description: 'Which audit events a list shows; all conditions must hold.',
  fields: (t) => ({
    tenantId: t.string({ description: 'Your identifier of the tenant.' }),
    grantId: t.id({ description: 'The installation or user connection.' }),
    action: t.string({ description: 'As `AuditEvent.action` tells it.' }),
  }),
});

const AuditEventConnection = builder.connectionObject(
  { type: AuditEvent, name: 'AuditEventConnection', description: 'One page of audit events.' },
  { name: 'AuditEventEdge' },
);

interface Filter {
  tenantId?: string | null | undefined;
  grantId?: string | null | undefined;
  action?: string | null | undefined;
}

async function conditionOf(ctx: Context, { tenantId, grantId, action }: Filter): Promise<Prisma.AuditEventWhereInput> {
  const where: Prisma.AuditEventWhereInput = {};
  if (isGiven(tenantId)) {
    const tenant = await ctx.db.prisma.tenant.findUnique({ where: { externalId: tenantId }, select: { id: true } });
    // The system's own chain is no tenant's.
    if (tenant === null) return { chainId: NO_ROW, sequence: 0 };
    where.chainId = tenant.id;
  }
  if (isGiven(grantId)) where.grantId = rowId(grantId, 'Installation', 'UserConnection') ?? NO_ROW;
  if (isGiven(action)) where.action = action;
  return where;
}

/** Behind a place in the order of recording, or before it. */
function beyond(cursor: string, direction: 'gt' | 'lt'): Prisma.AuditEventWhereInput {
  const { recordedAt, chainId, sequence } = auditPlaceOf(cursor);
  return {
    recordedAt: { [`${direction}e`]: recordedAt },
    OR: [
      { recordedAt: { [direction]: recordedAt } },
      { chainId: { [direction]: chainId } },
      { chainId, sequence: { [direction]: sequence } },
    ],
  };
}

/** A page in the order in which the events were recorded, which within one tenant is that of its chain. */
async function auditEventPage(ctx: Context, args: PageArgs & { filter?: Filter | null | undefined }) {
  const read = async ({ order, take }: Wanted) => {
    // What was read a moment ago is to be found. Where it cannot be recorded, what was recorded can still be read.
    await ctx.reads.flush().catch(() => undefined);
    return ctx.prisma.auditEvent.findMany({
      where: {
        AND: [
          await conditionOf(ctx, args.filter ?? {}),
          ...(isGiven(args.after) ? [beyond(args.after, 'gt')] : []),
          ...(isGiven(args.before) ? [beyond(args.before, 'lt')] : []),
        ],
      },
      orderBy: [{ recordedAt: order }, { chainId: order }, { sequence: order }],
      take,
    });
  };
  return cursorPage(args, read, auditCursorOf);
}

builder.queryField('auditEvents', (t) =>
  t.connection(
    {
      type: AuditEvent,
      description: 'Who read and changed what, oldest first. Needs AUDIT_READ.',
      args: { filter: t.arg({ type: AuditFilter, description: 'Only those that match.' }) },
      resolve: (_root, args, ctx) => auditEventPage(ctx, args),
    },
    AuditEventConnection,
  ),
);
