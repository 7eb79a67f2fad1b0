import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { getNamedType, type GraphQLField, type GraphQLObjectType, isNonNullType } from 'graphql';
import type { Page } from 'playwright-core';
import { describe, expect, test } from 'vitest';
import { FRONTEND_ACTIONS, NOBODY } from '../src/domain/principal.js';
import { cursorOf } from '../src/graphql/connection.js';
import { accessOf, isAllowed } from '../src/graphql/guard.js';
import { schema } from '../src/graphql/schema.js';
import { decide, startBrowser } from './support/browser.js';
import { findCanaries } from './support/canary.js';
import { connectUser, createZoomUser, disconnect, read } from './support/connections.js';
import { tripWithCode } from './support/consent-trip.js';
import { type Caller, createFrontendSession } from './support/principals.js';
import { startProduct, type Product } from './support/product.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { snippetsOf } from './support/snippets.js';
import { createTenant, PRODUCT, registerApp } from './support/story.js';
import { webSocketUrl } from './support/streams.js';

const browser = await startBrowser();
const server = await startTestServer({
  LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
  // It asks for all that there is at once, to see whether a token is among it.
  LATCHKEY_MAX_FRONTEND_SESSION_COST: '100000000',
});
const app = await registerApp(server, 'USER_MANAGED');
const snippets = (await snippetsOf('frontend.md', 'js')).join('\n').replace('https://latchkey.example.com', server.url);
const SCRIPT = `${snippets}
Object.assign(window, { LATCHKEY, headers, ask, askRegistered, connectByRedirect, completeOnReturn, connectInPopup, complete, listConnections, watchHealth, disconnect });`;

interface Stage {
  product: Product;
  tenantId: string;
  session: Caller;
  page: Page;
}

/** A page of a product's, in which `user_1` is signed in and holds a session that may do everything. */
async function openPage(path = '/popup', url = server.url): Promise<Stage> {
  const product = await startProduct(server);
  const tenantId = await createTenant(server, [product.origin, PRODUCT]);
  const input = { tenantId, userId: 'user_1', allow: FRONTEND_ACTIONS };
  const session = await createFrontendSession(server, input, product.origin);
  const page = await (await browser.newContext()).newPage();
  await page.addInitScript(SCRIPT.replace(server.url, url));
  await page.goto(`${product.origin}${path}`);
  await page.evaluate(`sessionStorage.setItem('latchkey', ${JSON.stringify(session.token)})`);
  return { product, tenantId, session, page };
}

const who = ({ tenantId }: Stage) => JSON.stringify({ tenantId, userId: 'user_1' });

describe('the page of the guide', () => {
  test('connects by redirect, lists what is connected, and ends it', async () => {
    const stage = await openPage();
    const { page, product } = stage;
    const zoomUserId = createZoomUser(server);
    await page.evaluate(`connectByRedirect(${who(stage)}); null`);
    await page.waitForURL(`${server.sandbox.origin}/**`);
    await decide(page, zoomUserId, 'Allow');
    await page.waitForURL(`${product.origin}/**`);
    expect(await page.evaluate('completeOnReturn()')).toMatchObject({ status: 'COMPLETED', failure: null });
    expect(page.url()).toBe(`${product.origin}/popup`);
    expect(await page.evaluate('completeOnReturn()')).toBeNull();
    const [connection] = (await page.evaluate('listConnections()')) as { id: string }[];
    expect(connection).toMatchObject({ health: { status: 'HEALTHY' }, missingScopes: [] });
    expect(await page.evaluate(`disconnect(${JSON.stringify(connection?.id)})`)).toMatchObject({
      health: { status: 'REVOKED' },
    });
    await page.context().close();
  });

  test('is told when consent is denied', async () => {
    const stage = await openPage();
    const zoomUserId = createZoomUser(server);
    await stage.page.evaluate(`connectByRedirect(${who(stage)}); null`);
    await stage.page.waitForURL(`${server.sandbox.origin}/**`);
    await decide(stage.page, zoomUserId, 'Deny');
    await stage.page.waitForURL(`${stage.product.origin}/**`);
    expect(await stage.page.evaluate('completeOnReturn()')).toEqual({ status: 'FAILED', failure: 'DENIED_BY_USER' });
    await stage.page.context().close();
  });

  test('connects in a popup, while it watches', async () => {
    const stage = await openPage();
    const { page } = stage;
    const zoomUserId = createZoomUser(server);
    await page.evaluate(`window.seen = []; (async () => {
      for await (const event of watchHealth(null)) window.seen.push(event);
    })().catch((error) => window.seen.push(error.message)); null`);
    const [popup] = await Promise.all([
      page.waitForEvent('popup'),
      page.evaluate(`window.outcome = connectInPopup(${who(stage)}); null`),
    ]);
    await popup.waitForURL(`${server.sandbox.origin}/**`);
    await decide(popup, zoomUserId, 'Allow');
    expect(await page.evaluate('window.outcome')).toMatchObject({ status: 'COMPLETED' });
    await page.waitForFunction('window.seen.length > 0');
    expect(await page.evaluate('window.seen')).toEqual([
      expect.objectContaining({ current: 'HEALTHY', reason: 'CONNECTED', cursor: expect.any(String) }),
    ]);
    await server.data(`mutation ($id: ID!) { revokeFrontendSession(input: { id: $id }) { __typename } }`, {
      id: stage.session.id,
    });
    await page.waitForFunction('window.seen.length > 1');
    expect(await page.evaluate('window.seen[1]')).toBe('SESSION_REVOKED');
    expect(await page.evaluate('listConnections().catch((error) => error.message)')).toBe('UNAUTHENTICATED');
    await page.context().close();
  });

  test('has registered documents executed by their hashes, and no others, where a manifest is given', async () => {
    const file = fileURLToPath(new URL('../docs/frontend.documents.json', import.meta.url));
    const strict = await startSecondServer(server.db, { LATCHKEY_PERSISTED_DOCUMENTS: file });
    const { page } = await openPage('/popup', strict.url);
    const documents = Object.entries(JSON.parse(await readFile(file, 'utf8')) as Record<string, string>);
    const [hash] = documents.find(([, text]) => text.includes('ListConnections')) ?? [];
    expect(await page.evaluate(`askRegistered(${JSON.stringify(hash)})`)).toEqual({
      userConnections: { totalCount: 0, edges: [] },
    });
    const failure = (call: string) => page.evaluate(`${call}.catch((error) => error.message)`);
    expect(await failure(`askRegistered('none')`)).toBe('PERSISTED_DOCUMENT_NOT_FOUND');
    expect(await failure('listConnections()')).toBe('PERSISTED_DOCUMENT_REQUIRED');
    await page.context().close();
  });

  test('of an origin that the session is not for gets nothing', async () => {
    const [stage, foreign] = [await openPage(), await openPage()];
    await foreign.page.evaluate(`sessionStorage.setItem('latchkey', ${JSON.stringify(stage.session.token)})`);
    expect(await foreign.page.evaluate('listConnections().catch((error) => error.message)')).toBe('ORIGIN_NOT_ALLOWED');
    await Promise.all([stage, foreign].map(({ page }) => page.context().close()));
  });
});

const DEPTH = 4;

/** Whether a session that may do everything may ask for a field. */
function mayAsk(typename: string, fieldName: string): boolean {
  const access = accessOf(typename, fieldName);
  return access !== undefined && isAllowed(access, { ...NOBODY, kind: 'FRONTEND_SESSION', actions: FRONTEND_ACTIONS });
}

/** Every field of a type that needs no argument, and of what they lead to, down to a depth. */
function selectionOf(type: unknown, depth = DEPTH): string {
  const named = getNamedType(type as never) as unknown as GraphQLObjectType;
  if ('getTypes' in named) {
    const members = (named as unknown as { getTypes(): GraphQLObjectType[] }).getTypes();
    return `{ __typename ${members.map((member) => `... on ${member.name} ${selectionOf(member, depth)}`).join(' ')} }`;
  }
  if (!('getFields' in named)) return '';
  const fields = Object.values(named.getFields()).flatMap((field) => {
    const isLeaf = !('getFields' in getNamedType(field.type)) && !('getTypes' in getNamedType(field.type));
    // One that is refused would take away what is answered beside it; a Secret is asked for wherever there is one.
    const isAsked = mayAsk(named.name, field.name) || getNamedType(field.type).name === 'Secret';
    if (!isAsked || field.args.some(({ type: given }) => isNonNullType(given))) return [];
    return isLeaf ? [field.name] : depth > 0 ? [`${field.name} ${selectionOf(field.type, depth - 1)}`] : [];
  });
  return `{ __typename ${fields.join(' ')} }`;
}

/** An operation with all that it can answer, as deep as the limits allow. */
function operationOf(root: string, field: GraphQLField<unknown, unknown>): string {
  const names = ['input', 'id', 'externalId', 'name', ...(root === 'Subscription' ? ['after'] : [])];
  const given = field.args.filter(({ name }) => names.includes(name));
  const variables = given.map(({ name, type }) => `$${name}: ${String(type)}`).join(', ');
  const args = given.map(({ name }) => `${name}: $${name}`).join(', ');
  const open = (text: string) => (text === '' ? '' : `(${text})`);
  const selections = Array.from({ length: DEPTH + 1 }, (_, index) => selectionOf(field.type, DEPTH - index));
  // A document may have 1 000 tokens.
  const selection = selections.find((text) => text.split(/\s+/).length < 700) ?? '{ __typename }';
  return `${root.toLowerCase()} ${open(variables)} { ${field.name}${open(args)} ${selection} }`;
}

const fieldsOf = (root: string) => Object.values((schema.getType(root) as GraphQLObjectType).getFields());

/** What a page receives of an operation over each of the three transports, as text. */
const TRANSPORTS = `
  const post = async (accept, body) => {
    const leaving = new AbortController();
    const response = await fetch(LATCHKEY + '/graphql', {
      method: 'POST', headers: { ...headers(), accept }, body: JSON.stringify(body), signal: leaving.signal });
    let text = '';
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    const timer = setTimeout(() => leaving.abort(), body.query.startsWith('subscription') ? 700 : 10000);
    try { for (let part = await reader.read(); !part.done; part = await reader.read()) text += part.value; } catch {}
    clearTimeout(timer);
    return text;
  };
  const overSocket = (address, body) => new Promise((resolve) => {
    const socket = new WebSocket(address, 'graphql-transport-ws');
    let text = '';
    socket.onopen = () => socket.send(JSON.stringify({ type: 'connection_init', payload: { authorization: headers().authorization } }));
    socket.onmessage = ({ data }) => {
      text += data;
      const { type } = JSON.parse(data);
      if (type === 'connection_ack') socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: body }));
      if (type === 'complete' || type === 'error') socket.close();
    };
    socket.onclose = () => resolve(text);
    setTimeout(() => socket.close(), body.query.startsWith('subscription') ? 700 : 10000);
  });`;

test('nothing that a page with a session can ask for, over any transport, brings it a token', async () => {
  const stage = await openPage();
  const { page, product, tenantId } = stage;
  const connection = await connectUser(server, { app, tenantId, userId: 'user_1' });
  const spare = await connectUser(server, { app, tenantId, userId: 'user_2' });
  await disconnect(server, spare);
  const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: `${product.origin}/done` };
  const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, createZoomUser(server));
  const inputs: Record<string, unknown> = {
    beginAuthorization: input,
    beginInstallation: input,
    completeAuthorization: { connectCode },
    importGrant: { ...input, returnTo: undefined, refreshToken: 'none' },
    credential: connection.input,
    createFrontendSession: { tenantId, allow: ['READ_CONNECTIONS'] },
    createServerKey: { name: 'mine', permissions: ['CREDENTIALS_READ'] },
    createTenant: { externalId: 'org_mine' },
    updateTenant: { tenantId },
  };
  const ids: Record<string, string> = {
    authorizationSession: trip.sessionId,
    authorizationChanged: trip.sessionId,
    providerApp: app.id,
  };
  const session = await page.context().newCDPSession(page);
  await session.send('Network.enable');
  const frames: string[] = [];
  session.on('Network.webSocketFrameReceived', ({ response }) => frames.push(response.payloadData));
  const received: string[] = [];
  const answered = new Set<string>();
  await page.evaluate(`${TRANSPORTS} Object.assign(window, { post, overSocket }); null`);
  // Last of all those that end what the others read.
  const order = (name: string) => Number(name.startsWith('revoke'));
  for (const root of ['Query', 'Subscription', 'Mutation']) {
    for (const field of fieldsOf(root).toSorted((a, b) => order(a.name) - order(b.name))) {
      const body = {
        query: operationOf(root, field),
        variables: {
          input: inputs[field.name] ?? { id: connection.id },
          id: ids[field.name] ?? connection.id,
          externalId: tenantId,
          name: 'user:read:user',
          // Right behind no event: all of them.
          after: cursorOf(0),
        },
      };
      const text = JSON.stringify(body);
      const calls = [`post('text/event-stream', ${text})`, `overSocket('${webSocketUrl(server.url)}', ${text})`];
      if (root !== 'Subscription') calls.push(`post('application/json', ${text})`);
      for (const call of calls) {
        const answer = (await page.evaluate(call)) as string;
        received.push(answer);
        if (answer.includes(`"${field.name}":{`)) answered.add(field.name);
      }
    }
  }
  // It got all that it may have and nothing else: this was no series of refusals.
  const allowed = ['Query', 'Subscription', 'Mutation'].flatMap((root) =>
    fieldsOf(root)
      .map(({ name }) => name)
      .filter((name) => mayAsk(root, name)),
  );
  expect([...answered].toSorted()).toEqual(allowed.toSorted());
  expect(allowed.length).toBeGreaterThan(15);
  expect(frames.length).toBeGreaterThan(50);
  expect(await findCanaries({ received: received.join('\n'), frames: frames.join('\n') })).toEqual([]);
  // A control: what was searched for is in what a server key reads.
  const other = await connectUser(server, { app });
  const { accessToken } = await read(server, other);
  expect(await findCanaries({ credential: String(accessToken) })).not.toEqual([]);
  await page.context().close();
}, 120_000);
