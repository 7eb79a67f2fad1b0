import { gql } from '@apollo/client';
import { mkdir, writeFile } from 'node:fs/promises';
import type { ApolloClient } from '@apollo/client';
import type { Client } from '@urql/core';
import { expect, test, vi } from 'vitest';
import { WebSocket } from 'ws';
import { connectUser } from './support/connections.js';
import { createFrontendSession, revokeFrontendSession } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { snippetsOf } from './support/snippets.js';
import { createTenant } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer();

/** The module that a block of the guide is, by one of the names it exports. */
async function importSnippet<Module>(name: string): Promise<Module> {
  const code = (await snippetsOf('frontend.md', 'ts')).find((snippet) => snippet.includes(name));
  const folder = new URL('./generated/', import.meta.url);
  await mkdir(folder, { recursive: true });
  const file = new URL(`${name}.ts`, folder);
  await writeFile(file, code ?? '');
  return (await import(file.href)) as Module;
}

const VIEWER = '{ viewer { kind externalUserId tenant { externalId } } }';
const WATCH = 'subscription { healthChanged { current reason } }';
const CONNECTED = { current: 'HEALTHY', reason: 'CONNECTED' };

/** A session of a tenant whose pages' origins do not matter: Node sends none. */
async function prepare() {
  const tenantId = await createTenant(server, ['https://product.example']);
  await server.data(`mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { __typename } }`, {
    input: { tenantId, allowedOrigins: [] },
  });
  const session = await createFrontendSession(
    server,
    { tenantId, userId: 'user_1', allow: ['READ_CONNECTIONS'] },
    null,
  );
  await server.data(`mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { __typename } }`, {
    input: { tenantId, allowedOrigins: ['https://product.example'] },
  });
  const viewer = { kind: 'FRONTEND_SESSION', externalUserId: 'user_1', tenant: { externalId: tenantId } };
  return { tenantId, session, viewer };
}

const soon = () => new Promise((resolve) => setTimeout(resolve, 300));

test('the urql client of the guide asks and watches with a session', async () => {
  const { createUrqlClient } = await importSnippet<{
    createUrqlClient(url: string, session: () => string): Client;
  }>('createUrqlClient');
  const { tenantId, session, viewer } = await prepare();
  const client = createUrqlClient(`${server.url}/graphql`, () => session.token);
  const asked = await client.query(VIEWER, {}).toPromise();
  expect([asked.error, asked.data]).toEqual([undefined, { viewer: expect.objectContaining({ kind: viewer.kind }) }]);
  const seen: unknown[] = [];
  client.subscription(WATCH, {}).subscribe(({ data }) => {
    if (data !== undefined) seen.push(data);
  });
  await soon();
  await connectUser(server, { tenantId, userId: 'user_1' });
  await until(() => seen.length === 1);
  expect(seen).toEqual([{ healthChanged: expect.objectContaining(CONNECTED) }]);
  // Ends the stream from this side: the client would tell of one that it leaves as of a failure that nobody awaits.
  await revokeFrontendSession(server, session.id);
});

test('the Apollo client of the guide asks and watches with a session', async () => {
  const { createApolloClient } = await importSnippet<{
    createApolloClient(url: string, session: () => string): ApolloClient;
  }>('createApolloClient');
  // Browsers have one, and so have newer versions of Node.
  vi.stubGlobal('WebSocket', WebSocket);
  const { tenantId, session, viewer } = await prepare();
  const client = createApolloClient(`${server.url}/graphql`, () => session.token);
  const asked = await client.query({ query: gql(VIEWER) });
  expect(asked.data).toMatchObject({ viewer });
  const first = new Promise((resolve) => {
    const watched = client.subscribe({ query: gql(WATCH) }).subscribe(({ data, error }) => {
      resolve(data ?? error);
      watched.unsubscribe();
    });
  });
  await soon();
  await connectUser(server, { tenantId, userId: 'user_1' });
  expect(await first).toMatchObject({ healthChanged: CONNECTED });
  client.stop();
});
