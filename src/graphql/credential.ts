import { readCredential, type Credential as CredentialShape } from '../domain/credential.js';
import {
  AmbiguousGrantError,
  GrantNotFoundError,
  InvalidInputError,
  MissingScopesError,
  ProviderUnavailableError,
  ReauthorizationRequiredError,
} from '../errors.js';
import { builder } from './builder.js';
import { Grant } from './grant.js';
import { HealthReason } from './health.js';
import { requireGrantId } from './ids.js';
import { Provider } from './provider.js';
import { ownTenantId } from './reach.js';

const Credential = builder.objectRef<CredentialShape>('Credential').implement({
  description:
    'A usable access token and what it may be used for. Answered from the vault while valid; a failing refresh never withholds a token that the provider still accepts.',
  fields: (t) => ({
    accessToken: t.field({
      type: 'Secret',
      description: 'The token. Send it as `Authorization: Bearer`, and keep it no longer than it is valid.',
      resolve: (credential) => credential.accessToken,
    }),
    tokenType: t.string({ description: 'Always `Bearer`.', resolve: () => 'Bearer' }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'Until when it is valid.' }),
    scopes: t.exposeStringList('scopes', { description: 'What was granted.' }),
    apiUrl: t.expose('apiUrl', {
      type: 'URL',
      description: 'The API host that the provider named for this grant: an origin, without `/v2`.',
    }),
    version: t.exposeInt('version', { description: 'Grows by one with each rotation.' }),
    warning: t.expose('warning', {
      type: HealthReason,
      nullable: true,
      description: 'Set when the token is still valid but the last refresh did not succeed.',
    }),
    grant: t.prismaField({
      type: Grant,
      description: 'The connection it belongs to.',
      resolve: (query, credential, _args, ctx) =>
        ctx.prisma.grant.findUniqueOrThrow({ ...query, where: { id: credential.grantId } }),
    }),
  }),
});

const CredentialFor = builder.enumType('CredentialFor', {
  description: 'Whose credential is wanted.',
  values: {
    INSTALLATION: { description: "The tenant's, as an administrator granted it." },
    USER: { description: "One user's." },
  },
});

const CredentialInput = builder.inputType('CredentialInput', {
  description: 'Which credential is wanted, and how good it must be.',
  fields: (t) => ({
    provider: t.field({ type: Provider, required: true, defaultValue: 'ZOOM', description: 'Whose credential.' }),
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    userId: t.string({ description: 'Your identifier of the user; required with `credentialFor: USER`.' }),
    credentialFor: t.field({ type: CredentialFor, required: true, description: "The tenant's or a user's." }),
    grantId: t.id({ description: 'Needed only where the tenant has several matching grants.' }),
    minTtlSeconds: t.int({
      required: true,
      defaultValue: 60,
      description: 'The token must stay valid for at least this long (seconds, 0 to 3000).',
    }),
    requiredScopes: t.stringList({
      required: true,
      defaultValue: [],
      description: 'Answer MissingScopesError unless all of these were granted.',
    }),
  }),
});

builder.queryField('credential', (t) =>
  t.field({
    type: Credential,
    nullable: true,
    description: 'A valid access token, now. Refreshed first where the stored one does not last.',
    errors: {
      directResult: true,
      union: { description: 'A credential, or why there is none.' },
      types: [
        GrantNotFoundError,
        AmbiguousGrantError,
        ReauthorizationRequiredError,
        MissingScopesError,
        ProviderUnavailableError,
        InvalidInputError,
      ],
    },
    args: { input: t.arg({ type: CredentialInput, required: true, description: 'Which one.' }) },
    resolve: (_root, { input }, ctx) =>
      readCredential(ctx, {
        tenantId: ownTenantId(ctx, input.tenantId),
        userId: input.userId ?? null,
        kind: input.credentialFor === 'INSTALLATION' ? 'INSTALLATION' : 'USER_CONNECTION',
        grantId: input.grantId ? requireGrantId(input.grantId) : null,
        minTtlSeconds: input.minTtlSeconds,
        requiredScopes: input.requiredScopes,
      }),
  }),
);
