import sql from 'sql-template-tag';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  calls,
  type Connection,
  connectUser,
  disconnect,
  events,
  expire,
  health,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { createTenant, registerApp } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

const REVOKE = `mutation ($input: RevokeGrantsInput!) {
  revokeGrants(input: $input) {
    __typename
    ... on RevokeGrantsSuccess { revocation { id requestedAt total confirmed pending } }
    ... on InvalidInputError { path }
    ... on Error { message }
  }
}`;

const revokeGrants = async (input: Record<string, unknown>): Promise<any> =>
  (await server.data(REVOKE, { input })).revokeGrants;

/** How a revocation stands, by its id. */
const progress = async (id: string): Promise<{ total: number; confirmed: number; pending: number }> =>
  (await server.data('query ($id: ID!) { node(id: $id) { ... on Revocation { total confirmed pending } } }', { id }))
    .node;

const revocationOf = async ({ id }: Connection): Promise<any> =>
  (
    await server.data(
      `query ($id: ID!) { node(id: $id) { ... on Grant {
        revocation { id total confirmed pending receipts { edges { node { endedAt confirmedAt grant { id } } } } } } } }`,
      { id },
    )
  ).node.revocation;

const retryNow = () => server.db.query(sql`UPDATE provider_revocation SET next_attempt_at = now()`);

const LIVE = 'HEALTHY CONNECTED';
const ENDED = 'REVOKED DISCONNECTED';

test('a disconnected connection shows its revocation as pending until Zoom confirms it', async () => {
  const connection = await connectUser(server);
  expect(await revocationOf(connection)).toBeNull();
  control.addFault({ route: 'revoke', clientId: connection.app.clientId, fault: { kind: 'status', status: 503 } });
  await disconnect(server, connection);
  await until(() => calls(server, connection, 'revoke').some(({ status }) => status === 503));
  expect(await revocationOf(connection)).toMatchObject({
    total: 1,
    confirmed: 0,
    pending: 1,
    receipts: { edges: [{ node: { endedAt: expect.any(String), confirmedAt: null, grant: { id: connection.id } } }] },
  });
  await until(async () => {
    await retryNow();
    return (await revocationOf(connection)).confirmed === 1;
  });
  expect(await revocationOf(connection)).toMatchObject({ total: 1, confirmed: 1, pending: 0 });
  const { id } = await revocationOf(connection);
  await disconnect(server, connection);
  expect((await revocationOf(connection)).id).toBe(id);
});

test('everything of a provider app is ended here at once, and at Zoom until each is confirmed', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const connections = [await connectUser(server, { app }), await connectUser(server, { app })];
  const [third, bystander] = [await connectUser(server, { app }), await connectUser(server)];
  await disconnect(server, third);
  const answer = await revokeGrants({ appId: app.id });
  expect(answer).toMatchObject({ __typename: 'RevokeGrantsSuccess', revocation: { total: 2 } });
  for (const connection of connections) {
    expect(await read(server, connection)).toMatchObject({ reason: 'DISCONNECTED' });
    expect(await stored(server, connection)).toBeUndefined();
    expect(await events(server, connection)).toEqual(['CONNECTED', 'DISCONNECTED']);
  }
  await until(async () => (await progress(answer.revocation.id)).confirmed === 2);
  expect(await progress(answer.revocation.id)).toEqual({ total: 2, confirmed: 2, pending: 0 });
  expect(control.grants().filter(({ clientId }) => clientId === app.clientId)).toEqual([]);
  expect(await health(server, bystander)).toBe(LIVE);
  expect((await revokeGrants({ appId: app.id })).revocation).toMatchObject({ total: 0, confirmed: 0, pending: 0 });
});

test('a tenant and a time narrow it down, and all that is given must hold', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const early = await connectUser(server, { app, tenantId, userId: 'early' });
  const late = await connectUser(server, { app, tenantId, userId: 'late' });
  const elsewhere = await connectUser(server, { app });
  const setTime = (connection: Connection, at: string) =>
    server.db.query(
      sql`UPDATE provider_grant SET authorized_at = ${at}::timestamptz WHERE id = ${connection.rowId}::uuid`,
    );
  await setTime(early, '2026-01-01T00:00:00Z');
  await setTime(late, '2026-01-02T00:00:00Z');
  await setTime(elsewhere, '2026-01-01T00:00:00Z');
  const healths = async () => [
    await health(server, early),
    await health(server, late),
    await health(server, elsewhere),
  ];

  const window = { connectedAfter: '2026-01-01T00:00:00Z', connectedBefore: '2026-01-02T00:00:00Z' };
  expect((await revokeGrants({ tenantId, ...window })).revocation.total).toBe(1);
  expect(await healths()).toEqual([ENDED, LIVE, LIVE]);
  expect((await revokeGrants(window)).revocation.total).toBe(1);
  expect(await healths()).toEqual([ENDED, LIVE, ENDED]);
  expect((await revokeGrants({ tenantId, appId: app.id })).revocation.total).toBe(1);
  expect(await healths()).toEqual([ENDED, ENDED, ENDED]);
});

test('a request that names nothing, or what does not exist, ends nothing', async () => {
  const connection = await connectUser(server);
  const missing = Buffer.from(`ProviderApp:${crypto.randomUUID()}`).toString('base64url');
  const at = new Date().toISOString();
  for (const input of [{}, { appId: null, tenantId: null }])
    expect(await revokeGrants(input)).toMatchObject({ __typename: 'InvalidInputError', path: ['input'] });
  expect(await revokeGrants({ connectedAfter: at, connectedBefore: at })).toMatchObject({
    __typename: 'InvalidInputError',
    path: ['input', 'connectedBefore'],
  });
  for (const input of [{ appId: missing }, { appId: 'x' }, { appId: connection.id }, { tenantId: 'nobody' }])
    expect(await revokeGrants(input)).toMatchObject({ __typename: 'NotFoundError' });
  expect(await health(server, connection)).toBe(LIVE);
});

test('a request whose process dies right after it is stored is carried on by another', async () => {
  const connections = [await connectUser(server), await connectUser(server)];
  const [app] = connections.map(({ app: each }) => each);
  const requests = async () => (await server.db.query(sql`SELECT id FROM revocation`)).length;
  const before = await requests();
  // The request is stored, and the process does no more.
  const dying = await startSecondServer({
    ...server.db,
    transaction: async (run) => {
      if ((await requests()) > before) throw new Error('killed');
      return server.db.transaction(run);
    },
  });
  const response = await fetch(`${dying.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}` },
    body: JSON.stringify({ query: REVOKE, variables: { input: { appId: app?.id } } }),
  });
  const { data } = (await response.json()) as any;
  expect(data.revokeGrants.revocation).toMatchObject({ total: 1 });
  await until(async () => (await progress(data.revokeGrants.revocation.id)).confirmed === 1);
  expect(await health(server, connections[0]!)).toBe(ENDED);
  expect(await health(server, connections[1]!)).toBe(LIVE);
});

test('more than one transaction holds are ended batch by batch, by several processes without doing any twice', async () => {
  const { app, tenantId, rowId } = await connectUser(server);
  await server.db.query(sql`
    INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
      granted_scopes, missing_scopes, health_status, health_reason, health_since, authorized_at)
    SELECT gen_random_uuid(), kind, tenant_id, app_id, 'many_' || n, 'many_' || n, provider_account_id,
      granted_scopes, missing_scopes, 'REAUTHORIZATION_REQUIRED', 'GRANT_EXPIRED', now(), now()
    FROM provider_grant, generate_series(1, 249) AS n WHERE id = ${rowId}::uuid`);
  const { revocation } = await revokeGrants({ appId: app.id });
  expect(revocation.total).toBe(250);
  await until(async () => (await progress(revocation.id)).confirmed === 250);
  const [counts] = await server.db.query(sql`
    SELECT count(*) AS events, count(DISTINCT e.grant_id) AS grants, max(sequence) AS newest
    FROM health_event e JOIN tenant t ON t.id = e.tenant_id WHERE t.external_id = ${tenantId} AND e.current = 'REVOKED'`);
  expect(counts).toEqual({ events: 250, grants: 250, newest: 251 });
});

test('a connection whose tokens nobody can open any more is ended all the same, and stays unconfirmed', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const [spoilt, sound] = [await connectUser(server, { app }), await connectUser(server, { app })];
  await server.db.query(sql`
    UPDATE credential SET sealed_access_token = decode(repeat('00', 200), 'hex') WHERE grant_id = ${spoilt.rowId}::uuid`);
  const { revocation } = await revokeGrants({ appId: app.id });
  expect([await health(server, spoilt), await health(server, sound)]).toEqual([ENDED, ENDED]);
  expect(await stored(server, spoilt)).toBeUndefined();
  await until(async () => (await progress(revocation.id)).confirmed === 1);
  expect(await progress(revocation.id)).toEqual({ total: 2, confirmed: 1, pending: 1 });
});

test('a connection that another one replaced has nothing left for Zoom to confirm', async () => {
  const older = await connectUser(server);
  await connectUser(server, { app: older.app, zoomUserId: older.zoomUserId });
  await disconnect(server, older);
  expect(await revocationOf(older)).toMatchObject({ total: 1, confirmed: 1, pending: 0 });
});

test('a revocation waits for the token, too, that a refresh brings after the end', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  spoilRefresh(server, connection, { kind: 'hang', when: 'after', ms: 2_000 });
  const reading = read(server, connection);
  await until(() => calls(server, connection).some(({ outcome }) => outcome === 'rotated'));
  await disconnect(server, connection);
  // The former token is confirmed before the refresh is answered.
  await until(async () => (await revocationOf(connection)).confirmed === 1);
  control.addFault({ route: 'revoke', clientId: connection.app.clientId, fault: { kind: 'status', status: 503 } });
  await reading;
  await until(async () => (await revocationOf(connection)).pending === 1);
  await until(async () => {
    await retryNow();
    return (await revocationOf(connection)).confirmed === 1;
  });
  expect(await revocationOf(connection)).toMatchObject({ total: 1, confirmed: 1, pending: 0 });
  expect(await health(server, connection)).toBe(ENDED);
});
