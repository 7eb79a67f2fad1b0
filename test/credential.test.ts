import sql from 'sql-template-tag';
import { afterEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  age,
  calls,
  connectUser,
  createZoomUser,
  disconnect,
  expire,
  meStatus,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, sandboxUser, USER_SCOPES } from './support/story.js';

const server = await startTestServer({ LATCHKEY_ROLE: 'api' });
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

test('a token that lasts is answered without asking Zoom', async () => {
  const connection = await connectUser(server);
  const first = await read(server, connection);
  const second = await read(server, connection);
  expect(first).toMatchObject({
    __typename: 'Credential',
    tokenType: 'Bearer',
    version: 1,
    warning: null,
    scopes: USER_SCOPES,
  });
  expect(second).toEqual(first);
  expect(calls(server, connection)).toEqual([]);
  expect(await meStatus(first)).toBe(200);
});

test('an expired token is refreshed once, and the new one serves the next read', async () => {
  const connection = await connectUser(server);
  const before = await read(server, connection);
  await expire(server, connection);
  const after = await read(server, connection);
  expect(after).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
  expect(after.accessToken).not.toBe(before.accessToken);
  expect(Date.parse(after.expiresAt)).toBeGreaterThan(Date.now() + 3_500_000);
  expect(await meStatus(after)).toBe(200);
  expect(await read(server, connection)).toEqual(after);
  expect(calls(server, connection).map(({ outcome }) => outcome)).toEqual(['rotated']);
});

test('two hundred readers of one expired credential share one refresh and get the same token', async () => {
  control.setKnobs({ tokenDelayMs: 200 });
  const connection = await connectUser(server);
  await expire(server, connection);
  const answers = await Promise.all(Array.from({ length: 200 }, () => read(server, connection)));
  expect(new Set(answers.map(({ accessToken }) => accessToken)).size).toBe(1);
  expect(new Set(answers.map(({ version }) => version))).toEqual(new Set([2]));
  expect(calls(server, connection)).toHaveLength(1);
  expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE', fence: 2 });
}, 60_000);

test('each refresh uses the refresh token that the one before was answered', async () => {
  const connection = await connectUser(server);
  for (const version of [2, 3, 4]) {
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version });
  }
  const sent = calls(server, connection);
  expect(new Set(sent.map(({ tokenFingerprint }) => tokenFingerprint)).size).toBe(3);
  expect(sent.map(({ outcome }) => outcome)).toEqual(['rotated', 'rotated', 'rotated']);
});

test('a token is renewed for who needs it longer than it lasts, and for nobody else', async () => {
  const connection = await connectUser(server);
  await age(server, 300, connection);
  expect(await read(server, connection)).toMatchObject({ version: 1 });
  expect(await read(server, connection, { minTtlSeconds: 290 })).toMatchObject({ version: 1 });
  expect(await read(server, connection, { minTtlSeconds: 0 })).toMatchObject({ version: 1 });
  expect(await read(server, connection, { minTtlSeconds: 310 })).toMatchObject({ version: 2 });
  await age(server, 2_900, connection);
  expect(await read(server, connection, { minTtlSeconds: 3_000 })).toMatchObject({ version: 3 });
  expect(calls(server, connection)).toHaveLength(2);
});

test('a token whose whole life is shorter than what is asked is not renewed at every read', async () => {
  control.setKnobs({ accessTokenSeconds: 40 });
  const connection = await connectUser(server);
  for (let index = 0; index < 5; index += 1) {
    expect(await read(server, connection, { minTtlSeconds: 3_000 })).toMatchObject({ version: 2, warning: null });
  }
  expect(calls(server, connection)).toHaveLength(1);
  await age(server, 15, connection);
  expect(await read(server, connection)).toMatchObject({ version: 3 });
  expect(await read(server, connection)).toMatchObject({ version: 3 });
  expect(calls(server, connection)).toHaveLength(2);
});

test('a token in its last second is not handed out', async () => {
  const connection = await connectUser(server);
  await age(server, 0.9, connection);
  expect(await read(server, connection, { minTtlSeconds: 0 })).toMatchObject({ version: 2 });
});

test('a refresh that fails does not withhold a token that is still valid', async () => {
  const connection = await connectUser(server);
  const before = await read(server, connection);
  await age(server, 30, connection);
  spoilRefresh(server, connection, { kind: 'status', status: 503, headers: { 'retry-after': '60' } });
  const answer = await read(server, connection);
  expect(answer).toMatchObject({ __typename: 'Credential', accessToken: before.accessToken, version: 1 });
  expect(answer.warning).toBe('PROVIDER_UNAVAILABLE');
});

test('a database that takes no writes does not withhold a token that is still valid', async () => {
  const connection = await connectUser(server);
  const before = await read(server, connection);
  await age(server, 30, connection);
  await server.db.query(sql`
    CREATE FUNCTION refuse_write() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''read only''; END'`);
  await server.db.query(sql`
    CREATE TRIGGER refuse_write BEFORE UPDATE ON credential FOR EACH ROW EXECUTE FUNCTION refuse_write()`);
  try {
    expect(await read(server, connection)).toMatchObject({ accessToken: before.accessToken, version: 1 });
  } finally {
    await server.db.query(sql`DROP TRIGGER refuse_write ON credential`);
    await server.db.query(sql`DROP FUNCTION refuse_write`);
  }
  expect(calls(server, connection)).toEqual([]);
  expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
});

test('an id that cannot be stored does not fail the reads that arrive with it', async () => {
  const connection = await connectUser(server);
  const broken = { ...connection, input: { ...connection.input, userId: 'user\0' } };
  const answers = await Promise.all([read(server, connection), read(server, broken), read(server, connection)]);
  expect(answers.map((answer) => answer.__typename)).toEqual(['Credential', 'InvalidInputError', 'Credential']);
});

test('a token that is shorter than was asked for is answered with a warning when it cannot be renewed', async () => {
  control.setKnobs({ accessTokenSeconds: 30 });
  const connection = await connectUser(server);
  spoilRefresh(server, connection, { kind: 'status', status: 503 });
  expect(await read(server, connection, { minTtlSeconds: 60 })).toMatchObject({
    version: 1,
    warning: 'PROVIDER_UNAVAILABLE',
  });
});

test('an installation is found also by a caller who names the user it asks for', async () => {
  const app = await registerApp(server, 'ADMIN_MANAGED');
  const tenantId = await createTenant(server);
  const admin = sandboxUser(server, 'Admin');
  await connect(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: app.id }, admin.id);
  const answer = await credential(server, { tenantId, credentialFor: 'INSTALLATION', userId: 'user_1' });
  expect(answer.__typename).toBe('Credential');
});

test.each([
  [{ credentialFor: 'USER' }, 'userId'],
  [{ credentialFor: 'USER', userId: 'user_1', minTtlSeconds: -1 }, 'minTtlSeconds'],
  [{ credentialFor: 'USER', userId: 'user_1', minTtlSeconds: 3_001 }, 'minTtlSeconds'],
])('%j is no question that has an answer', async (input, field) => {
  const tenantId = await createTenant(server);
  expect(await credential(server, { tenantId, ...input })).toMatchObject({
    __typename: 'InvalidInputError',
    path: ['input', field],
  });
});

test('scopes that were not granted are named, whatever state the token is in', async () => {
  const connection = await connectUser(server);
  const granted = await read(server, connection, { requiredScopes: USER_SCOPES });
  expect(granted.__typename).toBe('Credential');
  const answer = await read(server, connection, { requiredScopes: ['meeting:write:meeting', ...USER_SCOPES] });
  expect(answer).toMatchObject({
    __typename: 'MissingScopesError',
    missingScopes: ['meeting:write:meeting'],
    grant: { id: connection.id },
  });
  expect(answer.accessToken).toBeUndefined();
});

test('of several connections one must be named', async () => {
  const one = await connectUser(server);
  const two = await connectUser(server, { tenantId: one.tenantId });
  const ambiguous = await read(server, one);
  expect(ambiguous.__typename).toBe('AmbiguousGrantError');
  expect(new Set(ambiguous.candidates.map(({ id }: { id: string }) => id))).toEqual(new Set([one.id, two.id]));
  for (const { input, id } of [one, two]) {
    const answer = await credential(server, { ...input, grantId: id });
    expect(answer).toMatchObject({ __typename: 'Credential', grant: { id } });
  }
});

test('a connection that ended does not make the living one ambiguous', async () => {
  const ended = await connectUser(server);
  const living = await connectUser(server, { tenantId: ended.tenantId });
  await disconnect(server, ended);
  expect(await read(server, ended)).toMatchObject({ __typename: 'Credential', grant: { id: living.id } });
  expect(await read(server, ended, { grantId: ended.id })).toMatchObject({
    __typename: 'ReauthorizationRequiredError',
    reason: 'DISCONNECTED',
    grant: { id: ended.id },
  });
});

test('what never was connected is not found', async () => {
  const connection = await connectUser(server);
  const elsewhere = await connectUser(server);
  const missing = { __typename: 'GrantNotFoundError' };
  expect(await credential(server, { ...connection.input, tenantId: 'org_nobody' })).toMatchObject(missing);
  expect(await credential(server, { ...connection.input, userId: 'user_2' })).toMatchObject(missing);
  expect(await credential(server, { tenantId: connection.tenantId, credentialFor: 'INSTALLATION' })).toMatchObject(
    missing,
  );
  expect(await read(server, connection, { grantId: elsewhere.id })).toMatchObject(missing);
  expect(await read(server, connection, { grantId: 'nonsense' })).toMatchObject(missing);
});

test('a disconnected connection says so, and Zoom is not asked', async () => {
  const connection = await connectUser(server);
  await expire(server, connection);
  await disconnect(server, connection);
  expect(await read(server, connection)).toMatchObject({
    __typename: 'ReauthorizationRequiredError',
    reason: 'DISCONNECTED',
  });
  expect(calls(server, connection)).toEqual([]);
  expect(await stored(server, connection)).toBeUndefined();
});

test('a user who connects again has one connection, with the new tokens', async () => {
  const first = await connectUser(server);
  const before = await read(server, first);
  await disconnect(server, first);
  const again = await connectUser(server, first);
  expect(again.rowId).toBe(first.rowId);
  const answer = await read(server, again);
  expect(answer).toMatchObject({ __typename: 'Credential', grant: { id: first.id }, warning: null });
  expect(answer.accessToken).not.toBe(before.accessToken);
  expect(await meStatus(answer)).toBe(200);
});

test("the same Zoom user connected elsewhere ends the older connection, whoever's it is", async () => {
  const older = await connectUser(server);
  const newer = await connectUser(server, { app: older.app, zoomUserId: older.zoomUserId });
  expect(await read(server, older)).toMatchObject({ __typename: 'ReauthorizationRequiredError', reason: 'SUPERSEDED' });
  expect(await read(server, newer)).toMatchObject({ __typename: 'Credential' });
  expect(calls(server, older)).toEqual([]);
});

test("an installation's credential is the account's", async () => {
  const app = await registerApp(server, 'ADMIN_MANAGED');
  const tenantId = await createTenant(server);
  await connect(
    server,
    'beginInstallation',
    { tenantId, userId: 'admin_1', appId: app.id },
    sandboxUser(server, 'Admin').id,
  );
  const answer = await credential(server, { tenantId, credentialFor: 'INSTALLATION' });
  expect(answer).toMatchObject({ __typename: 'Credential', version: 1 });
  expect(await meStatus(answer)).toBe(200);
});

test('a server-to-server token is minted anew when it has expired', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  await server.data(
    `mutation ($input: ConnectServerToServerInput!) {
      connectServerToServer(input: $input) { ... on ConnectServerToServerSuccess { installation { id } } ... on Error { message } }
    }`,
    { input: { tenantId, appId: app.id, providerAccountId: app.atZoom.accountId } },
  );
  const input = { tenantId, credentialFor: 'INSTALLATION' };
  expect(await credential(server, input)).toMatchObject({ version: 1 });
  await server.db.query(sql`
    UPDATE credential SET expires_at = now() - interval '1 second' FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id
    WHERE grant_id = g.id AND t.external_id = ${tenantId}`);
  // Nothing is lost with a lost answer: there is no rotation, and so no doubt.
  control.addFault({ route: 'token', clientId: app.clientId, fault: { kind: 'drop', when: 'after' } });
  expect(await credential(server, input)).toMatchObject({
    __typename: 'ProviderUnavailableError',
    reason: 'PROVIDER_UNAVAILABLE',
  });
  await server.db.query(sql`
    UPDATE credential SET retry_at = NULL FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id
    WHERE grant_id = g.id AND t.external_id = ${tenantId}`);
  const answer = await credential(server, input);
  expect(answer).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
  expect(await meStatus(answer)).toBe(200);
});

test('the scopes of an answer are those of the token it holds', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const connection = await connectUser(server, { app, zoomUserId: createZoomUser(server) });
  spoilRefresh(server, connection, {
    kind: 'status',
    status: 200,
    body: { access_token: 'ZCANARY_less', token_type: 'bearer', expires_in: 3600, scope: USER_SCOPES[0] },
  });
  await expire(server, connection);
  const answer = await read(server, connection);
  expect(answer).toMatchObject({ version: 2, scopes: [USER_SCOPES[0]] });
  expect(await read(server, connection, { requiredScopes: [USER_SCOPES[1]] })).toMatchObject({
    __typename: 'MissingScopesError',
    missingScopes: [USER_SCOPES[1]],
  });
});
