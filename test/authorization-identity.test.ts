import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import {
  healthEventsOf,
  journalOf,
  NOTHING_STORED,
  sessionOf,
  storedOf,
  tokenRequests,
  tripWithCode,
} from './support/consent-trip.js';
import { until } from './support/until.js';
import { startTestServer } from './support/server.js';
import {
  ADMIN_SCOPES,
  complete,
  connect,
  createTenant,
  credential,
  registerApp,
  sandboxUser,
  type RegisteredApp,
} from './support/story.js';

const server = await startTestServer();
const { control } = server.sandbox;
const [ben, cleo] = [sandboxUser(server, 'Member', 0), sandboxUser(server, 'Member', 1)];
const ada = sandboxUser(server, 'Admin');
const abroad = control.users().filter(({ accountId }) => accountId !== ada.accountId);
const [gina, hugo] = [abroad.find(({ role }) => role !== 'Member')!, abroad.find(({ role }) => role === 'Member')!];

/** Zoom no longer knows a grant of the app, and nothing waits to be revoked. */
async function expectRevoked(app: RegisteredApp, tenantId: string): Promise<void> {
  const entry = await control.waitFor(
    ({ clientId, route, status }) => clientId === app.clientId && route === 'revoke' && status === 200,
  );
  expect(entry).toMatchObject({ outcome: 'revoked', authentication: 'basic' });
  expect(control.grants().filter(({ clientId }) => clientId === app.clientId)).toEqual([]);
  await expect.poll(() => storedOf(server, tenantId).then(({ revocations }) => revocations)).toBe(0);
}

const asUser = (tenantId: string, app: RegisteredApp, userId = 'user_1') => ({ tenantId, userId, appId: app.id });
const ofUser = (tenantId: string, userId = 'user_1') => ({ tenantId, userId, credentialFor: 'USER' });

/** Who Zoom says a credential speaks for. */
async function speaksFor(input: Record<string, unknown>): Promise<string> {
  const answer = (await credential(server, input)) as { apiUrl: string; accessToken: string };
  const me = await fetch(`${answer.apiUrl}/v2/users/me`, {
    headers: { authorization: `Bearer ${answer.accessToken}` },
  });
  return ((await me.json()) as { id: string }).id;
}

describe('the identity behind the tokens', () => {
  test.each([
    ['500', { kind: 'status', status: 500 }, 'PROVIDER_UNAVAILABLE'],
    ['429', { kind: 'status', status: 429 }, 'PROVIDER_UNAVAILABLE'],
    ['a cut connection', { kind: 'drop' }, 'PROVIDER_UNAVAILABLE'],
    ['no JSON', { kind: 'body', status: 200, contentType: 'text/html', body: '<p>' }, 'PROVIDER_UNAVAILABLE'],
    [
      'no account',
      { kind: 'body', status: 200, contentType: 'application/json', body: '{"id":"x"}' },
      'PROVIDER_UNAVAILABLE',
    ],
    ['a refused token', { kind: 'status', status: 401, body: { code: 124 } }, 'CODE_REJECTED'],
  ] as const)(
    'where it cannot be read (%s) the tokens are revoked and nothing is stored',
    async (_name, fault, failure) => {
      const app = await registerApp(server, 'USER_MANAGED');
      const tenantId = await createTenant(server);
      const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
      control.addFault({ route: 'users', clientId: app.clientId, fault });
      expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'FAILED', failure, grant: null });
      expect(await sessionOf(server, trip)).toEqual({ status: 'FAILED', failure, grant: null });
      await expectRevoked(app, tenantId);
      expect(tokenRequests(server, app)).toBe(1);
      expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    },
  );

  test('an app without a scope to ask who consented cannot be connected, and keeps no tokens', async () => {
    const app = await registerApp(server, 'USER_MANAGED', ['meeting:read:list_meetings']);
    const tenantId = await createTenant(server);
    expect(await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id)).toMatchObject({
      status: 'FAILED',
      failure: 'CODE_REJECTED',
    });
    await expectRevoked(app, tenantId);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test('a revocation that fails waits, sealed, and is made good', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const { connectCode } = await tripWithCode(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    control.addFault({ route: 'users', clientId: app.clientId, fault: { kind: 'status', status: 500 } });
    control.addFault({ route: 'revoke', clientId: app.clientId, fault: { kind: 'status', status: 503 } });
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'FAILED' });
    await control.waitFor(
      ({ clientId, route, status }) => clientId === app.clientId && route === 'revoke' && status === 503,
    );
    expect((await storedOf(server, tenantId)).revocations).toBe(1);
    expect(control.grants().filter(({ clientId }) => clientId === app.clientId)).toHaveLength(1);
    const advance = () =>
      server.db.query(sql`
        UPDATE provider_revocation SET next_attempt_at = now()
        WHERE attempts = 1 AND next_attempt_at > now()
          AND tenant_id = (SELECT id FROM tenant WHERE external_id = ${tenantId})`);
    await expect
      .poll(() => advance().then(() => journalOf(server, app, 'revoke').length), { timeout: 15_000, interval: 200 })
      .toBe(2);
    await expectRevoked(app, tenantId);
  });

  test("a user outside the installation's account is refused and their tokens are revoked", async () => {
    const [adminApp, userApp] = [await registerApp(server, 'ADMIN_MANAGED'), await registerApp(server, 'USER_MANAGED')];
    const tenantId = await createTenant(server);
    await connect(server, 'beginInstallation', asUser(tenantId, adminApp, 'admin_1'), ada.id);
    expect(await connect(server, 'beginAuthorization', asUser(tenantId, userApp), hugo.id)).toMatchObject({
      status: 'FAILED',
      failure: 'ACCOUNT_MISMATCH',
      grant: null,
    });
    await expectRevoked(userApp, tenantId);
    expect(tokenRequests(server, userApp)).toBe(1);
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
    expect(await credential(server, ofUser(tenantId))).toMatchObject({ __typename: 'GrantNotFoundError' });
    expect((await healthEventsOf(server, tenantId)).map(({ reason }) => reason)).toEqual(['CONNECTED']);
    // A colleague of the administrator is welcome.
    expect(await connect(server, 'beginAuthorization', asUser(tenantId, userApp), ben.id)).toMatchObject({
      status: 'COMPLETED',
    });
  });

  test('a tenant with two installations takes users of either account', async () => {
    const [adminApp, userApp] = [await registerApp(server, 'ADMIN_MANAGED'), await registerApp(server, 'USER_MANAGED')];
    const tenantId = await createTenant(server);
    for (const admin of [ada, gina]) {
      const installed = await connect(server, 'beginInstallation', asUser(tenantId, adminApp, 'admin_1'), admin.id);
      expect(installed).toMatchObject({ status: 'COMPLETED', grant: { providerAccountId: admin.accountId } });
    }
    for (const [userId, user] of [
      ['user_1', ben],
      ['user_2', hugo],
    ] as const) {
      const authorized = await connect(server, 'beginAuthorization', asUser(tenantId, userApp, userId), user.id);
      expect(authorized).toMatchObject({ status: 'COMPLETED', grant: { providerAccountId: user.accountId } });
    }
  });

  test('once the installation is disconnected its account no longer binds', async () => {
    const [adminApp, userApp] = [await registerApp(server, 'ADMIN_MANAGED'), await registerApp(server, 'USER_MANAGED')];
    const tenantId = await createTenant(server);
    const installed = await connect(server, 'beginInstallation', asUser(tenantId, adminApp, 'admin_1'), ada.id);
    await server.data(
      `mutation ($input: RevokeInstallationInput!) {
        revokeInstallation(input: $input) { ... on RevokeInstallationSuccess { installation { id } } }
      }`,
      { input: { id: installed.grant.id } },
    );
    expect(await connect(server, 'beginAuthorization', asUser(tenantId, userApp), hugo.id)).toMatchObject({
      status: 'COMPLETED',
    });
  });
});

describe('connecting again', () => {
  test('the same person keeps the grant, with a new version of the credential', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const first = await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    const second = await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    expect(second.grant).toMatchObject({
      id: first.grant.id,
      health: { status: 'HEALTHY' },
      credentialInfo: { version: 2 },
    });
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
    expect(await speaksFor(ofUser(tenantId))).toBe(ben.id);
    expect(journalOf(server, app, 'revoke')).toEqual([]);
  });

  test('an installation of the same account by another administrator keeps the grant', async () => {
    const app = await registerApp(server, 'ADMIN_MANAGED');
    const tenantId = await createTenant(server);
    const other = control.createUser({ email: 'otto@acme.example', displayName: 'Otto Olsen', role: 'Owner' });
    const first = await connect(server, 'beginInstallation', asUser(tenantId, app, 'admin_1'), ada.id);
    const second = await connect(server, 'beginInstallation', asUser(tenantId, app, 'admin_2'), other.id);
    expect(second).toMatchObject({
      status: 'COMPLETED',
      grant: { id: first.grant.id, credentialInfo: { version: 2 } },
    });
    expect(await speaksFor({ tenantId, credentialFor: 'INSTALLATION' })).toBe(other.id);
  });

  test('another Zoom user is refused, revoked, and the connection that was there goes on working', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const first = await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    expect(await connect(server, 'beginAuthorization', asUser(tenantId, app), cleo.id)).toMatchObject({
      status: 'FAILED',
      failure: 'IDENTITY_CHANGED',
      grant: null,
    });
    await control.waitFor(
      ({ clientId, route, status }) => clientId === app.clientId && route === 'revoke' && status === 200,
    );
    expect(
      control
        .grants()
        .filter(({ clientId }) => clientId === app.clientId)
        .map(({ userId }) => userId),
    ).toEqual([ben.id]);
    expect(await speaksFor(ofUser(tenantId))).toBe(ben.id);
    expect(await credential(server, ofUser(tenantId))).toMatchObject({ version: 1, grant: { id: first.grant.id } });
    expect((await healthEventsOf(server, tenantId)).map(({ reason }) => reason)).toEqual(['CONNECTED']);
  });

  test('another Zoom user takes over where that was allowed', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const first = await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    const allowing = { ...asUser(tenantId, app), allowIdentityChange: true };
    const second = await connect(server, 'beginAuthorization', allowing, cleo.id);
    expect(second).toMatchObject({
      status: 'COMPLETED',
      grant: { id: first.grant.id, credentialInfo: { version: 2 } },
    });
    expect(await speaksFor(ofUser(tenantId))).toBe(cleo.id);
    // The former user's grant must not live on at Zoom where nobody sees it.
    await until(() => journalOf(server, app, 'revoke').length > 0);
    expect(journalOf(server, app, 'revoke')).toMatchObject([{ status: 200 }]);
    expect(await speaksFor(ofUser(tenantId))).toBe(cleo.id);
  });

  test('after a disconnection anyone of the account may be connected: nobody is replaced', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const first = await connect(server, 'beginAuthorization', asUser(tenantId, app), ben.id);
    await server.data(
      `mutation ($input: RevokeUserConnectionInput!) {
        revokeUserConnection(input: $input) { ... on RevokeUserConnectionSuccess { userConnection { id } } }
      }`,
      { input: { id: first.grant.id } },
    );
    const second = await connect(server, 'beginAuthorization', asUser(tenantId, app), cleo.id);
    expect(second).toMatchObject({ status: 'COMPLETED', grant: { id: first.grant.id, health: { status: 'HEALTHY' } } });
    expect(await speaksFor(ofUser(tenantId))).toBe(cleo.id);
  });

  test('two users of a tenant are two connections', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    await connect(server, 'beginAuthorization', asUser(tenantId, app, 'user_1'), ben.id);
    await connect(server, 'beginAuthorization', asUser(tenantId, app, 'user_2'), cleo.id);
    expect(await speaksFor(ofUser(tenantId, 'user_1'))).toBe(ben.id);
    expect(await speaksFor(ofUser(tenantId, 'user_2'))).toBe(cleo.id);
  });
});

describe('one Zoom user in two places', () => {
  test('the second connection supersedes the first, whose owner is told', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const [here, there] = [await createTenant(server), await createTenant(server)];
    const first = await connect(server, 'beginAuthorization', asUser(here, app), ben.id);
    const second = await connect(server, 'beginAuthorization', asUser(there, app, 'someone'), ben.id);
    expect(second).toMatchObject({
      status: 'COMPLETED',
      grant: { health: { status: 'HEALTHY', reason: 'CONNECTED' } },
    });
    expect(await healthEventsOf(server, here)).toEqual([
      { previous: null, current: 'HEALTHY', reason: 'CONNECTED', grant: { id: first.grant.id } },
      { previous: 'HEALTHY', current: 'REAUTHORIZATION_REQUIRED', reason: 'SUPERSEDED', grant: { id: first.grant.id } },
    ]);
    expect((await healthEventsOf(server, there)).map(({ reason }) => reason)).toEqual(['CONNECTED']);
    expect(await credential(server, ofUser(here))).toMatchObject({
      __typename: 'ReauthorizationRequiredError',
      reason: 'SUPERSEDED',
      grant: { id: first.grant.id },
    });
    expect(await speaksFor(ofUser(there, 'someone'))).toBe(ben.id);
    // The dead tokens are not revoked: that would end the connection that replaced them.
    expect(journalOf(server, app, 'revoke')).toEqual([]);
  });

  test('the same user of two apps has two connections', async () => {
    const [app, other] = [await registerApp(server, 'USER_MANAGED'), await registerApp(server, 'USER_MANAGED')];
    const [here, there] = [await createTenant(server), await createTenant(server)];
    await connect(server, 'beginAuthorization', asUser(here, app), ben.id);
    await connect(server, 'beginAuthorization', asUser(there, other), ben.id);
    expect(await speaksFor(ofUser(here))).toBe(ben.id);
    expect(await speaksFor(ofUser(there))).toBe(ben.id);
  });

  test('a refused completion has killed the older tokens all the same, and their owner is told', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const adminApp = await registerApp(server, 'ADMIN_MANAGED', ADMIN_SCOPES);
    const [here, there] = [await createTenant(server), await createTenant(server)];
    const first = await connect(server, 'beginAuthorization', asUser(here, app), hugo.id);
    await connect(server, 'beginInstallation', asUser(there, adminApp, 'admin_1'), ada.id);
    expect(await connect(server, 'beginAuthorization', asUser(there, app), hugo.id)).toMatchObject({
      status: 'FAILED',
      failure: 'ACCOUNT_MISMATCH',
    });
    expect((await healthEventsOf(server, here)).slice(0, 2)).toEqual([
      { previous: null, current: 'HEALTHY', reason: 'CONNECTED', grant: { id: first.grant.id } },
      { previous: 'HEALTHY', current: 'REAUTHORIZATION_REQUIRED', reason: 'SUPERSEDED', grant: { id: first.grant.id } },
    ]);
    expect(await credential(server, ofUser(here))).toMatchObject({ __typename: 'ReauthorizationRequiredError' });
    await expectRevoked(app, there);
    expect(await connect(server, 'beginAuthorization', asUser(here, app), hugo.id)).toMatchObject({
      status: 'COMPLETED',
      grant: { id: first.grant.id },
    });
    expect(await speaksFor(ofUser(here))).toBe(hugo.id);
  });
});
