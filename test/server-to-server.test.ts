import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import { healthEventsOf, journalOf, NOTHING_STORED, storedOf, tokenRequests } from './support/consent-trip.js';
import { startTestServer } from './support/server.js';
import { createTenant, credential, registerApp } from './support/story.js';

const server = await startTestServer();
const { control } = server.sandbox;
const [acme, globex] = control.accounts();
if (acme === undefined || globex === undefined) throw new Error('The sandbox has no two accounts.');

async function connectServer(input: Record<string, unknown>): Promise<Record<string, unknown>> {
  const { connectServerToServer } = (await server.data(
    `mutation ($input: ConnectServerToServerInput!) {
      connectServerToServer(input: $input) {
        __typename
        ... on ConnectServerToServerSuccess {
          installation {
            id providerAccountId health { status reason } grantedScopes { name } missingScopes { name }
            credentialInfo { version refreshTokenExpiresAt } installedBy { providerUserId }
          }
        }
        ... on InvalidInputError { path }
        ... on ProviderUnavailableError { reason retryAfterSeconds }
        ... on Error { message }
      }
    }`,
    { input },
  )) as { connectServerToServer: Record<string, unknown> };
  return connectServerToServer;
}

const installationOf = (answer: Record<string, unknown>) =>
  answer['installation'] as { id: string; credentialInfo: { version: number } };

test('a server-to-server app is connected without consent, and its credential works', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  const answer = await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
  const admin = control.users().find(({ accountId, role }) => accountId === acme.id && role !== 'Member');
  expect(answer).toMatchObject({
    __typename: 'ConnectServerToServerSuccess',
    installation: {
      providerAccountId: acme.id,
      health: { status: 'HEALTHY', reason: 'CONNECTED' },
      missingScopes: [],
      credentialInfo: { version: 1, refreshTokenExpiresAt: null },
      installedBy: { providerUserId: admin?.id },
    },
  });
  expect(journalOf(server, app, 'token')).toEqual([
    expect.objectContaining({ grantType: 'account_credentials', authentication: 'basic', queryKeys: [], status: 200 }),
  ]);
  expect((await healthEventsOf(server, tenantId)).map(({ reason }) => reason)).toEqual(['CONNECTED']);
  const token = await credential(server, { tenantId, credentialFor: 'INSTALLATION' });
  expect(token).toMatchObject({ __typename: 'Credential', version: 1, grant: { id: installationOf(answer).id } });
  const users = await fetch(`${token.apiUrl}/v2/users/me`, {
    headers: { authorization: `Bearer ${token.accessToken}` },
  });
  expect(users.status).toBe(200);
});

test('there is no refresh token: renewing asks for a new token of the account', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
  const [row] = await server.db.query<{ sealed: Uint8Array | null; expires: Date | null }>(sql`
    SELECT c.sealed_refresh_token AS sealed, c.refresh_expires_at AS expires
    FROM credential c JOIN provider_grant g ON g.id = c.grant_id JOIN tenant t ON t.id = g.tenant_id
    WHERE t.external_id = ${tenantId}`);
  expect(row).toEqual({ sealed: null, expires: null });
  await server.db.query(sql`
    UPDATE credential SET expires_at = now() - interval '1 second'
    WHERE grant_id IN (SELECT g.id FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id WHERE t.external_id = ${tenantId})`);
  expect(await credential(server, { tenantId, credentialFor: 'INSTALLATION' })).toMatchObject({
    __typename: 'Credential',
    version: 2,
  });
  expect(journalOf(server, app, 'token').map(({ grantType }) => grantType)).toEqual([
    'account_credentials',
    'account_credentials',
  ]);
});

test('connecting the same account again keeps the installation', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  const first = installationOf(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id }));
  const second = installationOf(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id }));
  expect(second).toMatchObject({ id: first.id, credentialInfo: { version: 2 } });
  expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
});

test('two tenants may use one app and account: neither token ends the other', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const [here, there] = [await createTenant(server), await createTenant(server)];
  for (const tenantId of [here, there]) await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
  for (const tenantId of [here, there]) {
    const token = await credential(server, { tenantId, credentialFor: 'INSTALLATION' });
    const me = await fetch(`${token.apiUrl}/v2/users/me`, {
      headers: { authorization: `Bearer ${token.accessToken}` },
    });
    expect(me.status).toBe(200);
  }
});

test('an app without a scope to ask who it speaks for is connected all the same', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER', ['meeting:read:list_meetings:admin']);
  const tenantId = await createTenant(server);
  expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
    installation: { providerAccountId: acme.id, installedBy: null, health: { status: 'HEALTHY' } },
  });
});

describe('an app without a scope to ask who it speaks for', () => {
  const SETTINGS = ['account:read:settings:admin'];

  test('shows by the first call that it may make that its token works', async () => {
    const app = await registerApp(server, 'SERVER_TO_SERVER', SETTINGS);
    const tenantId = await createTenant(server);
    expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
      installation: { providerAccountId: acme.id, installedBy: null, health: { status: 'HEALTHY' } },
    });
    expect(journalOf(server, app, 'users')).toMatchObject([{ outcome: 'missing-scope' }]);
    expect(journalOf(server, app, 'accounts')).toMatchObject([{ status: 200, outcome: 'read' }]);
  });

  test('is connected where Zoom takes the token and cannot serve the call', async () => {
    const app = await registerApp(server, 'SERVER_TO_SERVER', SETTINGS);
    const tenantId = await createTenant(server);
    const body = { code: 200, message: 'Not available for this account.' };
    control.addFault({ route: 'accounts', clientId: app.clientId, fault: { kind: 'status', status: 400, body } });
    expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
      __typename: 'ConnectServerToServerSuccess',
    });
  });

  test.each([
    ['does not take the token', 401, 'RefusedByProviderError'],
    ['is not available', 503, 'ProviderUnavailableError'],
    ['asks to slow down', 429, 'ProviderUnavailableError'],
  ] as const)('is not connected where Zoom %s', async (_name, status, __typename) => {
    const app = await registerApp(server, 'SERVER_TO_SERVER', SETTINGS);
    const tenantId = await createTenant(server);
    control.addFault({ route: 'accounts', clientId: app.clientId, fault: { kind: 'status', status } });
    const input = { tenantId, appId: app.id, providerAccountId: acme.id };
    expect(await connectServer(input)).toMatchObject({ __typename });
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    expect(await connectServer(input)).toMatchObject({ __typename: 'ConnectServerToServerSuccess' });
  });
});

test('everybody who reads an account gets one and the same token until it runs out, and then one new one', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
  const readByMany = async () => {
    const reads = Array.from({ length: 40 }, () => credential(server, { tenantId, credentialFor: 'INSTALLATION' }));
    return new Set((await Promise.all(reads)).map(({ accessToken }) => accessToken));
  };
  const first = await readByMany();
  expect(first.size).toBe(1);
  expect(await readByMany()).toEqual(first);
  expect(tokenRequests(server, app)).toBe(1);
  await server.db.query(sql`
    UPDATE credential SET expires_at = now() - interval '1 second'
    WHERE tenant_id = (SELECT id FROM tenant WHERE external_id = ${tenantId})`);
  const second = await readByMany();
  expect(second.size).toBe(1);
  expect(second).not.toEqual(first);
  expect(tokenRequests(server, app)).toBe(2);
});

describe('while the client secret is changed', () => {
  const setSecret = async (id: string, clientSecret: string, retireFormerSecretAt?: string) => {
    const { updateProviderApp } = (await server.data(
      `mutation ($input: UpdateProviderAppInput!) {
        updateProviderApp(input: $input) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
      }`,
      { input: { id, clientSecret, ...(retireFormerSecretAt === undefined ? {} : { retireFormerSecretAt }) } },
    )) as { updateProviderApp: unknown };
    expect(updateProviderApp).toEqual({ providerApp: { id } });
  };

  const runOut = (tenantId: string) =>
    server.db.query(sql`
      UPDATE credential SET expires_at = now() - interval '1 second', retry_at = NULL
      WHERE tenant_id = (SELECT id FROM tenant WHERE external_id = ${tenantId})`);

  test('here first, tokens are minted with the former secret until Zoom has the new one', async () => {
    const app = await registerApp(server, 'SERVER_TO_SERVER');
    const tenantId = await createTenant(server);
    await setSecret(app.id, 'a-secret-that-zoom-does-not-know-yet');
    await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
    await runOut(tenantId);
    const token = await credential(server, { tenantId, credentialFor: 'INSTALLATION' });
    expect(token).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    expect(journalOf(server, app, 'token').map(({ outcome }) => outcome)).toEqual([
      'invalid_client',
      'issued',
      'invalid_client',
      'issued',
    ]);
  });

  test('at Zoom first, the token in hand is served and the next one is minted once the new secret is told', async () => {
    const app = await registerApp(server, 'SERVER_TO_SERVER');
    const tenantId = await createTenant(server);
    await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id });
    const { clientSecret } = control.rotateSecret(app.clientId);
    const input = { tenantId, credentialFor: 'INSTALLATION' };
    expect(await credential(server, input)).toMatchObject({ version: 1, warning: null });
    await runOut(tenantId);
    expect(await credential(server, input)).toMatchObject({ reason: 'APP_REJECTED' });
    await setSecret(app.id, clientSecret);
    expect(await credential(server, input)).toMatchObject({ __typename: 'Credential', version: 2 });
  });

  test('a former secret is not used once it is retired', async () => {
    const app = await registerApp(server, 'SERVER_TO_SERVER');
    const tenantId = await createTenant(server);
    await setSecret(app.id, 'a-secret-that-zoom-does-not-know', new Date(Date.now() + 500).toISOString());
    await new Promise((resolve) => setTimeout(resolve, 700));
    expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
      __typename: 'RefusedByProviderError',
    });
    expect(journalOf(server, app, 'token')).toMatchObject([{ outcome: 'invalid_client' }]);
  });
});

test("another account than the app's is refused by Zoom, and nothing is stored", async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  expect(await connectServer({ tenantId, appId: app.id, providerAccountId: globex.id })).toMatchObject({
    __typename: 'RefusedByProviderError',
  });
  expect(tokenRequests(server, app)).toBe(1);
  expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  expect(await healthEventsOf(server, tenantId)).toEqual([]);
});

test('a token that speaks for another account than was named is not kept', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  const body = JSON.stringify({ id: 'someone', account_id: globex.id });
  control.addFault({
    route: 'users',
    clientId: app.clientId,
    fault: { kind: 'body', status: 200, contentType: 'application/json', body },
  });
  expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
    __typename: 'RefusedByProviderError',
  });
  expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
});

test('a wrong client secret is refused, and nothing is stored', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  control.rotateSecret(app.clientId);
  expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
    __typename: 'RefusedByProviderError',
  });
  expect(tokenRequests(server, app)).toBe(1);
  expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
});

test('an app that people consent to cannot be connected this way, and the answer says how it can', async () => {
  const tenantId = await createTenant(server);
  for (const [kind, instead] of [
    ['USER_MANAGED', 'beginAuthorization'],
    ['ADMIN_MANAGED', 'beginInstallation'],
  ] as const) {
    const app = await registerApp(server, kind);
    expect(await connectServer({ tenantId, appId: app.id, providerAccountId: acme.id })).toMatchObject({
      __typename: 'InvalidInputError',
      path: ['input', 'appId'],
      message: expect.stringContaining(instead),
    });
    expect(tokenRequests(server, app)).toBe(0);
  }
});

test('what cannot be an account id is refused without asking Zoom', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  for (const providerAccountId of ['', ' ', 'a b', 'a\u0000', 'ü', 'x'.repeat(201)]) {
    expect(await connectServer({ tenantId, appId: app.id, providerAccountId })).toMatchObject({
      __typename: 'InvalidInputError',
      path: ['input', 'providerAccountId'],
    });
  }
  expect(tokenRequests(server, app)).toBe(0);
});

test('an unknown tenant or app is not found, and Zoom is not asked', async () => {
  const app = await registerApp(server, 'SERVER_TO_SERVER');
  const tenantId = await createTenant(server);
  const nobody = Buffer.from('ProviderApp:00000000-0000-4000-8000-000000000000').toString('base64url');
  for (const input of [
    { tenantId: 'org_nobody', appId: app.id },
    { tenantId, appId: nobody },
    { tenantId, appId: 'nonsense' },
  ]) {
    expect(await connectServer({ ...input, providerAccountId: acme.id })).toMatchObject({
      __typename: 'NotFoundError',
    });
  }
  expect(tokenRequests(server, app)).toBe(0);
});

test.each([
  ['500', { kind: 'status', status: 500 }, 'PROVIDER_UNAVAILABLE', 5],
  ['429', { kind: 'status', status: 429, headers: { 'retry-after': '7' } }, 'RATE_LIMITED', 7],
  ['a cut connection', { kind: 'drop' }, 'PROVIDER_UNAVAILABLE', 5],
  ['no JSON', { kind: 'body', status: 200, contentType: 'text/html', body: '<p>' }, 'PROVIDER_UNAVAILABLE', 5],
] as const)(
  'where Zoom answers %s the caller is told when to try again',
  async (_name, fault, reason, retryAfterSeconds) => {
    const app = await registerApp(server, 'SERVER_TO_SERVER');
    const tenantId = await createTenant(server);
    const input = { tenantId, appId: app.id, providerAccountId: acme.id };
    for (const route of ['token', 'users'] as const) {
      control.addFault({ route, clientId: app.clientId, fault });
      expect(await connectServer(input)).toMatchObject({
        __typename: 'ProviderUnavailableError',
        reason,
        retryAfterSeconds,
      });
      expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    }
    expect(await connectServer(input)).toMatchObject({ __typename: 'ConnectServerToServerSuccess' });
  },
);
