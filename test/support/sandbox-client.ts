import { createHash, randomBytes } from 'node:crypto';
import { createServer, type IncomingHttpHeaders } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Sandbox } from '../../src/sandbox/sandbox.js';
import type { App, User } from '../../src/sandbox/model.js';

export const REDIRECT = 'https://product.example/oauth/callback';

/** A user-managed app with one required and one optional scope. */
export const createUserApp = (sandbox: Sandbox, patch: object = {}): App =>
  sandbox.control.createApp({
    name: 'Notes',
    usage: 'USER_OPERATION',
    scopes: [{ scope: 'user:read:user' }, { scope: 'meeting:read:meeting', optional: true }],
    redirectUris: [REDIRECT],
    ...patch,
  });

export const createServerApp = (sandbox: Sandbox): App =>
  sandbox.control.createApp({
    name: 'Reports',
    usage: 'SERVER_TO_SERVER',
    scopes: [{ scope: 'user:read:user:admin' }],
  });

/** The preset user with this first name. */
export function person(sandbox: Sandbox, name: string): User {
  const user = sandbox.control.users().find(({ displayName }) => displayName.startsWith(name));
  if (user === undefined) throw new Error(`No preset user is called ${name}.`);
  return user;
}

export const authorizeUrl = (sandbox: Sandbox, app: App, params: Record<string, string> = {}): string =>
  `${sandbox.origin}/oauth/authorize?${new URLSearchParams({
    response_type: 'code',
    client_id: app.clientId,
    redirect_uri: REDIRECT,
    ...params,
  })}`;

export const get = (url: string): Promise<Response> => fetch(url, { redirect: 'manual' });

/** Clicks Allow and returns the callback's URL. */
export async function allow(sandbox: Sandbox, app: App, user: User, params: Record<string, string> = {}): Promise<URL> {
  const clicks = { sandbox_user: user.id, sandbox_decision: 'allow' };
  const response = await get(authorizeUrl(sandbox, app, { ...params, ...clicks }));
  if (response.status !== 302) throw new Error(`Authorization answered ${response.status}.`);
  return new URL(response.headers.get('location')!);
}

export const codeOf = (callback: URL): string => callback.searchParams.get('code') ?? '';

export const basic = ({ clientId, clientSecret }: Pick<App, 'clientId' | 'clientSecret'>): string =>
  `Basic ${Buffer.from(`${clientId}:${clientSecret}`).toString('base64')}`;

export interface Answer {
  status: number;
  body: Record<string, string | number | undefined>;
  headers: Headers;
}

/** POSTs a form with Basic authentication and reads JSON. */
export async function postForm(
  url: string,
  {
    app,
    params,
    headers = {},
  }: { app: Pick<App, 'clientId' | 'clientSecret'>; params: Record<string, string>; headers?: Record<string, string> },
): Promise<Answer> {
  const response = await fetch(url, {
    method: 'POST',
    headers: { authorization: basic(app), ...headers },
    body: new URLSearchParams(params),
  });
  return { status: response.status, body: (await response.json()) as Answer['body'], headers: response.headers };
}

export const redeem = (sandbox: Sandbox, app: App, params: Record<string, string>): Promise<Answer> =>
  postForm(`${sandbox.origin}/oauth/token`, {
    app,
    params: { grant_type: 'authorization_code', redirect_uri: REDIRECT, ...params },
  });

export const refresh = (sandbox: Sandbox, app: App, refreshToken: string): Promise<Answer> =>
  postForm(`${sandbox.origin}/oauth/token`, {
    app,
    params: { grant_type: 'refresh_token', refresh_token: refreshToken },
  });

export const mintAccountToken = (sandbox: Sandbox, app: App, accountId = app.accountId): Promise<Answer> =>
  postForm(`${sandbox.origin}/oauth/token`, {
    app,
    params: { grant_type: 'account_credentials', account_id: accountId },
  });

export const revoke = (sandbox: Sandbox, app: App, token: string): Promise<Answer> =>
  postForm(`${sandbox.origin}/oauth/revoke`, { app, params: { token } });

export interface Tokens {
  accessToken: string;
  refreshToken: string;
}

export const tokensOf = ({ body }: Answer): Tokens => ({
  accessToken: String(body['access_token']),
  refreshToken: String(body['refresh_token']),
});

/** The whole trip: Allow, then redeem the code. */
export async function connect(sandbox: Sandbox, app: App, user: User): Promise<Tokens> {
  return tokensOf(await redeem(sandbox, app, { code: codeOf(await allow(sandbox, app, user)) }));
}

/** `GET /users/{id}`. */
export async function readUser(sandbox: Sandbox, accessToken: string, id = 'me'): Promise<Answer> {
  const response = await fetch(`${sandbox.origin}/v2/users/${encodeURIComponent(id)}`, {
    headers: { authorization: `Bearer ${accessToken}` },
  });
  return { status: response.status, body: (await response.json()) as Answer['body'], headers: response.headers };
}

export function pkcePair(): { verifier: string; challenge: string } {
  const verifier = randomBytes(32).toString('base64url');
  return { verifier, challenge: createHash('sha256').update(verifier).digest('base64url') };
}

export interface Webhook {
  headers: IncomingHttpHeaders;
  body: string;
}

/** A webhook receiver that keeps what it gets and answers as told; `hang` never answers. */
export async function createReceiver(
  answer: (webhook: Webhook, count: number) => { status: number; body?: string } | 'hang' = () => ({ status: 204 }),
): Promise<{ url: string; received: Webhook[]; close(): Promise<void> }> {
  const received: Webhook[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const webhook = { headers: request.headers, body: Buffer.concat(chunks).toString('utf8') };
      received.push(webhook);
      const reply = answer(webhook, received.length);
      if (reply !== 'hang') response.writeHead(reply.status).end(reply.body ?? '');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/webhooks/zoom`,
    received,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}
