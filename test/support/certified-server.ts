import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import Provider, { type Configuration, type KoaContextWithOIDC } from 'oidc-provider';
import { createStore } from './certified-store.js';
import { ADMIN_SCOPES, USER_SCOPES } from './story.js';

/** Someone with a login there. */
export interface Person {
  id: string;
  accountId: string;
  /** Scopes that this person does not grant to anybody; without any scope left the request is denied. */
  withholds: readonly string[];
}

/** An app as it is registered there. */
export interface Client {
  clientId: string;
  clientSecret: string;
  redirectUri: string;
  /** Also what a request that names no scope asks for (RFC 6749 §3.3). */
  scopes: readonly string[];
}

/** A request of a known client at the token or the revocation endpoint. */
export interface TokenRequest {
  clientId: string;
  /** The grant type, or `revocation`. */
  type: string;
  /** `done`, or why it was refused, in the server's words. */
  outcome: string;
}

export interface GivenSecret {
  clientId: string;
  kind: 'client secret' | 'code' | 'access token' | 'refresh token';
  value: string;
}

export interface CertifiedServer {
  /** `http://127.0.0.1:{port}`; also its issuer identifier. */
  origin: string;
  createPerson(given?: Partial<Omit<Person, 'id'>>): Person;
  /** Registers an app, or changes it. */
  saveClient(client: Client): Promise<void>;
  /** The next answer to a token request of this client never arrives, though the request was carried out. */
  loseNextAnswer(clientId: string): void;
  /** Oldest first; without anything secret. */
  requests: TokenRequest[];
  /** Every secret that a client was given there, oldest first. */
  secrets: GivenSecret[];
  close(): Promise<void>;
}

/**
 * Starts a certified authorization server, `oidc-provider`, at the paths where Zoom has its endpoints, with the REST
 * call that tells who a token belongs to.
 *
 * It requires PKCE with S256 and HTTP Basic, rotates refresh tokens, and ends a grant when a refresh token or code of it
 * comes twice. Who signs in is named by the `login_hint` of the authorization request; that person consents at once.
 */
export async function startCertifiedServer(): Promise<CertifiedServer> {
  const http = createServer();
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  const people = new Map<string, Person>();
  const toLose = new Set<string>();
  const requests: TokenRequest[] = [];
  const secrets: GivenSecret[] = [];
  const store = createStore();
  const provider = new Provider(origin, { ...configuration(people), adapter: store });
  keepRecord(provider, requests, secrets);

  provider.use(async (ctx, next) => {
    if (ctx.path.startsWith('/interaction/')) return interact(provider, people, ctx as KoaContextWithOIDC);
    if (ctx.path === '/v2/users/me') return answerMe(provider, people, ctx as KoaContextWithOIDC);
    await next();
    const { oidc } = ctx as KoaContextWithOIDC;
    const clientId = oidc?.client?.clientId ?? '';
    if (oidc?.route === 'revocation' && ctx.status === 200)
      requests.push({ clientId, type: 'revocation', outcome: 'done' });
    if (oidc?.route !== 'token' || !toLose.delete(clientId)) return;
    ctx.respond = false;
    ctx.req.socket.destroy();
  });
  const handle = provider.callback();
  http.on('request', (request, response) => void handle(request, response));

  return {
    origin,
    createPerson: (given) => {
      const person = { id: randomId(), accountId: 'account', withholds: [], ...given };
      people.set(person.id, person);
      return person;
    },
    saveClient: async ({ clientId, clientSecret, redirectUri, scopes }) => {
      secrets.push({ clientId, kind: 'client secret', value: clientSecret });
      await store('Client').upsert(clientId, {
        client_id: clientId,
        client_secret: clientSecret,
        redirect_uris: [redirectUri],
        scope: scopes.join(' '),
      });
    },
    loseNextAnswer: (clientId) => void toLose.add(clientId),
    requests,
    secrets,
    close: () =>
      new Promise((resolve) => {
        http.close(() => resolve());
        http.closeAllConnections();
      }),
  };
}

export const randomId = (): string => randomBytes(16).toString('base64url');

function configuration(people: ReadonlyMap<string, Person>): Configuration {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  return {
    routes: { authorization: '/oauth/authorize', token: '/oauth/token', revocation: '/oauth/revoke' },
    scopes: [...USER_SCOPES, ...ADMIN_SCOPES],
    clientDefaults: {
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_basic',
      id_token_signed_response_alg: 'ES256',
    },
    clientAuthMethods: ['client_secret_basic'],
    pkce: { required: () => true },
    issueRefreshToken: () => true,
    rotateRefreshToken: true,
    features: {
      devInteractions: { enabled: false },
      revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => client.clientId === token.clientId },
      userinfo: { enabled: false },
    },
    extraParams: {
      scope(ctx, scope, client) {
        if (ctx.oidc.params !== undefined) ctx.oidc.params['scope'] = scope ?? client.scope;
      },
    },
    findAccount: (_ctx, id) => (people.has(id) ? { accountId: id, claims: () => ({ sub: id }) } : undefined),
    interactions: { url: (_ctx, { uid }) => `/interaction/${uid}` },
    ttl: {
      AccessToken: 3_600,
      AuthorizationCode: 60,
      Grant: 86_400,
      Interaction: 60,
      RefreshToken: 86_400,
      Session: 60,
    },
    cookies: { keys: [randomId()] },
    jwks: { keys: [privateKey.export({ format: 'jwk' }) as { kty: 'EC' }] },
  };
}

function keepRecord(provider: Provider, requests: TokenRequest[], secrets: GivenSecret[]): void {
  const note = ({ oidc }: KoaContextWithOIDC, type: unknown, outcome: string) =>
    requests.push({ clientId: oidc.client?.clientId ?? '', type: String(type), outcome });
  provider.on('grant.success', (ctx) => note(ctx, ctx.oidc.params?.['grant_type'], 'done'));
  provider.on('grant.error', (ctx, error) => note(ctx, ctx.oidc.params?.['grant_type'], reasonOf(error)));
  provider.on('revocation.error', (ctx, error) => note(ctx, 'revocation', reasonOf(error)));

  // An opaque token is its own id.
  const keep = (kind: GivenSecret['kind']) => (token: { clientId?: string | undefined; jti: string }) =>
    secrets.push({ clientId: token.clientId ?? '', kind, value: token.jti });
  provider.on('authorization_code.saved', keep('code'));
  provider.on('access_token.saved', keep('access token'));
  provider.on('refresh_token.saved', keep('refresh token'));
}

const reasonOf = (error: { error: string; error_detail?: string | undefined }): string =>
  error.error_detail === undefined ? error.error : `${error.error}: ${error.error_detail}`;

/** Signs the named person in, who grants what is asked for except what is withheld. */
async function interact(
  provider: Provider,
  people: ReadonlyMap<string, Person>,
  ctx: KoaContextWithOIDC,
): Promise<void> {
  const { params } = await provider.interactionDetails(ctx.req, ctx.res);
  const person = people.get(String(params['login_hint']));
  const asked = String(params['scope']).split(' ');
  const granted = asked.filter((scope) => !person?.withholds.includes(scope));
  if (person === undefined || granted.length === 0) {
    return ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, { error: 'access_denied' }));
  }
  const grant = new provider.Grant({ accountId: person.id, clientId: String(params['client_id']) });
  grant.addOIDCScope(granted);
  grant.rejectOIDCScope(asked.filter((scope) => !granted.includes(scope)));
  const result = { login: { accountId: person.id }, consent: { grantId: await grant.save() } };
  return ctx.redirect(await provider.interactionResult(ctx.req, ctx.res, result));
}

/** `GET /v2/users/me`, as Zoom answers it. */
async function answerMe(
  provider: Provider,
  people: ReadonlyMap<string, Person>,
  ctx: KoaContextWithOIDC,
): Promise<void> {
  const [, value = ''] = /^Bearer (\S+)$/.exec(ctx.get('authorization')) ?? [];
  const token = await provider.AccessToken.find(value);
  const person = people.get(token?.accountId ?? '');
  ctx.status = person === undefined ? 401 : 200;
  ctx.body =
    person === undefined
      ? { code: 124, message: 'Invalid access token.' }
      : { id: person.id, account_id: person.accountId, email: `${person.id}@acme.example`, display_name: 'A person' };
}
