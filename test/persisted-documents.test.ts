import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type DefinitionNode, type DocumentNode, Kind, parse, print, visit } from 'graphql';
import { expect, test } from 'vitest';
import { connectUser } from './support/connections.js';
import { createFrontendSession } from './support/principals.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { snippetsOf } from './support/snippets.js';
import { createTenant, PRODUCT } from './support/story.js';
import { type Asked, codesOf, WAYS } from './support/ways.js';

const MANIFEST = fileURLToPath(new URL('../docs/frontend.documents.json', import.meta.url));
const manifest = JSON.parse(await readFile(MANIFEST, 'utf8')) as Record<string, string>;
const hashOf = (name: string): string => {
  const [hash] = Object.entries(manifest).find(([, text]) => text.includes(` ${name}`)) ?? [];
  return hash ?? '';
};

const server = await startTestServer({
  LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
  LATCHKEY_PERSISTED_DOCUMENTS: MANIFEST,
});
const admin = { authorization: `Bearer ${TEST_ADMIN_KEY}` };
const tenantId = await createTenant(server);
const allow = ['READ_CONNECTIONS', 'CONNECT_USER'];
const session = await createFrontendSession(server, { tenantId, userId: 'user_1', allow }, PRODUCT);

const persisted = (sha256Hash: string): Asked => ({ extensions: { persistedQuery: { version: 1, sha256Hash } } });

test.each(WAYS)('a session has a registered document executed by its hash, %s', async (_name, way) => {
  const hash = hashOf('ListConnections');
  const data = { userConnections: { totalCount: 0, edges: [] } };
  for (const name of [hash, hash.replace('sha256:', '')]) {
    expect(await way(server.url, persisted(name), session.headers)).toEqual({ data });
    expect(await way(server.url, persisted(name), admin)).toMatchObject({ data: { userConnections: {} } });
  }
});

test('a document may be named by its id, too, where a request has room for one', async () => {
  const [, overHttp] = WAYS[0]!;
  const [, overSocket] = WAYS[4]!;
  for (const way of [overHttp, overSocket]) {
    const answer = await way(server.url, { documentId: hashOf('ListConnections') } as Asked, session.headers);
    expect(answer.data).toMatchObject({ userConnections: { totalCount: 0 } });
  }
});

test.each(WAYS)('a hash that is not registered is refused, %s', async (_name, way) => {
  for (const name of ['0'.repeat(64), 'sha256:', '__proto__', 'constructor']) {
    for (const headers of [session.headers, admin]) {
      const answer = await way(server.url, persisted(name), headers);
      expect([answer.data ?? null, codesOf(answer)]).toEqual([null, ['PERSISTED_DOCUMENT_NOT_FOUND']]);
    }
  }
});

test.each(WAYS)('a document of its own is refused to a session, and not to a server key, %s', async (_name, way) => {
  const texts = [
    '{ viewer { kind } }',
    '{ __typename }',
    `${manifest[hashOf('ListConnections')]} `,
    // Neither parsed nor validated: what is wrong with it is not told.
    '{ nothing }',
    '{ viewer {',
  ];
  for (const query of texts) {
    // Whoever was let in with the same text makes no difference.
    const [mine, theirs] = [await way(server.url, { query }, admin), await way(server.url, { query }, session.headers)];
    expect(codesOf(mine)).not.toContain('PERSISTED_DOCUMENT_REQUIRED');
    expect([theirs.data ?? null, codesOf(theirs)]).toEqual([null, ['PERSISTED_DOCUMENT_REQUIRED']]);
  }
  // A hash beside it lends it nothing.
  const both = { query: '{ viewer { kind } }', ...persisted(hashOf('ListConnections')) };
  expect(codesOf(await way(server.url, both, session.headers))).toEqual(['PERSISTED_DOCUMENT_REQUIRED']);
});

test.each(WAYS)('an operation without document and hash is no operation, %s', async (_name, way) => {
  const answer = await way(server.url, {}, admin);
  expect(answer.data ?? null).toBeNull();
  expect(answer.errors).toHaveLength(1);
});

test.each(WAYS.slice(3))('a registered subscription is told what happens, %s', async (name, way) => {
  const userId = name.replaceAll(' ', '_');
  const other = await createFrontendSession(server, { tenantId, userId, allow }, PRODUCT);
  const after = Buffer.from('e0').toString('base64url');
  await connectUser(server, { tenantId, userId });
  // Over server-sent events the first result is read when the stream is over.
  const telling = way(server.url, { ...persisted(hashOf('WatchHealth')), variables: { after } }, other.headers);
  if (name.includes('server-sent')) {
    await new Promise((resolve) => setTimeout(resolve, 300));
    await server.data('mutation ($id: ID!) { revokeFrontendSession(input: { id: $id }) { __typename } }', {
      id: other.id,
    });
  }
  expect((await telling).data).toMatchObject({ healthChanged: { current: 'HEALTHY', reason: 'CONNECTED' } });
});

/** A document as it does, whatever it is called. */
const nameless = (document: DocumentNode): string =>
  print(visit(document, { OperationDefinition: ({ name: _name, ...rest }) => rest as DefinitionNode }));

test('the registered documents are those of the guide', async () => {
  const code = (await snippetsOf('frontend.md', 'js')).join('\n');
  const inGuide = [...code.matchAll(/`((?:mutation|subscription|\{\n)[^`]*)`/g)].map(([, text = '']) => parse(text));
  expect(inGuide.length).toBeGreaterThanOrEqual(5);
  const source = await readFile(new URL('../docs/frontend.graphql', import.meta.url), 'utf8');
  const named = parse(source).definitions.map((definition): DocumentNode => ({
    kind: Kind.DOCUMENT,
    definitions: [definition],
  }));
  expect(inGuide.map(nameless).toSorted()).toEqual(named.map(nameless).toSorted());
  expect(Object.keys(manifest)).toHaveLength(named.length);
});

test.each([
  ['no JSON', 'hash: text'],
  ['a list', '["{ viewer { kind } }"]'],
  ['of documents that are no texts', '{"a":{"kind":"Document"}}'],
])('a manifest that is %s keeps the server from starting', async (_name, text) => {
  const file = join(await mkdtemp(join(tmpdir(), 'latchkey-manifest-')), 'documents.json');
  await writeFile(file, text);
  await expect(startSecondServer(server.db, { LATCHKEY_PERSISTED_DOCUMENTS: file })).rejects.toThrow(
    /LATCHKEY_PERSISTED_DOCUMENTS must name a JSON file/,
  );
});
