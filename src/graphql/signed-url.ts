import { createSignedUrl, revokeSignedUrls, type TokenTarget } from '../domain/signed-url.js';
import { GrantNotFoundError, InvalidInputError, NotFoundError } from '../errors.js';
import type { Secret } from '../secret.js';
import { builder } from './builder.js';
import { requireGrantId } from './ids.js';
import { outcome, selected } from './outcome.js';
import { Tenant } from './tenant.js';

const SignedUrl = builder.objectRef<{ url: Secret; expiresAt: Date }>('SignedUrl').implement({
  description:
    'A URL at which a token can be fetched without a key, by GET, as plain text. It is a secret itself: give it to the one party that fetches.',
  fields: (t) => ({
    url: t.field({ type: 'Secret', description: 'The whole URL.', resolve: (signed) => signed.url }),
    expiresAt: t.expose('expiresAt', { type: 'DateTime', description: 'From then on it answers 401.' }),
  }),
});

const TokenKind = builder.enumType('TokenKind', {
  description: 'Which token a URL gives.',
  values: {
    ACCESS: {
      value: 'access',
      description:
        "The access token of a connection, or of the one that reaches a meeting's host. Good for two minutes or more.",
    },
    LOCAL_RECORDING: { value: 'local-recording', description: "Zoom's join token for local recording of a meeting." },
    ZAK: { value: 'zak', description: "Zoom's access key of the connection's user." },
    ON_BEHALF_OF: {
      value: 'on-behalf-of',
      description: "Zoom's token that joins a meeting on behalf of the connection's user.",
    },
  } as const,
});

const CreateSignedUrlInput = builder.inputType('CreateSignedUrlInput', {
  description: 'What the URL gives, and for how long.',
  fields: (t) => ({
    tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }),
    kind: t.field({ type: TokenKind, required: true, description: 'Which token.' }),
    grantId: t.id({ description: 'The connection; required for ZAK and ON_BEHALF_OF.' }),
    meetingId: t.string({ description: 'The meeting number; required for LOCAL_RECORDING and ON_BEHALF_OF.' }),
    ttlSeconds: t.int({
      required: true,
      defaultValue: 86_400,
      description: 'How long the URL is good (seconds, 60 to 2592000).',
    }),
  }),
});

/** What the input names, and how a path does. */
function targetOf(input: typeof CreateSignedUrlInput.$inferInput): { target: TokenTarget; pathId: string } {
  const { kind, grantId } = input;
  const meetingId = input.meetingId?.replaceAll(/[\s-]/g, '') ?? null;
  if (grantId) return { target: { kind, of: 'grants', id: requireGrantId(grantId), meetingId }, pathId: grantId };
  if (meetingId === null) throw new InvalidInputError('Name a connection or a meeting.', ['input', 'grantId']);
  return { target: { kind, of: 'meetings', id: meetingId, meetingId: null }, pathId: meetingId };
}

builder.mutationField('createSignedUrl', (t) =>
  t.field({
    type: SignedUrl,
    nullable: true,
    description: 'Makes a URL at which one token of one tenant can be fetched. Needs CREDENTIALS_READ.',
    errors: outcome('signedUrl', 'The URL.', [NotFoundError, GrantNotFoundError, InvalidInputError]),
    args: { input: t.arg({ type: CreateSignedUrlInput, required: true, description: 'What it gives.' }) },
    resolve: (_root, { input }, ctx) => {
      const { tenantId, ttlSeconds } = input;
      return createSignedUrl(ctx.own, {
        tenantId,
        ttlSeconds,
        onlyTenantId: ctx.principal.tenantId,
        ...targetOf(input),
      });
    },
  }),
);

const RevokeSignedUrlsInput = builder.inputType('RevokeSignedUrlsInput', {
  description: 'Whose URLs to end.',
  fields: (t) => ({ tenantId: t.string({ required: true, description: 'Your identifier of the tenant.' }) }),
});

builder.mutationField('revokeSignedUrls', (t) =>
  t.prismaField({
    type: Tenant,
    nullable: true,
    description: 'Ends every URL that was made for a tenant so far, at once. Needs CREDENTIALS_READ.',
    errors: outcome('tenant', 'The tenant.', [NotFoundError]),
    args: { input: t.arg({ type: RevokeSignedUrlsInput, required: true, description: 'Whose.' }) },
    resolve: async (query, _root, { input }, ctx) => {
      const id = await revokeSignedUrls(ctx.own, { tenantId: input.tenantId, onlyTenantId: ctx.principal.tenantId });
      return ctx.prisma.tenant.findUniqueOrThrow({ ...selected(query), where: { id } });
    },
  }),
);
