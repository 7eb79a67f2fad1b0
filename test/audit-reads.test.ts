import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import { auditEvents, mutate, newestEvent, refuseEvents } from './support/audit.js';
import { connectUser } from './support/connections.js';
import { createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, credential, CREDENTIAL, PRODUCT } from './support/story.js';

const ignoreOrder = (texts: readonly string[]) => texts.toSorted();

describe('with buffered reads', async () => {
  const server = await startTestServer({ LATCHKEY_AUDIT_BUFFER: '2' });
  const connection = await connectUser(server);
  const { app, tenantId, input, id } = connection;

  test('reads of one credential by one key are one event that counts them, without an address where there were several', async () => {
    const key = await createServerKey(server, { permissions: ['CREDENTIALS_READ'] });
    for (let n = 0; n < 3; n += 1) await key.data(CREDENTIAL, { input });
    await credential(server, input);
    const found = await auditEvents(server, { action: 'credential.read', grantId: id });
    expect(found).toMatchObject([
      { count: 3, principalKind: 'SERVER_KEY', principalId: key.id, credentialVersion: 1, grant: { id } },
      { count: 1, principalKind: 'ADMIN_KEY', principalId: 'admin', tenant: { externalId: tenantId } },
    ]);
    expect(Date.parse(found[0]?.lastOccurredAt ?? '')).toBeGreaterThanOrEqual(Date.parse(found[0]?.occurredAt ?? ''));
  });

  test('a read is recorded within seconds by itself, and by a signed URL under the name of the URL', async () => {
    const before = (await server.db.query(sql`SELECT 1 FROM audit_event WHERE principal_kind = 'SIGNED_URL'`)).length;
    const { createSignedUrl: made } = await server.data(
      `mutation ($input: CreateSignedUrlInput!) { createSignedUrl(input: $input) {
        ... on CreateSignedUrlSuccess { signedUrl { url } } } }`,
      { input: { tenantId, grantId: id, kind: 'ACCESS', ttlSeconds: 600 } },
    );
    expect((await fetch(made.signedUrl.url)).status).toBe(200);
    const named = async () =>
      server.db.query<{ name: string }>(sql`
        SELECT principal_id AS name FROM audit_event WHERE principal_kind = 'SIGNED_URL'`);
    await expect.poll(async () => (await named()).length, { timeout: 5_000 }).toBe(before + 1);
    const [created] = await server.db.query<{ reference: string }>(sql`
      SELECT reference FROM audit_event WHERE action = 'signed_url.created'`);
    expect((await named()).at(-1)?.name).toBe(created?.reference);
  });

  test('while events cannot be stored reads are served and counted up to the limit, then refused, and caught up with in order', async () => {
    const others = [
      await connectUser(server, { app, tenantId, userId: 'user_2' }),
      await connectUser(server, { app, tenantId, userId: 'user_3' }),
    ];
    await auditEvents(server);
    const last = await newestEvent(server);
    const allow = await refuseEvents(server);
    const [second, third] = others;
    for (const one of [third, connection, third]) {
      expect((await credential(server, one!.input)).__typename).toBe('Credential');
    }
    const refused = await server.graphql(CREDENTIAL, { input: second!.input });
    expect([refused.data, refused.errors?.[0]?.extensions.code]).toEqual([{ credential: null }, 'AUDIT_UNAVAILABLE']);
    expect((await server.graphql(`{ auditEvents(first: 1) { edges { cursor } } }`)).errors).toBeUndefined();
    await allow();
    const caughtUp = await auditEvents(server, { action: 'credential.read' }, last?.cursor);
    expect(caughtUp.map(({ grant, count }) => [grant?.id, count])).toEqual([
      [third!.id, 2],
      [id, 1],
    ]);
    expect((await credential(server, second!.input)).__typename).toBe('Credential');
  });

  test('what is still counted is recorded when the server ends', async () => {
    const closing = await startTestServer();
    const { input: last } = await connectUser(closing);
    await credential(closing, last);
    await closing.close();
    const rows = await closing.db.query(sql`SELECT 1 FROM audit_event WHERE action = 'credential.read'`);
    expect(rows).toHaveLength(1);
  });

  test('only keys that may read the trail do, and of one tenant only its own', async () => {
    const other = await createTenant(server);
    await mutate(server, 'updateTenant', { tenantId: other, name: 'renamed' });
    const own = await createServerKey(server, { permissions: ['AUDIT_READ'], tenantId: other });
    const seen = await auditEvents(own);
    expect(ignoreOrder(seen.map(({ action }) => action))).toEqual(['key.created', 'tenant.created', 'tenant.updated']);
    expect(await auditEvents(own, { tenantId })).toEqual([]);
    const foreign = await newestEvent(server, { tenantId });
    const node = 'query ($id: ID!) { node(id: $id) { id } }';
    expect((await server.graphql(node, { id: foreign?.id })).data.node).not.toBeNull();
    expect((await own.graphql(node, { id: foreign?.id })).data.node).toBeNull();
    const reader = await createServerKey(server, { permissions: ['CREDENTIALS_READ', 'CONNECTIONS_READ'] });
    const session = await createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT);
    for (const caller of [reader, session]) {
      const { errors } = await caller.graphql('{ auditEvents { edges { cursor } } }');
      expect(errors?.[0]?.extensions.code).toBe('FORBIDDEN');
    }
  });

  test('a frontend session is named with its user and its page with the tenant', async () => {
    const session = await createFrontendSession(
      server,
      { tenantId, allow: ['CONNECT_USER'], userId: 'user_9', ttlSeconds: 60 },
      PRODUCT,
    );
    await mutate(server, 'beginAuthorization', { tenantId, userId: 'user_9', appId: app.id }, session.headers);
    expect(await newestEvent(server, { tenantId, action: 'authorization.begun' })).toMatchObject({
      principalKind: 'FRONTEND_SESSION',
      principalId: session.id,
      externalUserId: 'user_9',
    });
  });

  test('a cursor of another list is refused', async () => {
    const { errors } = await server.graphql('{ auditEvents(after: "b25l") { edges { cursor } } }');
    expect(errors?.[0]?.extensions.code).toBe('BAD_USER_INPUT');
  });
});

describe('with strict reads', async () => {
  const server = await startTestServer({ LATCHKEY_AUDIT_MODE: 'strict' });
  const { input } = await connectUser(server);

  test('a token is handed out with its event committed, also where many ask at once', async () => {
    const answers = await Promise.all(Array.from({ length: 20 }, () => credential(server, input)));
    expect(new Set(answers.map(({ __typename }) => __typename))).toEqual(new Set(['Credential']));
    const [row] = await server.db.query<{ count: number }>(sql`
      SELECT coalesce(sum(count), 0)::int AS count FROM audit_event WHERE action = 'credential.read'`);
    expect(row?.count).toBe(20);
  });

  test('no token is handed out while its event cannot be stored, and none that was not is recorded later', async () => {
    const allow = await refuseEvents(server);
    const { data, errors } = await server.graphql(CREDENTIAL, { input });
    expect([data, errors?.[0]?.extensions.code]).toEqual([{ credential: null }, 'AUDIT_UNAVAILABLE']);
    await allow();
    expect((await credential(server, input)).__typename).toBe('Credential');
    const [row] = await server.db.query<{ count: number }>(sql`
      SELECT sum(count)::int AS count FROM audit_event WHERE action = 'credential.read'`);
    expect(row?.count).toBe(21);
  });
});
