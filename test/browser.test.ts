import type { BrowserContext, Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { decide, historyOf, startBrowser } from './support/browser.js';
import { sessionOf, storedOf, tokenRequests } from './support/consent-trip.js';
import { startProduct, type Product } from './support/product.js';
import { startTestServer } from './support/server.js';
import { begin, complete, createTenant, registerApp, sandboxUser, type RegisteredApp } from './support/story.js';

const browser = await startBrowser();
const server = await startTestServer();
const member = sandboxUser(server, 'Member');

/** A product with a tenant and an app of its own, and a browser in which `user_1` is signed in to it. */
async function prepare(): Promise<{ app: RegisteredApp; product: Product; tenantId: string; context: BrowserContext }> {
  const [app, product] = [await registerApp(server, 'USER_MANAGED'), await startProduct(server)];
  const tenantId = await createTenant(server, [product.origin]);
  product.connects = { tenantId, appId: app.id };
  return { app, product, tenantId, context: await signIn(product, 'user_1') };
}

async function signIn(product: Product, userId: string): Promise<BrowserContext> {
  const context = await browser.newContext();
  await context.addCookies([{ name: 'user', value: userId, url: product.origin }]);
  return context;
}

const outcomeOn = (page: Page): Promise<string> => page.locator('#outcome').innerText();

/** Opens a trip in a window of the product's, and waits until it has closed itself. */
async function throughPopup(page: Page, startUrl: string, button: 'Allow' | 'Deny'): Promise<unknown[]> {
  const [popup] = await Promise.all([
    page.waitForEvent('popup'),
    page.evaluate(
      `window.popup = window.open(${JSON.stringify(startUrl)}, 'zoom', 'popup,width=500,height=700'); null`,
    ),
  ]);
  const closed = popup.waitForEvent('close');
  await decide(popup, member.id, button);
  await closed;
  return page.evaluate('window.messages') as Promise<unknown[]>;
}

describe('by redirect', () => {
  test('a user connects, and neither the address nor the history of the page keeps code or state', async () => {
    const { app, product, tenantId, context } = await prepare();
    const page = await context.newPage();
    const asked = new Set<string>();
    page.on('request', (request) => asked.add(new URL(request.url()).origin));
    await page.goto(`${product.origin}/connect`);
    expect(new URL(page.url()).origin).toBe(server.sandbox.origin);
    await decide(page, member.id, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await outcomeOn(page)).toBe('COMPLETED');
    expect(page.url()).toMatch(/\/done\?tab=zoom&connectCode=[A-Za-z0-9_-]{43}$/);
    expect(page.url()).not.toMatch(/[?&](code|state)=/);
    // Zoom's own consent screen was a page of its own, so it stays in the history; nothing else of the trip does.
    const history = (await historyOf(page)).filter((url) => url !== 'about:blank');
    expect(history.map((url) => `${new URL(url).origin}${new URL(url).pathname}`)).toEqual([
      `${server.sandbox.origin}/oauth/authorize`,
      `${product.origin}/done`,
    ]);
    expect(history.join('\n')).not.toMatch(/[?&]code=/);
    expect(history.filter((url) => /[?&]state=/.test(url)).map((url) => new URL(url).origin)).toEqual([
      server.sandbox.origin,
    ]);
    // Nobody is told where the browser came from, and nobody else was asked for anything.
    expect(product.requests.filter(({ path }) => path === '/done')).toEqual([{ path: '/done', referer: undefined }]);
    expect(await page.evaluate('document.referrer')).toBe('');
    expect([...asked].sort()).toEqual([product.origin, server.sandbox.origin, server.url].sort());
    expect(tokenRequests(server, app)).toBe(1);
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
    await context.close();
  });

  test('a user who denies is told so by the product', async () => {
    const { app, product, tenantId, context } = await prepare();
    const page = await context.newPage();
    await page.goto(`${product.origin}/connect`);
    await decide(page, member.id, 'Deny');
    await page.waitForURL(`${product.origin}/**`);
    expect(page.url()).toBe(`${product.origin}/done?tab=zoom&connectError=DENIED_BY_USER`);
    expect(await outcomeOn(page)).toBe('DENIED_BY_USER');
    expect(tokenRequests(server, app)).toBe(0);
    expect((await storedOf(server, tenantId)).grants).toBe(0);
    await context.close();
  });

  test('the cookie of a trip is out of reach of scripts and gone when the trip is over', async () => {
    const { product, context } = await prepare();
    const page = await context.newPage();
    await page.goto(`${product.origin}/connect`);
    const bound = () =>
      context.cookies(server.url).then((all) => all.filter(({ name }) => name.startsWith('latchkey-')));
    expect(await bound()).toEqual([
      expect.objectContaining({ httpOnly: true, sameSite: 'Lax', path: '/', domain: 'localhost' }),
    ]);
    const other = await context.newPage();
    await other.goto(`${server.url}/livez`);
    expect(await other.evaluate('document.cookie')).toBe('');
    await decide(page, member.id, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await bound()).toEqual([]);
    await context.close();
  });
});

describe('another browser', () => {
  test("cannot finish the first one's trip, which goes on", async () => {
    const { app, product, context } = await prepare();
    const page = await context.newPage();
    await page.goto(`${product.origin}/connect`);
    const stranger = await signIn(product, 'user_2');
    const elsewhere = await stranger.newPage();
    await elsewhere.goto(page.url());
    await decide(elsewhere, member.id, 'Allow');
    await elsewhere.waitForURL(`${server.url}/oauth/callback/**`);
    expect(await elsewhere.locator('h1').innerText()).toBe('This link cannot be used');
    expect(tokenRequests(server, app)).toBe(0);
    await decide(page, member.id, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await outcomeOn(page)).toBe('COMPLETED');
    expect(tokenRequests(server, app)).toBe(1);
    await Promise.all([context.close(), stranger.close()]);
  });

  test("that is lured to somebody else's start page connects nothing to them", async () => {
    const { app, product, tenantId } = await prepare();
    const input = { tenantId, userId: 'attacker', appId: app.id, returnTo: `${product.origin}/done` };
    const trip = await begin(server, 'beginAuthorization', input);
    const victim = await signIn(product, 'victim');
    const page = await victim.newPage();
    await page.goto(trip.startUrl);
    await decide(page, member.id, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await outcomeOn(page)).toBe('INITIATOR_MISMATCH');
    expect(await sessionOf(server, trip)).toMatchObject({ status: 'FAILED', failure: 'INITIATOR_MISMATCH' });
    expect(tokenRequests(server, app)).toBe(0);
    expect((await storedOf(server, tenantId)).grants).toBe(0);
    // The victim's own trip works afterwards.
    await page.goto(`${product.origin}/connect`);
    await decide(page, member.id, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await outcomeOn(page)).toBe('COMPLETED');
    await victim.close();
  });
});

describe('in a popup', () => {
  test("the product's page is handed the connect code by a message from Latchkey's origin", async () => {
    const { app, product, tenantId, context } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: null };
    const trip = await begin(server, 'beginAuthorization', input);
    const page = await context.newPage();
    await page.goto(`${product.origin}/popup`);
    const messages = await throughPopup(page, trip.startUrl, 'Allow');
    expect(messages).toEqual([
      {
        origin: server.url,
        data: { source: 'latchkey', connectCode: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/) },
        fromPopup: true,
      },
    ]);
    const [{ data }] = messages as [{ data: { connectCode: string } }];
    expect(await complete(server, data.connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
    await context.close();
  });

  test('a denial is told the same way', async () => {
    const { app, product, tenantId, context } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: null };
    const trip = await begin(server, 'beginAuthorization', input);
    const page = await context.newPage();
    await page.goto(`${product.origin}/popup`);
    expect(await throughPopup(page, trip.startUrl, 'Deny')).toEqual([
      { origin: server.url, data: { source: 'latchkey', connectError: 'DENIED_BY_USER' }, fromPopup: true },
    ]);
    await context.close();
  });

  test('a page of an origin that is not allowed is told nothing', async () => {
    const { app, tenantId, context } = await prepare();
    const foreign = await startProduct(server);
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: null };
    const trip = await begin(server, 'beginAuthorization', input);
    const page = await context.newPage();
    await page.goto(`${foreign.origin}/popup`);
    // A control: this page does hear what is sent to it.
    await page.evaluate(`window.postMessage('control', ${JSON.stringify(foreign.origin)})`);
    expect(await throughPopup(page, trip.startUrl, 'Allow')).toEqual([
      { origin: foreign.origin, data: 'control', fromPopup: false },
    ]);
    expect((await sessionOf(server, trip)).status).toBe('AWAITING_COMPLETION');
    await context.close();
  });

  test('a page that took the place of the product in the opening window is told nothing', async () => {
    const { app, product, tenantId, context } = await prepare();
    const foreign = await startProduct(server);
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: null };
    const trip = await begin(server, 'beginAuthorization', input);
    const page = await context.newPage();
    await page.goto(`${product.origin}/popup`);
    const [popup] = await Promise.all([
      page.waitForEvent('popup'),
      page.evaluate(`window.open(${JSON.stringify(trip.startUrl)}, 'zoom', 'popup'); null`),
    ]);
    await page.goto(`${foreign.origin}/popup`);
    const closed = popup.waitForEvent('close');
    await decide(popup, member.id, 'Allow');
    await closed;
    expect(await page.evaluate('window.messages')).toEqual([]);
    await context.close();
  });
});

describe('a server key in a page', () => {
  const call = (url: string, tenantId: string) => `fetch(${JSON.stringify(url)}, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: ${JSON.stringify(`Bearer ${server.adminKey}`)} },
    body: JSON.stringify({ query: 'mutation { createTenant(input: { externalId: "${tenantId}", allowedOrigins: [] }) { __typename } }' }),
  }).then(async (response) => ({ status: response.status, text: await response.text() }), (error) => String(error))`;

  test('is refused with 403, although the page could read the answer', async () => {
    const page = await (await browser.newContext()).newPage();
    // The same server under another name: to the browser these are one origin, to the server it is not its own.
    const address = server.url.replace('localhost', '127.0.0.1');
    await page.goto(`${address}/livez`);
    const answer = (await page.evaluate(call(`${address}/graphql`, 'org_from_a_page'))) as {
      status: number;
      text: string;
    };
    expect(answer.status).toBe(403);
    expect(JSON.parse(answer.text)).toEqual({
      errors: [{ message: expect.any(String), extensions: { code: 'SERVER_KEY_IN_BROWSER' } }],
    });
    expect(await server.db.prisma.tenant.count({ where: { externalId: 'org_from_a_page' } })).toBe(0);
    await page.context().close();
  });

  test('is refused from a page of the product, too', async () => {
    const { product, context } = await prepare();
    const page = await context.newPage();
    await page.goto(`${product.origin}/popup`);
    const answer = await page.evaluate(call(`${server.url}/graphql`, 'org_from_the_product'));
    expect(answer).toMatchObject({ status: 403, text: expect.stringContaining('SERVER_KEY_IN_BROWSER') });
    await context.close();
  });

  test('does not get through from a page of an origin that no tenant allows', async () => {
    const foreign = await startProduct(server);
    const page = await (await browser.newContext()).newPage();
    await page.goto(`${foreign.origin}/popup`);
    expect(await page.evaluate(call(`${server.url}/graphql`, 'org_from_elsewhere'))).toBe('TypeError: Failed to fetch');
    const externalId = { in: ['org_from_the_product', 'org_from_elsewhere'] };
    expect(await server.db.prisma.tenant.count({ where: { externalId } })).toBe(0);
    await page.context().close();
  });
});
