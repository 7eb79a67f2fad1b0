import { randomBytes } from 'node:crypto';
import { afterAll } from 'vitest';
import type { Connection } from './connections.js';
import { type CertifiedServer, type Client, type Person, randomId, startCertifiedServer } from './certified-server.js';
import { startTestServer, type TestServer } from './server.js';
import {
  ADMIN_SCOPES,
  begin,
  comeBack,
  complete,
  type CookieJar,
  createTenant,
  open,
  registerProviderApp,
  type Trip,
  USER_SCOPES,
} from './story.js';

/**
 * Starts Latchkey with a certified authorization server in Zoom's place, whose secrets nothing may give away. It does
 * not refresh by schedule.
 */
export async function startWithCertifiedServer(): Promise<{ server: TestServer; certified: CertifiedServer }> {
  const certified = await startCertifiedServer();
  afterAll(() => certified.close());
  const server = await startTestServer(
    { LATCHKEY_ROLE: 'api', ZOOM_OAUTH_URL: certified.origin, ZOOM_API_URL: `${certified.origin}/v2` },
    () => certified.secrets.map(({ value }) => value),
  );
  return { server, certified };
}

export interface CertifiedApp extends Client {
  id: string;
}

/** Registers an app at Latchkey and at the certified server. */
export async function registerCertifiedApp(
  server: TestServer,
  certified: CertifiedServer,
  kind: 'USER_MANAGED' | 'ADMIN_MANAGED' = 'USER_MANAGED',
): Promise<CertifiedApp> {
  const client = { clientId: randomId(), clientSecret: createClientSecret() };
  const scopes = kind === 'USER_MANAGED' ? USER_SCOPES : ADMIN_SCOPES;
  const { id, redirectUri } = await registerProviderApp(server, { ...client, name: kind, kind, scopes });
  const app = { ...client, id, redirectUri, scopes };
  await certified.saveClient(app);
  return app;
}

/** With characters that HTTP Basic has to encode (RFC 6749 §2.3.1). */
export const createClientSecret = (): string => `${randomBytes(24).toString('base64url')}+%:/=`;

/** Goes from an authorization request to the callback, signed in as `person`. @returns the callback's address. */
export async function consentAt(authorizeUrl: URL, person: Person): Promise<string> {
  const jar: CookieJar = new Map();
  let url = new URL(authorizeUrl);
  url.searchParams.set('login_hint', person.id);
  while (url.origin === authorizeUrl.origin) {
    const response = await open(jar, url.href);
    const location = response.headers.get('location');
    if (location === null) throw new Error(`No redirect from ${url.pathname}: ${response.status}`);
    url = new URL(location, url);
  }
  return url.href;
}

/** Where the start page sends the browser. */
export async function startOf(trip: Trip): Promise<URL> {
  return new URL((await open(trip.jar, trip.startUrl)).headers.get('location') ?? '');
}

export interface CertifiedConnection extends Pick<Connection, 'tenantId' | 'userId' | 'rowId' | 'id' | 'input'> {
  app: CertifiedApp;
  person: Person;
  /** The completed session, as the API told it. */
  session: any;
}

/** Begins a user's trip, in a new tenant and to a new app unless told. */
export async function beginAt(
  server: TestServer,
  certified: CertifiedServer,
  given: { app?: CertifiedApp; tenantId?: string } = {},
): Promise<{ trip: Trip; app: CertifiedApp; tenantId: string; userId: string }> {
  const app = given.app ?? (await registerCertifiedApp(server, certified));
  const tenantId = given.tenantId ?? (await createTenant(server));
  const userId = 'user_1';
  return {
    trip: await begin(server, 'beginAuthorization', { tenantId, userId, appId: app.id }),
    app,
    tenantId,
    userId,
  };
}

/** Connects a user through the certified server. */
export async function connectAt(
  server: TestServer,
  certified: CertifiedServer,
  given: { app?: CertifiedApp; tenantId?: string; person?: Person } = {},
): Promise<CertifiedConnection> {
  const { trip, app, tenantId, userId } = await beginAt(server, certified, given);
  const person = given.person ?? certified.createPerson();
  const { connectCode } = await comeBack(trip, await consentAt(await startOf(trip), person));
  const session = await complete(server, connectCode, userId);
  if (session.status !== 'COMPLETED') throw new Error(`Not connected: ${session.failure}`);
  const { id } = session.grant;
  const rowId = Buffer.from(id, 'base64url').toString().replace('UserConnection:', '');
  return { app, tenantId, userId, person, session, id, rowId, input: { tenantId, credentialFor: 'USER', userId } };
}

/** What the app asked for there, with what came of it, oldest first. */
export const requestsOf = (certified: CertifiedServer, { app }: { app: CertifiedApp }, type?: string): string[] =>
  certified.requests
    .filter((request) => request.clientId === app.clientId && (type ?? request.type) === request.type)
    .map((request) => (type === undefined ? `${request.type} ${request.outcome}` : request.outcome));

/** The secrets of one kind that the app was given there, oldest first. */
export const secretsOf = (
  certified: CertifiedServer,
  { app }: { app: CertifiedApp },
  kind: CertifiedServer['secrets'][number]['kind'],
): string[] =>
  certified.secrets
    .filter((secret) => secret.clientId === app.clientId && secret.kind === kind)
    .map(({ value }) => value);

/** A token request of somebody who has the app's credentials, past Latchkey. */
export async function askForTokens(
  certified: CertifiedServer,
  app: CertifiedApp,
  parameters: Record<string, string>,
): Promise<{ status: number; error?: string; access_token?: string; refresh_token?: string }> {
  const pair = [app.clientId, app.clientSecret].map(encodeURIComponent).join(':');
  const response = await fetch(`${certified.origin}/oauth/token`, {
    method: 'POST',
    headers: { authorization: `Basic ${Buffer.from(pair).toString('base64')}` },
    body: new URLSearchParams(parameters),
  });
  return { ...((await response.json()) as object), status: response.status };
}
