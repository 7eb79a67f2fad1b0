import { describe, expect, test } from 'vitest';
import { createZoomUser } from './support/connections.js';
import { journalOf, NOTHING_STORED, storedOf, tokenRequests } from './support/consent-trip.js';
import { startProduct } from './support/product.js';
import { startTestServer } from './support/server.js';
import {
  connect,
  type CookieJar,
  createTenant,
  credential,
  open,
  registerApp,
  type RegisteredApp,
  sandboxUser,
} from './support/story.js';

const server = await startTestServer();
const { origin, control } = server.sandbox;
const ada = sandboxUser(server, 'Admin');

/** The ways in which somebody adds an app without having begun at the product. */
const WAYS: [string, (app: RegisteredApp, clicks: string) => string][] = [
  ['"Add" at the Marketplace', ({ clientId }, clicks) => `${origin}/marketplace/apps/${clientId}/add?${clicks}`],
  [
    'a shared URL, as that of a local test',
    ({ clientId, redirectUri }, clicks) =>
      `${origin}/oauth/authorize?response_type=code&client_id=${clientId}&redirect_uri=${encodeURIComponent(redirectUri)}&${clicks}`,
  ],
];

/** Follows redirects like a browser, until a page is shown. */
async function browse(
  jar: CookieJar,
  url: string,
  clicks = '',
): Promise<{ url: string; status: number; text: string }> {
  let at = url;
  for (let hops = 0; hops < 10; hops += 1) {
    const isConsent = at.startsWith(`${origin}/oauth/authorize`) && !at.includes('sandbox_user');
    const response = await open(jar, isConsent ? `${at}&${clicks}` : at);
    const location = response.headers.get('location');
    if (location === null) return { url: at, status: response.status, text: await response.text() };
    at = new URL(location, at).href;
  }
  throw new Error('The browser was sent round and round.');
}

const clicksOf = (userId: string): string => `sandbox_user=${userId}&sandbox_decision=allow`;

const grantsAtZoom = ({ clientId }: RegisteredApp) => control.grants().filter((grant) => grant.clientId === clientId);

describe.each(WAYS)('%s', (_name, addressOf) => {
  test.each(['USER_MANAGED', 'ADMIN_MANAGED'] as const)('redeems nothing for an app of kind %s', async (kind) => {
    const [app, tenantId] = [await registerApp(server, kind), await createTenant(server)];
    const page = await browse(new Map(), addressOf(app, clicksOf(ada.id)));
    expect(page).toMatchObject({ status: 200, text: expect.stringContaining('One more step') });
    expect([...new URL(page.url).searchParams.keys()]).toEqual(['code']);
    expect(page.text).not.toContain('ZCANARY');
    expect(tokenRequests(server, app)).toBe(0);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    // Zoom has noted the consent, and no token of it exists.
    expect(grantsAtZoom(app)).toMatchObject([{ liveAccessTokens: 0, liveRefreshTokens: 0 }]);
  });

  test('leads into a protected trip, at whose end the one who is signed in is connected', async () => {
    const [app, tenantId] = [await registerApp(server, 'USER_MANAGED'), await createTenant(server)];
    const product = await startProduct(server);
    product.connects = { tenantId, appId: app.id };
    await server.data(
      `mutation ($app: UpdateProviderAppInput!, $tenant: UpdateTenantInput!) {
        updateProviderApp(input: $app) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
        updateTenant(input: $tenant) { ... on UpdateTenantSuccess { tenant { id } } ... on Error { message } }
      }`,
      {
        app: { id: app.id, setupUrl: `${product.origin}/connect` },
        tenant: { tenantId, allowedOrigins: [product.origin] },
      },
    );
    const zoomUserId = createZoomUser(server);
    const jar: CookieJar = new Map([['user', 'user_1']]);
    const page = await browse(jar, addressOf(app, clicksOf(zoomUserId)));
    const [, next = ''] = /<a href="([^"]+)"/.exec(page.text) ?? [];
    expect(next).toBe(`${product.origin}/connect`);
    expect(tokenRequests(server, app)).toBe(0);

    const done = await browse(jar, next, clicksOf(zoomUserId));
    expect(done.text).toContain('COMPLETED');
    // The code of the trip was redeemed, and that of the detour was not.
    expect(tokenRequests(server, app)).toBe(1);
    expect(await credential(server, { tenantId, userId: 'user_1', credentialFor: 'USER' })).toMatchObject({
      __typename: 'Credential',
    });
  });

  test('leaves alone what is connected already', async () => {
    const [app, tenantId] = [await registerApp(server, 'USER_MANAGED'), await createTenant(server)];
    const zoomUserId = createZoomUser(server);
    await connect(server, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id }, zoomUserId);
    await browse(new Map(), addressOf(app, clicksOf(zoomUserId)));
    const { apiUrl, accessToken } = await credential(server, { tenantId, userId: 'user_1', credentialFor: 'USER' });
    const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
    expect(await me.json()).toMatchObject({ id: zoomUserId });
    expect(tokenRequests(server, app)).toBe(1);
    expect(journalOf(server, app, 'revoke')).toEqual([]);
  });
});

test('somebody who is not an administrator cannot add an admin-managed app, and does not come back from Zoom', async () => {
  const app = await registerApp(server, 'ADMIN_MANAGED');
  for (const [, addressOf] of WAYS) {
    const page = await browse(new Map(), addressOf(app, clicksOf(sandboxUser(server, 'Member').id)));
    expect(page.text).toContain('An account admin is required to install this type of app');
    expect(page.url.startsWith(server.url)).toBe(false);
  }
});
