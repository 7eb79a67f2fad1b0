import type { Server } from 'node:http';
import { UsersOAuthClient, UsersS2SAuthClient } from '@zoom/rivet/users';
import axios from 'axios';
import type { App } from '../../src/sandbox/model.js';
import { freePort } from './free-port.js';

const ZOOM = 'https://zoom.us';

/**
 * Zoom's library knows one OAuth host and takes no other. It sends through axios, so what goes there is told the
 * sandbox's address instead; nothing else of a request is touched.
 *
 * @returns what undoes it.
 */
export function sendZoomTo(origin: string): () => void {
  const id = axios.interceptors.request.use((config) => {
    if (config.url?.startsWith(`${ZOOM}/`)) config.url = origin + config.url.slice(ZOOM.length);
    return config;
  });
  return () => axios.interceptors.request.eject(id);
}

/** What the library has stored; the same object as long as it runs. */
export interface StoredTokens {
  latest: { accessToken: string; refreshToken: string; expirationTimeIso: string; scopes: string[] } | undefined;
}

export interface RivetApp {
  client: UsersOAuthClient;
  origin: string;
  redirectUri: string;
  webhookUrl: string;
  tokens: StoredTokens;
  close(): Promise<void>;
}

/** A small app on Zoom's library, listening on a port of its own. */
export async function startRivetApp(sandboxOrigin: string, app: App): Promise<RivetApp> {
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const tokens: StoredTokens = { latest: undefined };
  const client = new UsersOAuthClient({
    clientId: app.clientId,
    clientSecret: app.clientSecret,
    webhooksSecretToken: app.webhookSecret,
    baseUrl: `${sandboxOrigin}/v2`,
    port,
    tokenStore: {
      getLatestToken: () => tokens.latest,
      storeToken: (token) => void (tokens.latest = token),
    },
    installerOptions: { directInstall: true, redirectUri: origin, stateStore: 'a secret of the app, for its states' },
  });
  const server = (await client.start()) as Server;
  return {
    client,
    origin,
    redirectUri: `${origin}/zoom/oauth/callback`,
    webhookUrl: `${origin}/zoom/events`,
    tokens,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Zoom's library as a server-to-server app. */
export const createRivetServerApp = (sandboxOrigin: string, app: App, accountId = app.accountId): UsersS2SAuthClient =>
  new UsersS2SAuthClient({
    clientId: app.clientId,
    clientSecret: app.clientSecret,
    accountId,
    baseUrl: `${sandboxOrigin}/v2`,
    disableReceiver: true,
  });

/** Goes through the library's install page and the sandbox's consent screen, and back. @returns the library's page. */
export async function installRivet(
  rivet: RivetApp,
  sandboxOrigin: string,
  userId: string,
  decision: 'allow' | 'deny' = 'allow',
): Promise<{ status: number; text: string; callback: URL }> {
  const started = await fetch(`${rivet.origin}/zoom/oauth/install`, { redirect: 'manual' });
  const cookie = started.headers.getSetCookie()[0]?.split(';')[0] ?? '';
  const authorize = new URL((started.headers.get('location') ?? '').replace(ZOOM, sandboxOrigin));
  authorize.searchParams.set('sandbox_user', userId);
  authorize.searchParams.set('sandbox_decision', decision);
  const decided = await fetch(authorize, { redirect: 'manual' });
  const callback = new URL(decided.headers.get('location') ?? '');
  const back = await fetch(callback, { headers: { cookie } });
  return { status: back.status, text: await back.text(), callback };
}
