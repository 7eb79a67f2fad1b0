import sql from 'sql-template-tag';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  calls,
  type Connection,
  connectUser,
  createZoomUser,
  disconnect,
  events,
  expire,
  health,
  meStatus,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, sandboxUser } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer();
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

test('disconnecting is done here at once, and at Zoom as soon as it answers', async () => {
  const connection = await connectUser(server);
  const token = await read(server, connection);
  expect(await disconnect(server, connection)).toEqual({ status: 'REVOKED', reason: 'DISCONNECTED' });
  expect(await stored(server, connection)).toBeUndefined();
  expect(await read(server, connection)).toMatchObject({
    __typename: 'ReauthorizationRequiredError',
    reason: 'DISCONNECTED',
  });
  await until(async () => (await pending(connection)) === 0);
  expect(atZoom(connection)).toBeUndefined();
  expect(await meStatus(token)).toBe(401);
  expect(calls(server, connection, 'revoke').map(({ outcome }) => outcome)).toEqual(['revoked']);
});

test('disconnecting twice is one event and one request to Zoom', async () => {
  const connection = await connectUser(server);
  await disconnect(server, connection);
  expect(await disconnect(server, connection)).toEqual({ status: 'REVOKED', reason: 'DISCONNECTED' });
  await until(async () => (await pending(connection)) === 0);
  expect(calls(server, connection, 'revoke')).toHaveLength(1);
  // Zoom tells of it as well; that is no second end.
  await until(() =>
    control
      .journal()
      .some(
        (entry) => entry.route === 'webhook' && entry.clientId === connection.app.clientId && entry.status !== null,
      ),
  );
  expect(await events(server, connection)).toEqual(['CONNECTED', 'DISCONNECTED']);
});

test('an expired access token is no obstacle: Zoom is given the refresh token', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  control.expireAccessTokens({ clientId: connection.app.clientId });
  await disconnect(server, connection);
  await until(async () => (await pending(connection)) === 0);
  expect(calls(server, connection, 'revoke').map(({ outcome }) => outcome)).toEqual(['revoked']);
  expect(atZoom(connection)).toBeUndefined();
});

test('while Zoom is down the end here stands, and Zoom is told again and again until it confirms', async () => {
  const connection = await connectUser(server);
  control.addFault({
    route: 'revoke',
    clientId: connection.app.clientId,
    times: 2,
    fault: { kind: 'status', status: 503 },
  });
  expect(await disconnect(server, connection)).toMatchObject({ status: 'REVOKED' });
  for (const attempts of [1, 2]) {
    await until(() => calls(server, connection, 'revoke').filter(({ status }) => status !== null).length === attempts);
    expect(await pending(connection)).toBe(1);
    await until(() => retryNow(connection));
  }
  await until(async () => (await pending(connection)) === 0);
  expect(calls(server, connection, 'revoke').map(({ status }) => status)).toEqual([503, 503, 200]);
  expect(atZoom(connection)).toBeUndefined();
});

test("an app's connections can be revoked with the former secret while it is being changed", async () => {
  const connection = await connectUser(server);
  await server.data(
    `mutation ($input: UpdateProviderAppInput!) {
      updateProviderApp(input: $input) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
    }`,
    { input: { id: connection.app.id, clientSecret: 'not-yet-known-at-zoom' } },
  );
  await disconnect(server, connection);
  await until(async () => (await pending(connection)) === 0);
  expect(calls(server, connection, 'revoke').map(({ outcome }) => outcome)).toEqual(['invalid_client', 'revoked']);
});

test('a connection that another one replaced is not revoked at Zoom, where that would end the other', async () => {
  const older = await connectUser(server);
  const newer = await connectUser(server, { app: older.app, zoomUserId: older.zoomUserId });
  expect(await disconnect(server, older)).toEqual({ status: 'REVOKED', reason: 'DISCONNECTED' });
  expect(await pending(older)).toBe(0);
  expect(calls(server, older, 'revoke')).toEqual([]);
  expect(await meStatus(await read(server, newer))).toBe(200);
});

test.each([true, false])(
  'ending an installation (users included: %s) leaves the other users alone',
  async (includeUsers) => {
    const { tenantId, installationId, acme, globex } = await createOrganisation();
    const elsewhere = await connectUser(server, { app: acme.app });
    const { revokeInstallation } = await server.data(
      `mutation ($input: RevokeInstallationInput!) {
      revokeInstallation(input: $input) {
        ... on RevokeInstallationSuccess { installation { health { status reason } } }
        ... on Error { message }
      }
    }`,
      { input: { id: installationId, includeUsers } },
    );
    expect(revokeInstallation.installation.health).toEqual({ status: 'REVOKED', reason: 'DISCONNECTED' });
    expect(await credential(server, { tenantId, credentialFor: 'INSTALLATION' })).toMatchObject({
      reason: 'DISCONNECTED',
    });
    const ended = { __typename: 'ReauthorizationRequiredError', reason: 'DISCONNECTED' };
    const served = { __typename: 'Credential' };
    expect(await read(server, acme)).toMatchObject(includeUsers ? ended : served);
    expect(await read(server, globex)).toMatchObject(served);
    expect(await read(server, elsewhere)).toMatchObject(served);
    await until(async () => (await pending(acme)) === 0);
    expect(atZoom(acme) === undefined).toBe(includeUsers);
    expect(atZoom(globex)).toBeDefined();
  },
);

test('what does not exist, or is of the other kind, is not found and nothing ends', async () => {
  const connection = await connectUser(server);
  const { rowId } = connection;
  const missing = { message: expect.any(String) };
  expect(
    await disconnect(server, { id: Buffer.from(`UserConnection:${crypto.randomUUID()}`).toString('base64url') }),
  ).toEqual(missing);
  expect(await disconnect(server, { id: Buffer.from(`Installation:${rowId}`).toString('base64url') })).toEqual(missing);
  expect(await disconnect(server, { id: 'nonsense' })).toEqual(missing);
  expect(await read(server, connection)).toMatchObject({ __typename: 'Credential' });
});

test('a connection that is ended while it is refreshed stays ended, and the fresh token is revoked', async () => {
  control.setKnobs({ tokenDelayMs: 300 });
  const connection = await connectUser(server);
  await expire(server, connection);
  control.expireAccessTokens({ clientId: connection.app.clientId });
  // Ended at Zoom only after the refresh, so that the fresh token is alive when it arrives.
  control.addFault({ route: 'revoke', clientId: connection.app.clientId, fault: { kind: 'status', status: 503 } });
  const reading = read(server, connection);
  await until(() => calls(server, connection).length === 1);
  await disconnect(server, connection);
  expect(await reading).toMatchObject({ __typename: 'ReauthorizationRequiredError', reason: 'DISCONNECTED' });
  expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
  expect(await stored(server, connection)).toBeUndefined();
  expect(await health(server, connection)).toBe('REVOKED DISCONNECTED');
  await until(async () => (await retryNow(connection), (await pending(connection)) === 0));
  expect(atZoom(connection)).toBeUndefined();
  expect(await events(server, connection)).toEqual(['CONNECTED', 'DISCONNECTED']);
});

test('many connections can be ended while all of them are being refreshed', async () => {
  control.setKnobs({ tokenDelayMs: 100 });
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const connections: Connection[] = [];
  for (let index = 0; index < 8; index += 1)
    connections.push(await connectUser(server, { app, tenantId, userId: `user_${index}` }));
  await expire(server, ...connections);
  const readings = connections.map((connection) => read(server, connection));
  await until(() => calls(server, { app }).length === connections.length);
  const ends = await Promise.all(connections.map((connection) => disconnect(server, connection)));
  expect(ends.every(({ reason }) => reason === 'DISCONNECTED')).toBe(true);
  for (const answer of await Promise.all(readings))
    expect(['Credential', 'ReauthorizationRequiredError']).toContain(answer.__typename);
  await until(async () => (await pending({ tenantId })) === 0);
  expect(control.grants().filter(({ clientId }) => clientId === app.clientId)).toEqual([]);
  for (const connection of connections) expect(await events(server, connection)).toEqual(['CONNECTED', 'DISCONNECTED']);
});

test('a new consent wins over a refresh of the old one that is still under way', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  spoilRefresh(server, connection, { kind: 'hang', when: 'after', ms: 1_500 });
  const reading = read(server, connection);
  await until(() => calls(server, connection).some(({ outcome }) => outcome === 'rotated'));
  await connectUser(server, connection);
  const fresh = await read(server, connection);
  expect(fresh).toMatchObject({ __typename: 'Credential', version: 2 });
  const late = await reading;
  expect(late).toMatchObject({ __typename: 'Credential', accessToken: fresh.accessToken, version: 2 });
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE', failures: 0 });
  expect(await read(server, connection)).toEqual(fresh);
  expect(await meStatus(fresh)).toBe(200);
  expect(await pending(connection)).toBe(0);
  expect(await events(server, connection)).toEqual(['CONNECTED', 'CONNECTED']);
});

test('an app that is removed at Zoom while it is refreshed ends the connection once', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  spoilRefresh(server, connection, { kind: 'hang', when: 'after', ms: 1_000 });
  const reading = read(server, connection);
  await until(() => calls(server, connection).some(({ outcome }) => outcome === 'rotated'));
  control.removeGrant({ clientId: connection.app.clientId, userId: connection.zoomUserId });
  await until(async () => (await health(server, connection)) === 'REVOKED DEAUTHORIZED_AT_PROVIDER');
  expect(await reading).toMatchObject({
    __typename: 'ReauthorizationRequiredError',
    reason: 'DEAUTHORIZED_AT_PROVIDER',
  });
  expect(await stored(server, connection)).toBeUndefined();
  expect(await events(server, connection)).toEqual(['CONNECTED', 'DEAUTHORIZED_AT_PROVIDER']);
});

/** A tenant with an installation in one account of Zoom's, and a user there and one in another account. */
async function createOrganisation() {
  const [adminApp, userApp] = [await registerApp(server, 'ADMIN_MANAGED'), await registerApp(server, 'USER_MANAGED')];
  const tenantId = await createTenant(server);
  // Before the installation, which from then on admits users of its own account only.
  const stranger = control.users().find(({ email }) => email === 'hugo@globex.example');
  const globex = await connectUser(server, {
    app: userApp,
    tenantId,
    userId: 'user_2',
    zoomUserId: stranger?.id ?? '',
  });
  await connect(
    server,
    'beginInstallation',
    { tenantId, userId: 'admin_1', appId: adminApp.id },
    sandboxUser(server, 'Admin').id,
  );
  const acme = await connectUser(server, { app: userApp, tenantId, zoomUserId: createZoomUser(server) });
  const { grant } = await credential(server, { tenantId, credentialFor: 'INSTALLATION' });
  return { tenantId, installationId: grant.id as string, acme, globex };
}

const atZoom = ({ app, zoomUserId }: Connection) =>
  control.grants().find((grant) => grant.clientId === app.clientId && grant.userId === zoomUserId);

/** How many revocations of the tenant Zoom has not confirmed yet. */
async function pending({ tenantId }: Pick<Connection, 'tenantId'>): Promise<number> {
  const [row] = await server.db.query<{ count: number }>(sql`
    SELECT count(*) AS count FROM provider_revocation r JOIN tenant t ON t.id = r.tenant_id
    WHERE t.external_id = ${tenantId}`);
  return row?.count ?? 0;
}

/** Makes the tenant's revocations due that are not being carried out. @returns whether there was one. */
async function retryNow({ tenantId }: Pick<Connection, 'tenantId'>): Promise<boolean> {
  const rows = await server.db.query(sql`
    UPDATE provider_revocation r SET next_attempt_at = now() FROM tenant t
    WHERE t.id = r.tenant_id AND t.external_id = ${tenantId} AND next_attempt_at < now() + interval '50 seconds'
    RETURNING r.id`);
  return rows.length > 0;
}
