import { hostOfMeeting, type MeetingQuery } from '../domain/meeting-host.js';
import { builder } from './builder.js';
import type { Context } from './context.js';
import { Grant } from './grant.js';
import { NO_ROW } from './ids.js';
import { selected } from './outcome.js';
import { requirePermission } from './permission.js';

export const MeetingInput = builder.inputType('MeetingInput', {
  description: 'Which meeting.',
  fields: (t) => ({
    tenantId: t.string({
      description: 'Restricts the search; without it a key that is not restricted to a tenant searches all.',
    }),
    meetingId: t.string({
      required: true,
      description: 'The meeting number or personal meeting id: digits, with or without spaces and dashes.',
    }),
  }),
});

/** @throws FORBIDDEN. */
export function meetingQueryOf(input: typeof MeetingInput.$inferInput, ctx: Context): MeetingQuery {
  requirePermission(ctx, 'CREDENTIALS_READ');
  const { meetingId, tenantId } = input;
  return { meetingId, tenantId: tenantId ?? null, onlyTenantId: ctx.principal.tenantId };
}

builder.queryField('hostOfMeeting', (t) =>
  t.prismaField({
    type: Grant,
    nullable: true,
    description:
      "The connection that can act for a meeting's host: the host's own, or an installation in the host's account. Null where none can, or nothing is known of the meeting. With a tenant named, Zoom is asked about a meeting that is not in the directory. Needs CREDENTIALS_READ.",
    args: { input: t.arg({ type: MeetingInput, required: true, description: 'Which meeting.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await hostOfMeeting(ctx, meetingQueryOf(input, ctx));
      return ctx.prisma.grant.findUnique({ ...selected(query), where: { id: id ?? NO_ROW } });
    },
  }),
);
