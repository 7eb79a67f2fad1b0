import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll } from 'vitest';
import type { TestServer } from './server.js';
import { begin, complete } from './story.js';

/** A product that connects its users to Zoom through Latchkey, as small as one can be. */
export interface Product {
  origin: string;
  /** What its connect page begins with; set before it is opened. */
  connects: { tenantId: string; appId: string };
  /** Headers and addresses of the requests it got. */
  requests: { path: string; referer: string | undefined }[];
}

/** Keeps the messages that the page gets, and says whether they came from the window that it opened. */
const LISTENER = `
  window.messages = [];
  window.addEventListener('message', (event) => {
    window.messages.push({ origin: event.origin, data: event.data, fromPopup: event.source === window.popup });
  });`;

/**
 * Starts one on a loopback port of its own:
 *
 * | path | what |
 * |---|---|
 * | `/connect` | begins a trip for the signed-in user and sends the browser off |
 * | `/done` | completes it, naming the signed-in user, and shows what came of it |
 * | `/popup` | a page that listens for messages and can open a window |
 *
 * Who is signed in says the cookie `user`.
 */
export async function startProduct(server: TestServer): Promise<Product> {
  const product: Product = { origin: '', connects: { tenantId: '', appId: '' }, requests: [] };

  async function answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', product.origin);
    const userId = /(?:^|; )user=([^;]+)/.exec(request.headers.cookie ?? '')?.[1] ?? 'nobody';
    product.requests.push({ path: url.pathname, referer: request.headers.referer });
    if (url.pathname === '/connect') {
      const input = { ...product.connects, userId, returnTo: `${product.origin}/done?tab=zoom` };
      const { startUrl } = await begin(server, 'beginAuthorization', input);
      response.writeHead(303, { location: startUrl }).end();
      return;
    }
    response.setHeader('content-type', 'text/html; charset=utf-8');
    if (url.pathname === '/popup') {
      response.end(`<!doctype html><title>Product</title><script>${LISTENER}</script>`);
      return;
    }
    if (url.pathname === '/done') {
      const [code, error] = [url.searchParams.get('connectCode'), url.searchParams.get('connectError')];
      const outcome = error ?? (await outcomeOf(code, userId));
      response.end(`<!doctype html><title>Product</title><p id="outcome">${outcome}</p>`);
      return;
    }
    response.writeHead(404).end();
  }

  async function outcomeOf(connectCode: string | null, userId: string): Promise<string> {
    const session = (await complete(server, connectCode, userId)) as { status?: string; failure?: string };
    return session.failure ?? session.status ?? 'NotFoundError';
  }

  const listener = createServer((request, response) => {
    answer(request, response).catch(() => response.writeHead(500).end());
  });
  await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
  product.origin = `http://127.0.0.1:${(listener.address() as AddressInfo).port}`;
  afterAll(
    () =>
      new Promise<void>((resolve) => {
        listener.close(() => resolve());
        listener.closeAllConnections();
      }),
  );
  return product;
}
