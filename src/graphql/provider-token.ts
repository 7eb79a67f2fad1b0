import {
  localRecordingToken,
  onBehalfOfToken,
  type ProviderToken as ProviderTokenShape,
  zakToken,
} from '../domain/provider-token.js';
import {
  GrantNotFoundError,
  MeetingNotFoundError,
  MissingScopesError,
  ProviderUnavailableError,
  ReauthorizationRequiredError,
  RefusedByProviderError,
} from '../errors.js';
import { builder } from './builder.js';
import type { Context } from './context.js';
import { Grant } from './grant.js';
import { MeetingInput, meetingQueryOf } from './meeting.js';

const ProviderToken = builder.objectRef<ProviderTokenShape>('ProviderToken').implement({
  description: 'A token that Zoom minted for one purpose, just now. It is not stored here.',
  fields: (t) => ({
    token: t.field({ type: 'Secret', description: 'The token itself.', resolve: ({ token }) => token }),
    expiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      nullable: true,
      description: 'Until when it is good; null where Zoom does not tell.',
    }),
    grant: t.prismaField({
      type: Grant,
      description: 'The connection whose credential it was minted with.',
      resolve: (query, { grantId }, _args, ctx) =>
        ctx.prisma.grant.findUniqueOrThrow({ ...query, where: { id: grantId } }),
    }),
  }),
});

const ProviderTokenResult = builder.errorUnion('ProviderTokenResult', {
  description: 'A token, or why there is none.',
  types: [
    ProviderToken,
    GrantNotFoundError,
    MeetingNotFoundError,
    RefusedByProviderError,
    ReauthorizationRequiredError,
    MissingScopesError,
    ProviderUnavailableError,
  ],
  // Errors are told apart by their class before this is asked.
  resolveType: () => ProviderToken,
});

builder.queryField('localRecordingToken', (t) =>
  t.field({
    type: ProviderTokenResult,
    nullable: true,
    description: "Zoom's join token for local recording, minted with the host's credential. Needs CREDENTIALS_READ.",
    args: { input: t.arg({ type: MeetingInput, required: true, description: 'Which meeting.' }) },
    resolve: (_root, { input }, ctx) => localRecordingToken(ctx, meetingQueryOf(input, ctx)),
  }),
);

const ZakTokenInput = builder.inputType('ZakTokenInput', {
  description: 'For whom.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({ required: true, description: 'Your identifier of the user.' }),
  }),
});

function userQueryOf<Input extends { tenantId: string; userId: string }>(input: Input, ctx: Context) {
  return { ...input, onlyTenantId: ctx.principal.tenantId };
}

builder.queryField('zakToken', (t) =>
  t.field({
    type: ProviderTokenResult,
    nullable: true,
    description: "Zoom's access key that lets a bot start or join as the user. Needs CREDENTIALS_READ.",
    args: { input: t.arg({ type: ZakTokenInput, required: true, description: 'For whom.' }) },
    resolve: (_root, { input }, ctx) => zakToken(ctx, userQueryOf(input, ctx)),
  }),
);

const OnBehalfOfTokenInput = builder.inputType('OnBehalfOfTokenInput', {
  description: 'For whom, and for which meeting.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({ required: true, description: 'Your identifier of the user, who has to be in the meeting.' }),
    meetingId: t.string({ required: true, description: 'The meeting number.' }),
  }),
});

builder.queryField('onBehalfOfToken', (t) =>
  t.field({
    type: ProviderTokenResult,
    nullable: true,
    description: "Zoom's token that lets a bot join one meeting on behalf of the user. Needs CREDENTIALS_READ.",
    args: { input: t.arg({ type: OnBehalfOfTokenInput, required: true, description: 'For whom, and where.' }) },
    resolve: (_root, { input }, ctx) => onBehalfOfToken(ctx, userQueryOf(input, ctx)),
  }),
);
