import type { Prisma } from '../generated/prisma/client.js';
import type { GrantKind } from '../generated/prisma/enums.js';
import { NotFoundError, ProviderUnavailableError, ReauthorizationRequiredError } from '../errors.js';
import { checkGrant, refreshGrant } from '../domain/grant-check.js';
import { describedScope } from '../zoom-scopes/catalogue.js';
import { builder } from './builder.js';
import { isGiven, OLDEST_FIRST, rowsOf } from './connection.js';
import type { Context } from './context.js';
import { Health, HealthStatus } from './health.js';
import { NO_ROW, requireRowId, rowId } from './ids.js';
import { ownGrantId } from './reach.js';
import { visibleGrants } from './scoped-prisma.js';
import { outcome, selected } from './outcome.js';
import { Provider } from './provider.js';
import { Scope } from './scope.js';

/** What is common to the fields of both kinds of grant; each kind lists them, with its own descriptions. */
export const Grant = builder.prismaInterface('Grant', {
  name: 'Grant',
  description:
    'What an installation and a user connection have in common: something the provider granted, its credential and its health.',
  interfaces: [builder.nodeInterfaceRef()],
  select: { id: true, kind: true },
  resolveType: (grant) => (grant.kind === 'INSTALLATION' ? 'Installation' : 'UserConnection'),
  fields: (t) => ({
    tenant: t.relation('tenant', { description: 'The tenant it belongs to.' }),
    app: t.relation('app', { description: 'The app it was granted to.' }),
    health: t.field({
      type: Health,
      description: 'Its present health.',
      select: {
        healthStatus: true,
        healthReason: true,
        healthSince: true,
        healthCheckedAt: true,
        credential: { select: { lastRefreshedAt: true } },
      },
      resolve: (grant) => grant,
    }),
    credentialInfo: t.relation('credential', {
      type: CredentialInfo,
      nullable: true,
      description: 'What may be known about its credential without opening it; null when it holds none.',
    }),
    grantedScopes: t.field({
      type: [Scope],
      description: 'Scopes that the provider granted.',
      select: { grantedScopes: true },
      resolve: (grant) => grant.grantedScopes.map((name) => describedScope(name)),
    }),
    missingScopes: t.field({
      type: [Scope],
      description: 'Scopes that the app requires and the provider did not grant.',
      select: { missingScopes: true },
      resolve: (grant) => grant.missingScopes.map(describedScope),
    }),
    providerAccountId: t.exposeString('providerAccountId', {
      nullable: true,
      description: "The provider's identifier of the account it was granted in.",
    }),
    createdAt: t.expose('createdAt', { type: 'DateTime', description: 'When it was first connected.' }),
  }),
});

export const CredentialInfo = builder.prismaObject('Credential', {
  name: 'CredentialInfo',
  description: 'What may be known about a credential without opening it.',
  select: { grantId: true },
  fields: (t) => ({
    accessTokenExpiresAt: t.expose('expiresAt', {
      type: 'DateTime',
      description: 'When the present access token expires.',
    }),
    refreshTokenExpiresAt: t.expose('refreshExpiresAt', {
      type: 'DateTime',
      nullable: true,
      description: "The provider's idle limit as far as it is known; null where it is not.",
    }),
    lastRefreshedAt: t.expose('lastRefreshedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it was last refreshed; null before the first time.',
    }),
    nextRefreshAt: t.expose('nextRefreshAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When it is due to be refreshed; null when it will not be.',
    }),
    version: t.exposeInt('version', { description: 'Grows by one with each rotation.' }),
  }),
});

export const ProviderUser = builder
  .objectRef<{
    providerUserId: string;
    providerUserEmail: string | null;
    providerUserName: string | null;
  }>('ProviderUser')
  .implement({
    description: 'A user of the provider.',
    fields: (t) => ({
      providerUserId: t.exposeString('providerUserId', { description: "The provider's identifier of the user." }),
      email: t.string({
        nullable: true,
        description: 'Their e-mail address, where the provider told it.',
        resolve: (user) => user.providerUserEmail,
      }),
      displayName: t.string({
        nullable: true,
        description: 'Their name, where the provider told it.',
        resolve: (user) => user.providerUserName,
      }),
    }),
  });

/** The columns of a grant that say who authorized it. */
export const providerUserColumns = { providerUserId: true, providerUserEmail: true, providerUserName: true } as const;

/** @returns null where the provider did not tell who it was. */
export const providerUserOf = <Row extends { providerUserId: string | null }>(row: Row) =>
  row.providerUserId === null ? null : { ...row, providerUserId: row.providerUserId };

export const GrantFilter = builder.inputType('GrantFilter', {
  description: 'Which connections a list shows; all conditions must hold.',
  fields: (t) => ({
    tenantId: t.string({ description: 'Your identifier of the tenant.' }),
    userId: t.string({ description: 'Your identifier of the user.' }),
    appId: t.id({ description: 'The provider app.' }),
    provider: t.field({ type: Provider, description: 'The provider.' }),
    status: t.field({ type: [HealthStatus], description: 'Any of these statuses.' }),
    missingScope: t.string({ description: 'Only those that lack this scope.' }),
  }),
});

/** The filter as a condition of the database. */
export function whereOf(filter: typeof GrantFilter.$inferInput | null | undefined): Prisma.GrantWhereInput {
  if (!filter) return {};
  const { tenantId, userId, appId, provider, status, missingScope } = filter;
  return {
    ...(isGiven(tenantId) ? { tenant: { externalId: tenantId } } : {}),
    ...(isGiven(userId) ? { externalUserId: userId } : {}),
    ...(isGiven(appId) ? { appId: rowId(appId, 'ProviderApp') ?? NO_ROW } : {}),
    ...(isGiven(provider) ? { app: { provider } } : {}),
    ...(isGiven(status) ? { healthStatus: { in: [...status] } } : {}),
    ...(isGiven(missingScope) ? { missingScopes: { has: missingScope } } : {}),
  };
}

/**
 * The condition and order of a page of grants of one kind, among those that the caller may see.
 *
 * @throws BAD_USER_INPUT as `checkPage`.
 */
export function grantPage(
  { principal }: Pick<Context, 'principal'>,
  kind: GrantKind,
  args: { filter?: typeof GrantFilter.$inferInput | null | undefined },
) {
  const where: Prisma.GrantWhereInput = { AND: [whereOf(args.filter), visibleGrants(principal)], kind };
  return rowsOf(args, { where, orderBy: OLDEST_FIRST });
}

const GRANT_ERRORS = [NotFoundError, ReauthorizationRequiredError, ProviderUnavailableError];

const RefreshGrantInput = builder.inputType('RefreshGrantInput', {
  description: 'Which connection to refresh.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The installation or user connection.' }) }),
});

builder.mutationField('refreshGrant', (t) =>
  t.prismaField({
    type: Grant,
    nullable: true,
    description: 'Refreshes a credential now, whether or not it is due.',
    errors: outcome('grant', 'The connection, with its renewed credential.', GRANT_ERRORS),
    args: { input: t.arg({ type: RefreshGrantInput, required: true, description: 'Which.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await refreshGrant(
        ctx,
        await ownGrantId(ctx, requireRowId(input.id, 'Installation', 'UserConnection')),
      );
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const CheckGrantInput = builder.inputType('CheckGrantInput', {
  description: 'Which connection to check.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The installation or user connection.' }) }),
});

builder.mutationField('checkGrant', (t) =>
  t.prismaField({
    type: Grant,
    nullable: true,
    description: 'Asks the provider whether it still accepts a connection, and records its health.',
    errors: outcome('grant', 'The connection, with its present health.', GRANT_ERRORS),
    args: { input: t.arg({ type: CheckGrantInput, required: true, description: 'Which.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await checkGrant(ctx, await ownGrantId(ctx, requireRowId(input.id, 'Installation', 'UserConnection')));
      return ctx.prisma.grant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
