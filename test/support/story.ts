import { randomBytes } from 'node:crypto';
import type { App } from '../../src/sandbox/model.js';
import type { TestServer } from './server.js';

/** Where the product of these tests lives; nothing listens there. */
export const PRODUCT = 'https://product.example';

export const USER_SCOPES = ['user:read:user', 'meeting:read:list_meetings'];
export const ADMIN_SCOPES = ['user:read:user:admin', 'user:read:list_users:admin'];

export interface RegisteredApp {
  id: string;
  redirectUri: string;
  webhookUrl: string;
  clientId: string;
  atZoom: App;
}

/** Makes an app at the sandbox, registers it, and gives the sandbox the URLs, as a person does in the Marketplace. */
export async function registerApp(
  server: TestServer,
  kind: 'USER_MANAGED' | 'ADMIN_MANAGED' | 'SERVER_TO_SERVER',
  scopes: readonly string[] = kind === 'USER_MANAGED' ? USER_SCOPES : ADMIN_SCOPES,
): Promise<RegisteredApp> {
  const { control } = server.sandbox;
  const usage = (
    { USER_MANAGED: 'USER_OPERATION', ADMIN_MANAGED: 'ADMIN_MANAGEMENT', SERVER_TO_SERVER: 'SERVER_TO_SERVER' } as const
  )[kind];
  const atZoom = control.createApp({ name: kind, usage, scopes: scopes.map((scope) => ({ scope, optional: false })) });
  const { id, redirectUri, webhookUrl } = await registerProviderApp(server, {
    name: kind,
    kind,
    clientId: atZoom.clientId,
    clientSecret: atZoom.clientSecret,
    webhookSecret: atZoom.webhookSecret,
    scopes,
  });
  control.updateApp(atZoom.clientId, { redirectUris: [redirectUri], webhookUrl, published: true });
  return { id, redirectUri, webhookUrl, clientId: atZoom.clientId, atZoom };
}

/** Registers an app at Latchkey only. */
export async function registerProviderApp(
  server: TestServer,
  { scopes, ...app }: { scopes: readonly string[] } & Record<string, unknown>,
): Promise<Pick<RegisteredApp, 'id' | 'redirectUri' | 'webhookUrl'>> {
  const { registerProviderApp: registered } = await server.data(
    `mutation ($input: RegisterProviderAppInput!) {
      registerProviderApp(input: $input) {
        ... on RegisterProviderAppSuccess { providerApp { id redirectUri webhookUrl } }
        ... on Error { message }
      }
    }`,
    { input: { ...app, scopes: scopes.map((name) => ({ name })) } },
  );
  return registered.providerApp;
}

/** Makes a tenant that nobody else uses. @returns its external id. */
export async function createTenant(server: TestServer, allowedOrigins: readonly string[] = [PRODUCT]): Promise<string> {
  const externalId = `org_${randomBytes(6).toString('hex')}`;
  await server.data(
    `mutation ($input: CreateTenantInput!) { createTenant(input: $input) { ... on CreateTenantSuccess { tenant { id } } ... on Error { message } } }`,
    { input: { externalId, allowedOrigins } },
  );
  return externalId;
}

/** One browser's cookies, by name. */
export type CookieJar = Map<string, string>;

function remember(jar: CookieJar, response: Response): void {
  for (const header of response.headers.getSetCookie()) {
    const [name = '', value = ''] = header.split(';')[0]?.split('=') ?? [];
    if (header.includes('Max-Age=0')) jar.delete(name);
    else jar.set(name, value);
  }
}

/** Opens an address as a browser would, with its cookies and without following redirects. */
export async function open(jar: CookieJar, url: string): Promise<Response> {
  const response = await fetch(url, {
    redirect: 'manual',
    headers: { cookie: [...jar].map(([name, value]) => `${name}=${value}`).join('; '), accept: 'text/html' },
  });
  remember(jar, response);
  return response;
}

export interface Trip {
  sessionId: string;
  startUrl: string;
  jar: CookieJar;
}

const BEGIN = (field: string, type: string) => `mutation ($input: ${type}!) {
  ${field}(input: $input) {
    __typename
    ... on ${field.charAt(0).toUpperCase()}${field.slice(1)}Success { authorizationSession { id startUrl status expiresAt } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;

/** Begins a trip; `app` says which kind. */
export async function begin(
  server: TestServer,
  field: 'beginInstallation' | 'beginAuthorization',
  input: Record<string, unknown>,
): Promise<Trip> {
  const type = field === 'beginInstallation' ? 'BeginInstallationInput' : 'BeginAuthorizationInput';
  const answer = (await server.data(BEGIN(field, type), { input: { returnTo: `${PRODUCT}/done`, ...input } }))[field];
  if (answer.authorizationSession === undefined) throw new Error(JSON.stringify(answer));
  return { sessionId: answer.authorizationSession.id, startUrl: answer.authorizationSession.startUrl, jar: new Map() };
}

/** The user of the sandbox who clicks in the consent screen. */
export function sandboxUser(server: TestServer, role: 'Owner' | 'Admin' | 'Member', index = 0) {
  const account = server.sandbox.control.accounts()[0];
  const users = server.sandbox.control
    .users()
    .filter(
      (user) => user.accountId === account?.id && (role === 'Member' ? user.role === 'Member' : user.role !== 'Member'),
    );
  const user = users[index];
  if (user === undefined) throw new Error(`The sandbox has no ${role} number ${index}.`);
  return user;
}

/** Goes from the start page through the consent screen to the callback. @returns the callback's address. */
export async function consent(trip: Trip, userId: string, decision: 'allow' | 'deny' = 'allow'): Promise<string> {
  const started = await open(trip.jar, trip.startUrl);
  const authorizeUrl = new URL(started.headers.get('location') ?? '');
  authorizeUrl.searchParams.set('sandbox_user', userId);
  authorizeUrl.searchParams.set('sandbox_decision', decision);
  const decided = await open(new Map(), authorizeUrl.href);
  const callback = decided.headers.get('location');
  if (callback === null)
    throw new Error(`No redirect from the consent screen: ${decided.status} ${await decided.text()}`);
  return callback;
}

/** Brings the provider's answer to the callback. @returns what the product's page is given. */
export async function comeBack(
  trip: Trip,
  callback: string,
): Promise<{ connectCode: string | null; connectError: string | null }> {
  const response = await open(trip.jar, callback);
  const location = new URL(response.headers.get('location') ?? `https://none.example/${response.status}`);
  return {
    connectCode: location.searchParams.get('connectCode'),
    connectError: location.searchParams.get('connectError'),
  };
}

export const COMPLETE = `mutation ($input: CompleteAuthorizationInput!) {
  completeAuthorization(input: $input) {
    __typename
    ... on CompleteAuthorizationSuccess {
      authorizationSession {
        id status failure
        grant { __typename id health { status reason } grantedScopes { name } missingScopes { name } providerAccountId credentialInfo { version } }
      }
    }
    ... on Error { message }
  }
}`;

export async function complete(server: TestServer, connectCode: string | null, userId: string): Promise<any> {
  const { completeAuthorization } = await server.data(COMPLETE, { input: { connectCode: connectCode ?? '', userId } });
  return completeAuthorization.authorizationSession ?? completeAuthorization;
}

/** The whole trip. @returns the completed session. */
export async function connect(
  server: TestServer,
  field: 'beginInstallation' | 'beginAuthorization',
  input: { tenantId: string; userId: string; appId: string } & Record<string, unknown>,
  zoomUserId: string,
): Promise<any> {
  const trip = await begin(server, field, input);
  const { connectCode } = await comeBack(trip, await consent(trip, zoomUserId));
  return complete(server, connectCode, input.userId);
}

export const CREDENTIAL = `query ($input: CredentialInput!) {
  credential(input: $input) {
    __typename
    ... on Credential { accessToken tokenType expiresAt scopes apiUrl version warning grant { id } }
    ... on ReauthorizationRequiredError { reason grant { id } }
    ... on MissingScopesError { missingScopes grant { id } }
    ... on ProviderUnavailableError { reason retryAfterSeconds }
    ... on AmbiguousGrantError { candidates { id } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;

export async function credential(server: TestServer, input: Record<string, unknown>): Promise<any> {
  return (await server.data(CREDENTIAL, { input })).credential;
}
