import { createFrontendSession, revokeFrontendSession } from '../domain/frontend-session.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { FrontendAction as FrontendActionValues } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import { builder, encodeGlobalId } from './builder.js';
import { described } from './health.js';
import { requireRowId } from './ids.js';
import { outcome } from './outcome.js';
import { ownTenantId } from './reach.js';

const FrontendAction = builder.enumType('FrontendAction', {
  description: 'What a browser may do with a frontend session.',
  values: described(FrontendActionValues, {
    CONNECT_INSTALLATION: 'Take an administrator through the consent trip of an installation.',
    CONNECT_USER: 'Take its user through the consent trip of a user connection.',
    READ_CONNECTIONS:
      "Read and watch the tenant's installations and the connections of its user, or of all users where it has none.",
    REVOKE:
      'End the connections of its user; without a user, or together with CONNECT_INSTALLATION, also installations.',
  }),
});

const FrontendSession = builder.objectRef<{ id: string; token: Secret; expiresAt: Date }>('FrontendSession').implement({
  description: 'What a browser authenticates with, for a short time and within bounds. It can never read a Secret.',
  fields: (t) => ({
    id: t.id({
      description: 'By which it is revoked.',
      resolve: ({ id }) => encodeGlobalId('FrontendSession', id),
    }),
    token: t.field({
      type: 'Secret',
      description:
        'Give it to the browser; it can connect, watch and revoke within its bounds and never read a credential. Shown once.',
      resolve: ({ token }) => token,
    }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'Until when it is good.' }),
  }),
});

const CreateFrontendSessionInput = builder.inputType('CreateFrontendSessionInput', {
  description: 'Whom a browser acts for, and what it may do.',
  fields: (t) => ({
    tenantId: t.string({
      required: true,
      description: 'Your identifier of the tenant. Its allowed origins are those that the session may be used from.',
    }),
    userId: t.string({ description: 'Your identifier of the user who is signed in. Null: it acts for the tenant.' }),
    allow: t.field({ type: [FrontendAction], required: true, description: 'What it may do.' }),
    ttlSeconds: t.int({
      required: true,
      defaultValue: 600,
      description: 'How long it is good for (seconds): up to 600 where it may connect, up to 3600 otherwise.',
    }),
    returnTo: t.field({
      type: 'URL',
      description: 'Where its consent trips return to. Null: each trip says.',
    }),
  }),
});

builder.mutationField('createFrontendSession', (t) =>
  t.field({
    type: FrontendSession,
    nullable: true,
    description: 'Makes a token for a browser.',
    errors: outcome('frontendSession', 'The session. Give its `token` to the browser.', [
      NotFoundError,
      InvalidInputError,
    ]),
    args: { input: t.arg({ type: CreateFrontendSessionInput, required: true, description: 'Its bounds.' }) },
    resolve: (_root, { input }, ctx) =>
      createFrontendSession(ctx.own, ctx.principal, {
        tenantId: ownTenantId(ctx, input.tenantId),
        userId: input.userId ?? null,
        allow: input.allow,
        ttlSeconds: input.ttlSeconds,
        returnTo: input.returnTo ?? null,
      }),
  }),
);

const RevokeFrontendSessionInput = builder.inputType('RevokeFrontendSessionInput', {
  description: 'Which frontend session to end.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The session.' }) }),
});

builder.mutationField('revokeFrontendSession', (t) =>
  t.id({
    nullable: true,
    description: 'Ends a frontend session and its streams: at once here, in every process within 5 seconds.',
    errors: outcome('deletedId', 'The id that nothing has any more.', [NotFoundError]),
    args: { input: t.arg({ type: RevokeFrontendSessionInput, required: true, description: 'What to end.' }) },
    resolve: async (_root, { input }, ctx) => {
      const id = requireRowId(input.id, 'FrontendSession');
      ctx.principals.forget([await revokeFrontendSession(ctx.own, { id, tenantId: ctx.principal.tenantId })]);
      return encodeGlobalId('FrontendSession', id);
    },
  }),
);
