import { beginAuthorizationSession } from '../domain/authorization.js';
import { completeAuthorization } from '../domain/completion.js';
import { InvalidInputError, LimitExceededError, NotFoundError } from '../errors.js';
import { authorizationTopic } from '../feed/feed.js';
import { stoppable } from '../feed/stoppable.js';
import {
  AuthorizationFailure as AuthorizationFailureValues,
  AuthorizationStatus as AuthorizationStatusValues,
  type AuthorizationStatus as AuthorizationStatusValue,
} from '../generated/prisma/enums.js';
import { builder } from './builder.js';
import type { Context } from './context.js';
import { Grant } from './grant.js';
import { described } from './health.js';
import { requireRowId, rowId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { ownTenantId } from './reach.js';

const AuthorizationStatus = builder.enumType('AuthorizationStatus', {
  description: 'How far a trip through the consent screen has come.',
  values: described(AuthorizationStatusValues, {
    PENDING: 'The browser has not come back from the provider.',
    AWAITING_COMPLETION: 'The provider answered; `completeAuthorization` is awaited.',
    COMPLETED: 'The grant is stored.',
    FAILED: 'It came to nothing; `failure` says why.',
    EXPIRED: 'It was not finished in time.',
  }),
});

export const AuthorizationFailure = builder.enumType('AuthorizationFailure', {
  description: 'Why a trip came to nothing.',
  values: described(AuthorizationFailureValues, {
    DENIED_BY_USER: 'The user did not consent.',
    BROWSER_MISMATCH: 'The answer came from another browser than the one that began.',
    INITIATOR_MISMATCH: 'Another user of your product completed it than began it.',
    ACCOUNT_MISMATCH: "The Zoom user is not in an account of the tenant's installation.",
    IDENTITY_CHANGED: 'Another Zoom user consented than is connected, and that was not allowed.',
    CODE_REJECTED: 'Zoom did not redeem the authorization code.',
    PROVIDER_UNAVAILABLE: 'Zoom did not answer as it should.',
  }),
});

/** EXPIRED is not stored: it follows from the time. */
function statusOf(
  session: { status: AuthorizationStatusValue; expiresAt: Date },
  ctx: Context,
): AuthorizationStatusValue {
  const open = session.status === 'PENDING' || session.status === 'AWAITING_COMPLETION';
  return open && session.expiresAt <= ctx.clock.now() ? 'EXPIRED' : session.status;
}

export const AuthorizationSession = builder.prismaNode('AuthorizationSession', {
  description: "One trip through the provider's consent screen. Used once.",
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    status: t.field({
      type: AuthorizationStatus,
      description: 'How far it has come.',
      select: { status: true, expiresAt: true },
      resolve: (session, _args, ctx) => statusOf(session, ctx),
    }),
    startUrl: t.field({
      type: 'URL',
      description:
        'Where to send the browser, as a redirect or in a popup. Served by this API, which then redirects to the provider.',
      resolve: (session, _args, ctx) => `${ctx.settings.publicUrl}/oauth/start/${session.id}`,
    }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'When the present step must be done.' }),
    grant: t.relation('grant', {
      type: Grant,
      nullable: true,
      description: 'What came of it; null until it is completed.',
    }),
    failure: t.expose('failure', {
      type: AuthorizationFailure,
      nullable: true,
      description: 'Why it failed; null unless `status` is FAILED.',
    }),
  }),
});

builder.queryField('authorizationSession', (t) =>
  t.prismaField({
    type: AuthorizationSession,
    nullable: true,
    description: 'The authorization session with this id; null where there is none.',
    args: { id: t.arg.id({ required: true, description: 'The session.' }) },
    resolve: (query, _root, { id }, ctx) => {
      const sessionId = rowId(id, 'AuthorizationSession');
      return sessionId === null
        ? null
        : ctx.prisma.authorizationSession.findUnique({ ...query, where: { id: sessionId } });
    },
  }),
);

const BeginInstallationInput = builder.inputType('BeginInstallationInput', {
  description: 'Who installs into which tenant.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({
      required: true,
      description: 'The administrator, as your product knows them; completion by a server key must name the same one.',
    }),
    appId: t.id({ description: 'Needed only where several apps could serve.' }),
    returnTo: t.field({
      type: 'URL',
      description:
        "Where the browser returns to; its origin must be one of the tenant's. Null: a result page that reports to the opener.",
    }),
  }),
});

/** @throws {NotFoundError} it is given and cannot be an app's: an empty one is not the same as none. */
const appIdOf = (appId: string | null | undefined): string | null =>
  appId === null || appId === undefined ? null : requireRowId(appId, 'ProviderApp');

const BEGIN_ERRORS = [NotFoundError, InvalidInputError, LimitExceededError];

builder.mutationField('beginInstallation', (t) =>
  t.prismaField({
    type: AuthorizationSession,
    nullable: true,
    description: 'Begins the consent trip in which an administrator installs an admin-managed app.',
    errors: outcome('authorizationSession', 'The session; send the browser to its `startUrl`.', BEGIN_ERRORS),
    args: { input: t.arg({ type: BeginInstallationInput, required: true, description: 'Who and where.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await beginAuthorizationSession(ctx.own, ctx.principal, {
        grantKind: 'INSTALLATION',
        tenantId: ownTenantId(ctx, input.tenantId),
        userId: input.userId,
        appId: appIdOf(input.appId),
        returnTo: input.returnTo ?? null,
        allowIdentityChange: true,
      });
      return ctx.prisma.authorizationSession.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const BeginAuthorizationInput = builder.inputType('BeginAuthorizationInput', {
  description: 'Who authorizes within which tenant.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({ required: true, description: 'Your identifier of the user.' }),
    appId: t.id({ description: 'Needed only where several apps could serve.' }),
    returnTo: t.field({
      type: 'URL',
      description:
        "Where the browser returns to; its origin must be one of the tenant's. Null: a result page that reports to the opener.",
    }),
    allowIdentityChange: t.boolean({
      required: true,
      defaultValue: false,
      description: 'Refuse to replace the connected provider user by another one unless true.',
    }),
  }),
});

builder.mutationField('beginAuthorization', (t) =>
  t.prismaField({
    type: AuthorizationSession,
    nullable: true,
    description: 'Begins the consent trip in which a user authorizes a user-managed app.',
    errors: outcome('authorizationSession', 'The session; send the browser to its `startUrl`.', BEGIN_ERRORS),
    args: { input: t.arg({ type: BeginAuthorizationInput, required: true, description: 'Who and where.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await beginAuthorizationSession(ctx.own, ctx.principal, {
        grantKind: 'USER_CONNECTION',
        tenantId: ownTenantId(ctx, input.tenantId),
        userId: input.userId,
        appId: appIdOf(input.appId),
        returnTo: input.returnTo ?? null,
        allowIdentityChange: input.allowIdentityChange,
      });
      return ctx.prisma.authorizationSession.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const CompleteAuthorizationInput = builder.inputType('CompleteAuthorizationInput', {
  description: 'What shows that the one who began is the one who consented.',
  fields: (t) => ({
    connectCode: t.string({
      required: true,
      description: 'As handed to the browser at the end of the consent trip. Spent by this call, whatever comes of it.',
    }),
    userId: t.string({
      description: 'Required of a server key: the user who is signed in to your product right now.',
    }),
  }),
});

builder.mutationField('completeAuthorization', (t) =>
  t.prismaField({
    type: AuthorizationSession,
    nullable: true,
    description:
      'Shows that the one who began is the one who consented; only then is the code redeemed at the provider. A refusal answers the session, FAILED.',
    errors: outcome('authorizationSession', 'The session, COMPLETED or FAILED.', [NotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: CompleteAuthorizationInput, required: true, description: 'The proof.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await completeAuthorization(ctx, ctx.principal, {
        connectCode: input.connectCode,
        userId: input.userId ?? null,
      });
      // Whoever spent its connect code is told the outcome, also of a trip that they did not begin and otherwise cannot see.
      return ctx.db.prisma.authorizationSession.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

builder.subscriptionField('authorizationChanged', (t) =>
  t.prismaField({
    type: AuthorizationSession,
    nullable: true,
    description: 'The progress of one authorization session, starting with its present state. Ends when it is over.',
    args: { id: t.arg.id({ required: true, description: 'The session.' }) },
    subscribe: (_root, { id }, ctx) =>
      stoppable((signal) => watchSession(ctx, rowId(id, 'AuthorizationSession'), signal)),
    resolve: (query, session, _args, ctx) =>
      ctx.prisma.authorizationSession.findUnique({ ...query, where: { id: (session as { id: string }).id } }),
  }),
);

/** Yields the session whenever its status is another than before, until it is one that stays. */
async function* watchSession(ctx: Context, id: string | null, signal: AbortSignal) {
  if (id === null) return;
  let last: AuthorizationStatusValue | null = null;
  for await (const _ of ctx.feed.wakeUps(authorizationTopic(id), signal)) {
    const session = await ctx.prisma.authorizationSession.findUnique({
      where: { id },
      select: { id: true, status: true, expiresAt: true },
    });
    if (session === null) return;
    const status = statusOf(session, ctx);
    if (status === last) continue;
    last = status;
    // Asked anew for each step: who has lost a permission since is told nothing that came after.
    if ((await ctx.principals.changed([ctx.principal])).size > 0) return;
    yield session;
    if (status !== 'PENDING' && status !== 'AWAITING_COMPLETION') return;
  }
}
