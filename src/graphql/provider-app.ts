import {
  registerProviderApp,
  redirectUriOf,
  removeProviderApp,
  updateProviderApp,
  webhookUrlOf,
} from '../domain/provider-app.js';
import {
  AlreadyExistsError,
  InvalidInputError,
  NotFoundError,
  ProviderAppInUseError,
  UnknownScopesError,
} from '../errors.js';
import {
  ProviderAppKind as ProviderAppKindValues,
  ProviderEnvironment as ProviderEnvironmentValues,
} from '../generated/prisma/enums.js';
import { describedScope } from '../zoom-scopes/catalogue.js';
import { builder, encodeGlobalId } from './builder.js';
import { checkPage, OLDEST_FIRST } from './connection.js';
import { GrantFilter, grantPage } from './grant.js';
import { described } from './health.js';
import { requireRowId, rowId } from './ids.js';
import { Installation, InstallationConnection } from './installation.js';
import { outcome, selected } from './outcome.js';
import { Provider } from './provider.js';
import { ProviderAppIncident } from './provider-app-incident.js';
import { Scope } from './scope.js';
import { UserConnection, UserConnectionConnection } from './user-connection.js';

const ProviderAppKind = builder.enumType('ProviderAppKind', {
  description: 'What kind of app it is at the provider.',
  values: described(ProviderAppKindValues, {
    USER_MANAGED: 'A general app that each user authorizes; its tokens act for that user.',
    ADMIN_MANAGED: 'A general app that an administrator adds; its tokens act for the account.',
    SERVER_TO_SERVER: 'A server-to-server app: credentials of one account, no consent screen.',
  }),
});

const ProviderEnvironment = builder.enumType('ProviderEnvironment', {
  description: "Which of the provider's separate environments an app lives in.",
  values: described(ProviderEnvironmentValues, {
    COMMERCIAL: 'Zoom at zoom.us.',
    GOVERNMENT: 'Zoom for Government, at zoomgov.com.',
  }),
});

export const ProviderApp = builder.prismaNode('ProviderApp', {
  description:
    'An app registered at the provider. At Zoom a general app is either user-managed or admin-managed, never both, so a product that needs installation and user credentials registers two.',
  id: { field: 'id' },
  select: { id: true },
  fields: (t) => ({
    provider: t.expose('provider', { type: Provider, description: 'Whose app it is.' }),
    name: t.exposeString('name', { description: 'A name to show.' }),
    kind: t.expose('kind', { type: ProviderAppKind, description: 'What kind of app it is.' }),
    environment: t.expose('environment', { type: ProviderEnvironment, description: 'Where it lives.' }),
    clientId: t.exposeString('clientId', { description: 'Its client id at the provider.' }),
    clientSecretSetAt: t.expose('clientSecretSetAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When its client secret was last set. The secret itself is never shown.',
    }),
    webhookSecretSetAt: t.expose('webhookSecretSetAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When its webhook secret was last set; null while webhooks of the app are refused.',
    }),
    redirectUri: t.field({
      type: 'URL',
      description: "Paste into the provider's OAuth redirect URL and allow list. Distinct per app.",
      select: { key: true },
      resolve: (app, _args, ctx) => redirectUriOf(ctx.settings.publicUrl, app.key),
    }),
    webhookUrl: t.field({
      type: 'URL',
      description: "Paste into the provider's event notification and deauthorization endpoints. Distinct per app.",
      select: { key: true },
      resolve: (app, _args, ctx) => webhookUrlOf(ctx.settings.publicUrl, app.key),
    }),
    webhookValidatedAt: t.expose('webhookValidatedAt', {
      type: 'DateTime',
      nullable: true,
      description: 'When the provider last validated `webhookUrl`.',
    }),
    setupUrl: t.expose('setupUrl', {
      type: 'URL',
      nullable: true,
      description: 'The page of your product that people who add the app at the Marketplace are sent on to.',
    }),
    scopes: t.field({
      type: [Scope],
      description: 'Scopes as configured at the provider, required ones first.',
      select: { requiredScopes: true, optionalScopes: true },
      resolve: (app) => [...app.requiredScopes, ...app.optionalScopes].map(describedScope),
    }),
    incident: t.field({
      type: ProviderAppIncident,
      nullable: true,
      description:
        'An open incident of the app itself (its secret was rejected, the app was disabled). Its connections are unharmed.',
      select: { incidentReason: true, incidentSince: true },
      resolve: ({ id, incidentReason, incidentSince }) =>
        incidentReason === null || incidentSince === null
          ? null
          : { appId: id, reason: incidentReason, since: incidentSince },
    }),
    installations: t.relatedConnection(
      'grants',
      {
        type: Installation,
        cursor: 'id',
        totalCount: true,
        description: 'Installations of the app, oldest first.',
        args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
        query: (args, ctx) => grantPage(ctx, 'INSTALLATION', args),
      },
      InstallationConnection,
    ),
    userConnections: t.relatedConnection(
      'grants',
      {
        type: UserConnection,
        cursor: 'id',
        totalCount: true,
        description: 'User connections through the app, oldest first.',
        args: { filter: t.arg({ type: GrantFilter, description: 'Only those that match.' }) },
        query: (args, ctx) => grantPage(ctx, 'USER_CONNECTION', args),
      },
      UserConnectionConnection,
    ),
  }),
});

const ProviderAppConnection = builder.connectionObject(
  { type: ProviderApp, name: 'ProviderAppConnection', description: 'One page of provider apps.' },
  { name: 'ProviderAppEdge' },
);

builder.queryField('providerApp', (t) =>
  t.prismaField({
    type: ProviderApp,
    nullable: true,
    description: 'The provider app with this id; null where there is none.',
    args: { id: t.arg.id({ required: true, description: 'The app.' }) },
    resolve: (query, _root, { id }, ctx) => {
      const appId = rowId(id, 'ProviderApp');
      return appId === null ? null : ctx.prisma.providerApp.findUnique({ ...query, where: { id: appId } });
    },
  }),
);

builder.queryField('providerApps', (t) =>
  t.prismaConnection(
    {
      type: ProviderApp,
      cursor: 'id',
      description: 'All provider apps, oldest first.',
      resolve: (query, _root, args, ctx) => {
        checkPage(args);
        return ctx.prisma.providerApp.findMany({ ...query, orderBy: OLDEST_FIRST });
      },
    },
    ProviderAppConnection,
  ),
);

const AppScopeInput = builder.inputType('AppScopeInput', {
  description: 'A scope of an app, as configured at the provider.',
  fields: (t) => ({
    name: t.string({ required: true, description: "In the provider's own vocabulary." }),
    optional: t.boolean({
      required: true,
      defaultValue: false,
      description: 'Users may decline it. Required ones are compared with what was granted.',
    }),
  }),
});

const RegisterProviderAppInput = builder.inputType('RegisterProviderAppInput', {
  description: 'An app as it was made at the provider.',
  fields: (t) => ({
    provider: t.field({ type: Provider, required: true, defaultValue: 'ZOOM', description: 'Whose app it is.' }),
    name: t.string({ required: true, description: 'A name to show.' }),
    kind: t.field({ type: ProviderAppKind, required: true, description: 'What kind of app it is.' }),
    environment: t.field({
      type: ProviderEnvironment,
      required: true,
      defaultValue: 'COMMERCIAL',
      description: 'Where it lives.',
    }),
    clientId: t.string({ required: true, description: 'Its client id.' }),
    clientSecret: t.string({ required: true, description: 'Its client secret. Sealed at once and never shown.' }),
    webhookSecret: t.string({
      description: "Zoom's Secret Token. Without it webhooks of the app are refused. Sealed at once and never shown.",
    }),
    setupUrl: t.field({
      type: 'URL',
      description: 'The page of your product that people who add the app at the Marketplace are sent on to.',
    }),
    scopes: t.field({
      type: [AppScopeInput],
      required: true,
      defaultValue: [],
      description: 'As configured at the provider. Required ones are compared with what was granted.',
    }),
    acceptUnknownScopes: t.boolean({
      required: true,
      defaultValue: false,
      description: 'Take the scopes also if the catalogue says that the app cannot have them: Zoom may be ahead of it.',
    }),
  }),
});

builder.mutationField('registerProviderApp', (t) =>
  t.prismaField({
    type: ProviderApp,
    nullable: true,
    description: 'Registers an app. Its answer holds the URLs to paste at the provider.',
    errors: outcome('providerApp', 'The new app.', [AlreadyExistsError, InvalidInputError, UnknownScopesError]),
    args: { input: t.arg({ type: RegisterProviderAppInput, required: true, description: 'The app.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await registerProviderApp(ctx, input);
      return ctx.prisma.providerApp.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const UpdateProviderAppInput = builder.inputType('UpdateProviderAppInput', {
  description: 'What to change of an app; what is left out stays.',
  fields: (t) => ({
    id: t.id({ required: true, description: 'The app.' }),
    name: t.string({ description: 'A name to show.' }),
    clientSecret: t.string({
      description: 'The former secret stays usable until `retireFormerSecretAt` (default: 24 hours).',
    }),
    webhookSecret: t.string({
      description: 'The former secret stays usable until `retireFormerSecretAt` (default: 24 hours).',
    }),
    setupUrl: t.field({ type: 'URL', description: 'The page of your product to send people on to; null removes it.' }),
    retireFormerSecretAt: t.field({
      type: 'DateTime',
      description: 'Until when secrets that are replaced now stay usable.',
    }),
    scopes: t.field({ type: [AppScopeInput], description: 'Scopes that replace the present ones.' }),
    acceptUnknownScopes: t.boolean({
      required: true,
      defaultValue: false,
      description: 'Take the scopes also if the catalogue says that the app cannot have them: Zoom may be ahead of it.',
    }),
  }),
});

builder.mutationField('updateProviderApp', (t) =>
  t.prismaField({
    type: ProviderApp,
    nullable: true,
    description: 'Changes an app. New required scopes are compared with what each connection was granted at once.',
    errors: outcome('providerApp', 'The app as it is now.', [NotFoundError, InvalidInputError, UnknownScopesError]),
    args: { input: t.arg({ type: UpdateProviderAppInput, required: true, description: 'What to change.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await updateProviderApp(ctx, { ...input, id: requireRowId(input.id, 'ProviderApp') });
      return ctx.prisma.providerApp.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);

const RemoveProviderAppInput = builder.inputType('RemoveProviderAppInput', {
  description: 'Which app to remove.',
  fields: (t) => ({ id: t.id({ required: true, description: 'The app.' }) }),
});

builder.mutationField('removeProviderApp', (t) =>
  t.id({
    nullable: true,
    description: 'Removes an app that no live connection uses.',
    errors: outcome('deletedId', 'The id that nothing has any more.', [NotFoundError, ProviderAppInUseError]),
    args: { input: t.arg({ type: RemoveProviderAppInput, required: true, description: 'What to remove.' }) },
    resolve: async (_root, { input }, ctx) =>
      encodeGlobalId('ProviderApp', await removeProviderApp(ctx, requireRowId(input.id, 'ProviderApp'))),
  }),
);
