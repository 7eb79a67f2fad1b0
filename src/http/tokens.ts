import type { IncomingMessage, ServerResponse } from 'node:http';
import { tell } from '../diagnostics.js';
import { auditPrincipalOf } from '../domain/audit.js';
import { noteForeign, type ReadLog } from '../domain/audit-read-log.js';
import type { AuditPrincipal } from '../domain/audit-trail.js';
import { createTenantCandidateReader } from '../domain/credential-reader.js';
import type { CredentialDeps } from '../domain/credential.js';
import { normalMeetingId } from '../domain/meeting-host.js';
import {
  TOKEN_KINDS,
  type TokenKind,
  type TokenTarget,
  signedUrlReference,
  verifySignedUrl,
} from '../domain/signed-url.js';
import { fetchToken } from '../domain/token-fetch.js';
import {
  DomainError,
  GrantNotFoundError,
  MeetingNotFoundError,
  MissingScopesError,
  ProviderUnavailableError,
  ReauthorizationRequiredError,
  RefusedByProviderError,
} from '../errors.js';
import { rowId } from '../graphql/ids.js';
import type { AddressOf } from './address.js';
import { type Authenticate, refusalHeaders, REFUSALS, sourceOf } from './authenticate.js';
import type { Refusal } from '../domain/rate-limit.js';
import { describeRefusal, type RateGate } from './rate-gate.js';
import { notFound, respond, respondJson } from './respond.js';

/** How long whoever was not served for reasons of our own should wait. */
const RETRY_SECONDS = 5;

const PARAMETERS = ['kind', 'meeting', 'tenant', 'expires', 'signature'] as const;

type Parameters = Record<(typeof PARAMETERS)[number], string | null>;

/** The parameters that count; others are passed over. Null where one is repeated: which is meant cannot be told. */
function readParameters(query: URLSearchParams): Parameters | null {
  const values: Partial<Parameters> = {};
  for (const name of PARAMETERS) {
    const [value = null, ...more] = query.getAll(name);
    if (more.length > 0) return null;
    values[name] = value;
  }
  return values as Parameters;
}

const isKind = (value: string): value is TokenKind => (TOKEN_KINDS as readonly string[]).includes(value);

/** What the path and the parameters name; null where nothing can have that name. */
function targetOf(of: TokenTarget['of'], segment: string, { kind, meeting }: Parameters): TokenTarget | null {
  const id = of === 'grants' ? rowId(segment, 'Installation', 'UserConnection') : normalMeetingId(segment);
  const wanted = kind ?? 'access';
  return id === null || !isKind(wanted) ? null : { kind: wanted, of, id, meetingId: meeting };
}

const actionOf = (target: TokenTarget | null) =>
  target === null || target.kind === 'access' ? 'credential.read' : 'provider_token.minted';

const bySignedUrl = (signature: string, clientAddress: string | null): AuditPrincipal => ({
  kind: 'SIGNED_URL',
  id: signedUrlReference(signature),
  externalUserId: null,
  clientAddress,
});

/** Whose tokens the caller may have. */
interface Reach {
  onlyTenantId: string | null;
  tenantId: string | null;
  /** Who is let in, for the audit trail. */
  principal: AuditPrincipal;
}

/**
 * GET /tokens/grants/{id} and /tokens/meetings/{number}: the bare token as text, for callers that want no more, such as
 * the vendor of a meeting bot. Let in by the signature of the URL itself or, without one, by a server key.
 *
 * 401 no right signature or key; 403 the key may not, or Zoom does not let the connection; 404 no such connection or
 * meeting; 409 it must be authorized again; 503 try again after `Retry-After`.
 */
export function createTokenHandler(
  deps: CredentialDeps & { reads: ReadLog },
  options: { authenticate: Authenticate; rateGate: RateGate; addressOf: AddressOf; of: TokenTarget['of'] },
) {
  const { authenticate, rateGate, addressOf, of } = options;
  const { log } = deps;

  /** @returns null after having answered. */
  async function admit(
    req: IncomingMessage,
    res: ServerResponse,
    parameters: Parameters | null,
    target: TokenTarget | null,
  ): Promise<Reach | null> {
    const { signature, tenant, expires } = parameters ?? {};
    if (parameters === null || typeof signature === 'string') {
      if (isRefused(res, await rateGate.address(req))) return null;
      const isWhole = typeof signature === 'string' && typeof tenant === 'string' && typeof expires === 'string';
      const tenantRow =
        isWhole && target !== null
          ? await verifySignedUrl(deps, { tenantId: tenant, target, expires, signature })
          : null;
      if (tenantRow !== null && isWhole) {
        const principal = bySignedUrl(signature, addressOf(sourceOf(req)) ?? null);
        return { onlyTenantId: tenantRow, tenantId: tenant, principal };
      }
      tell({ kind: 'refused-request', route: 'tokens', reason: 'BAD_SIGNATURE' });
      respondJson(res, 401, { error: 'The URL is not signed rightly, or its time is over.' });
      return null;
    }
    const authentication = await authenticate(req.headers.authorization, sourceOf(req));
    if ('refusal' in authentication) {
      const { status, message } = REFUSALS[authentication.refusal];
      tell({ kind: 'refused-request', route: 'tokens', reason: authentication.refusal });
      respondJson(res, status, { error: message }, refusalHeaders(authentication));
      return null;
    }
    if (isRefused(res, await rateGate.principal(authentication.principal))) return null;
    const { kind, permissions, tenantId } = authentication.principal;
    const principal = auditPrincipalOf(authentication.principal, addressOf(sourceOf(req)) ?? null);
    if (kind !== 'SERVER_KEY' || !permissions.includes('CREDENTIALS_READ')) {
      deps.reads.refused({ action: actionOf(target), tenantId, principal, reason: 'FORBIDDEN' });
      respondJson(res, 403, { error: 'This needs a server key with the permission CREDENTIALS_READ.' });
      return null;
    }
    return { onlyTenantId: tenantId, tenantId: tenant ?? null, principal };
  }

  return async (req: IncomingMessage, res: ServerResponse, segment: string, query: URLSearchParams): Promise<void> => {
    const parameters = readParameters(query);
    const target = parameters === null ? null : targetOf(of, segment, parameters);
    try {
      const reach = await admit(req, res, parameters, target);
      if (reach === null) return;
      if (target === null) return notFound(res);
      const { principal, ...scope } = reach;
      const { onlyTenantId: only } = scope;
      const candidates = only === null ? deps.candidates : createTenantCandidateReader(deps.db, only);
      const {
        token,
        grantId,
        tenantId,
        version = null,
      } = await fetchToken({ ...deps, candidates }, target, scope).catch((error: unknown) => {
        const reason = error instanceof DomainError ? error.name : '';
        noteForeign(deps.reads, { action: actionOf(target), tenantId: only, principal, reason });
        throw error;
      });
      await deps.reads.note({ action: actionOf(target), tenantId, grantId, credentialVersion: version, principal });
      log.info('a token was handed out', { grantId, route: 'tokens', operation: target.kind });
      return respond(res, 200, { type: 'text/plain; charset=utf-8', text: token.reveal() });
    } catch (error) {
      if (error instanceof DomainError) return respondFailure(res, error);
      log.error('a token could not be handed out', { route: 'tokens' }, error);
      return respondJson(res, 503, { error: 'Try again later.' }, { 'retry-after': String(RETRY_SECONDS) });
    }
  };
}

/** Answers a request that is over a ceiling. */
function isRefused(res: ServerResponse, refusal: Refusal | null): boolean {
  if (refusal === null) return false;
  const { status, message, extensions, headers } = describeRefusal(refusal);
  respondJson(res, status, { error: message, ...extensions }, headers);
  return true;
}

const STATUSES: [new (...args: never[]) => DomainError, number][] = [
  [GrantNotFoundError, 404],
  [MeetingNotFoundError, 404],
  [MissingScopesError, 403],
  [RefusedByProviderError, 403],
  [ReauthorizationRequiredError, 409],
];

/** The error's name is the same as in GraphQL, for whoever looks into why a bot did not come. */
function respondFailure(res: ServerResponse, error: DomainError): void {
  const body = { error: error.message, code: error.name };
  const [, status = 503] = STATUSES.find(([type]) => error instanceof type) ?? [];
  if (status !== 503) return respondJson(res, status, body);
  const seconds = error instanceof ProviderUnavailableError ? error.retryAfterSeconds : RETRY_SECONDS;
  respondJson(res, 503, body, { 'retry-after': String(Math.max(1, seconds)) });
}
