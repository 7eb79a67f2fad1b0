import sql from 'sql-template-tag';
import { beforeEach, describe, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import { createZoomUser } from './support/connections.js';
import { healthEventsOf, journalOf, NOTHING_STORED, storedOf, tokenRequests } from './support/consent-trip.js';
import { importTokens, obtainElsewhere, worksElsewhere } from './support/outside-tokens.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, type RegisteredApp, sandboxUser } from './support/story.js';

const server = await startTestServer();
const { control } = server.sandbox;
const ada = sandboxUser(server, 'Admin');
const foreigner = control.users().find(({ accountId, role }) => accountId !== ada.accountId && role === 'Member')!;

beforeEach(() => control.setKnobs(DEFAULT_KNOBS));

async function userSetting() {
  const [app, tenantId, zoomUserId] = [
    await registerApp(server, 'USER_MANAGED'),
    await createTenant(server),
    createZoomUser(server),
  ];
  return { app, tenantId, zoomUserId, target: { tenantId, userId: 'user_1', appId: app.id } };
}

const refreshes = (app: RegisteredApp) =>
  journalOf(server, app, 'token').filter(({ grantType }) => grantType === 'refresh_token');

const reasonsOf = async (tenantId: string) => (await healthEventsOf(server, tenantId)).map(({ reason }) => reason);

async function meOf(input: Record<string, unknown>): Promise<string> {
  const { apiUrl, accessToken } = await credential(server, input);
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  return ((await me.json()) as { id: string }).id;
}

const ofUser = (tenantId: string) => ({ tenantId, userId: 'user_1', credentialFor: 'USER' });

describe('what is taken over', () => {
  test('the tokens of a user become a connection that works, and work nowhere else any more', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const tokens = await obtainElsewhere(server, app, zoomUserId);
    const answer = await importTokens(server, { ...target, ...tokens });
    expect(answer).toMatchObject({
      __typename: 'ImportGrantSuccess',
      grant: {
        __typename: 'UserConnection',
        externalUserId: 'user_1',
        providerAccountId: ada.accountId,
        providerUser: { providerUserId: zoomUserId },
        health: { status: 'HEALTHY', reason: 'CONNECTED' },
        missingScopes: [],
        credentialInfo: { version: 1, refreshTokenExpiresAt: expect.any(String) },
      },
    });
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
    expect(await reasonsOf(tenantId)).toEqual(['CONNECTED']);
    expect(refreshes(app)).toMatchObject([{ status: 200, authentication: 'basic', queryKeys: [] }]);
    expect(await worksElsewhere(server, app, tokens)).toBe(false);
  });

  test('without an access token, or with one that has expired, the refresh token alone proves itself', async () => {
    for (const accessToken of [undefined, null, 'expired.or.of.another.app']) {
      const { app, tenantId, zoomUserId, target } = await userSetting();
      const { refreshToken } = await obtainElsewhere(server, app, zoomUserId);
      const answer = await importTokens(server, { ...target, accessToken, refreshToken });
      expect(answer).toMatchObject({ grant: { providerUser: { providerUserId: zoomUserId } } });
      expect(refreshes(app)).toHaveLength(1);
      expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
    }
  });

  test("an administrator's tokens become an installation", async () => {
    const [app, tenantId] = [await registerApp(server, 'ADMIN_MANAGED'), await createTenant(server)];
    const tokens = await obtainElsewhere(server, app, ada.id);
    expect(await importTokens(server, { tenantId, appId: app.id, ...tokens })).toMatchObject({
      grant: {
        __typename: 'Installation',
        providerAccountId: ada.accountId,
        installedBy: { providerUserId: ada.id },
        health: { status: 'HEALTHY' },
      },
    });
    expect(await meOf({ tenantId, credentialFor: 'INSTALLATION' })).toBe(ada.id);
  });

  test('an imported connection is refreshed like any other', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    await importTokens(server, { ...target, ...(await obtainElsewhere(server, app, zoomUserId)) });
    await server.db.query(sql`
      UPDATE credential SET expires_at = now() - interval '1 second'
      WHERE tenant_id = (SELECT id FROM tenant WHERE external_id = ${tenantId})`);
    expect(await credential(server, ofUser(tenantId))).toMatchObject({ __typename: 'Credential', version: 2 });
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
  });

  test('a provider that does not rotate leaves the imported refresh token good', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const { refreshToken } = await obtainElsewhere(server, app, zoomUserId);
    const { accessToken } = await obtainElsewhere(server, app, zoomUserId);
    const body = JSON.stringify({ access_token: accessToken, token_type: 'bearer', expires_in: 3600 });
    control.addFault({
      route: 'token',
      clientId: app.clientId,
      grantType: 'refresh_token',
      fault: { kind: 'body', status: 200, contentType: 'application/json', body },
    });
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject({
      grant: { health: { status: 'HEALTHY' }, credentialInfo: { version: 1 } },
    });
    expect((await credential(server, ofUser(tenantId))).scopes).toEqual(app.atZoom.scopes.map(({ scope }) => scope));
  });

  test('a required scope that was not granted is told, and the connection is kept', async () => {
    const { app, zoomUserId, target } = await userSetting();
    const tokens = await obtainElsewhere(server, app, zoomUserId);
    const scopes = ['user:read:user', 'meeting:read:list_meetings', 'meeting:write:meeting'];
    await server.data(
      `mutation ($input: UpdateProviderAppInput!) {
        updateProviderApp(input: $input) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
      }`,
      { input: { id: app.id, scopes: scopes.map((name) => ({ name })) } },
    );
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({
      grant: {
        health: { status: 'DEGRADED', reason: 'SCOPES_MISSING' },
        missingScopes: [{ name: 'meeting:write:meeting' }],
      },
    });
  });
});

describe('who is connected already', () => {
  test('the same person keeps the grant, with a new version of the credential', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const first = await connect(server, 'beginAuthorization', target, zoomUserId);
    const tokens = await obtainElsewhere(server, app, zoomUserId);
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({
      grant: { id: first.grant.id, health: { status: 'HEALTHY' }, credentialInfo: { version: 2 } },
    });
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
    expect(journalOf(server, app, 'revoke')).toEqual([]);
  });

  test('the same tokens twice are refused the second time, and harm nothing', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const tokens = await obtainElsewhere(server, app, zoomUserId);
    await importTokens(server, { ...target, ...tokens });
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({
      __typename: 'RefusedByProviderError',
    });
    expect(await reasonsOf(tenantId)).toEqual(['CONNECTED']);
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
  });

  test('of twenty imports of the same tokens at once exactly one succeeds', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const { refreshToken } = await obtainElsewhere(server, app, zoomUserId);
    const answers = await Promise.all(
      Array.from({ length: 20 }, () => importTokens(server, { ...target, refreshToken })),
    );
    expect(answers.filter(({ __typename }) => __typename === 'ImportGrantSuccess')).toHaveLength(1);
    expect(answers.filter(({ __typename }) => __typename === 'RefusedByProviderError')).toHaveLength(19);
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
  });

  test('a connection of the same Zoom user elsewhere is superseded, and its owner is told', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const there = await createTenant(server);
    await connect(server, 'beginAuthorization', { ...target, tenantId: there }, zoomUserId);
    await importTokens(server, { ...target, ...(await obtainElsewhere(server, app, zoomUserId)) });
    expect(await reasonsOf(there)).toEqual(['CONNECTED', 'SUPERSEDED']);
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
  });

  test('another person than is connected is refused before anything is spent', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    await connect(server, 'beginAuthorization', target, zoomUserId);
    const tokens = await obtainElsewhere(server, app, createZoomUser(server));
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({
      __typename: 'GrantRefusedError',
      failure: 'IDENTITY_CHANGED',
    });
    expect(refreshes(app)).toEqual([]);
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
    expect(await worksElsewhere(server, app, tokens)).toBe(true);
  });

  test('found out only after the refresh, another person is refused and their tokens are revoked', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    await connect(server, 'beginAuthorization', target, zoomUserId);
    const other = createZoomUser(server);
    const { refreshToken } = await obtainElsewhere(server, app, other);
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject({ failure: 'IDENTITY_CHANGED' });
    await expect.poll(() => journalOf(server, app, 'revoke')).toMatchObject([{ status: 200, outcome: 'revoked' }]);
    expect(control.grants().filter(({ userId }) => userId === other)).toEqual([]);
    expect(await meOf(ofUser(tenantId))).toBe(zoomUserId);
    expect(await reasonsOf(tenantId)).toEqual(['CONNECTED']);
  });

  test("a user outside the installation's account is refused, with and without an access token", async () => {
    const { app, tenantId, target } = await userSetting();
    const adminApp = await registerApp(server, 'ADMIN_MANAGED');
    await connect(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: adminApp.id }, ada.id);
    const tokens = await obtainElsewhere(server, app, foreigner.id);
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({ failure: 'ACCOUNT_MISMATCH' });
    expect(refreshes(app)).toEqual([]);
    const { refreshToken } = tokens;
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject({ failure: 'ACCOUNT_MISMATCH' });
    await expect.poll(() => journalOf(server, app, 'revoke')).toMatchObject([{ status: 200 }]);
    expect(await storedOf(server, tenantId)).toMatchObject({ grants: 1, credentials: 1 });
  });

  test('an access token and a refresh token of two people are refused, and revoked', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const { accessToken } = await obtainElsewhere(server, app, zoomUserId);
    const { refreshToken } = await obtainElsewhere(server, app, createZoomUser(server));
    expect(await importTokens(server, { ...target, accessToken, refreshToken })).toMatchObject({
      __typename: 'InvalidInputError',
      path: ['input', 'accessToken'],
    });
    await expect.poll(() => journalOf(server, app, 'revoke')).toMatchObject([{ status: 200 }]);
    await expect.poll(() => storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });
});

describe('what is refused', () => {
  test('an app that the rest of the input does not go with is named, with what to do instead', async () => {
    const tenantId = await createTenant(server);
    for (const [kind, userId, hint] of [
      ['SERVER_TO_SERVER', undefined, /connectServerToServer/],
      ['SERVER_TO_SERVER', 'user_1', /connectServerToServer/],
      ['ADMIN_MANAGED', 'user_1', /leave out userId/],
      ['USER_MANAGED', undefined, /give userId/],
    ] as const) {
      const app = await registerApp(server, kind);
      const answer = await importTokens(server, { tenantId, userId, appId: app.id, refreshToken: 'anything' });
      expect(answer).toMatchObject({ __typename: 'InvalidInputError', path: ['input', 'appId'] });
      expect(answer.message).toMatch(hint);
      expect(tokenRequests(server, app)).toBe(0);
    }
  });

  test('what cannot be a token or a user id is refused without asking Zoom, and is not repeated', async () => {
    const { app, target } = await userSetting();
    for (const [name, value] of [
      ['refreshToken', ''],
      ['refreshToken', 'with space'],
      ['refreshToken', 'x'.repeat(8193)],
      ['accessToken', 'line\nbreak'],
      ['userId', 'not an id'],
    ] as const) {
      const answer = await importTokens(server, { ...target, refreshToken: 'anything', [name]: value });
      expect(answer).toMatchObject({ __typename: 'InvalidInputError', path: ['input', name] });
      if (value !== '') expect(answer.message).not.toContain(value);
    }
    expect(control.journal().filter(({ clientId }) => clientId === app.clientId)).toEqual([]);
  });

  test('an unknown tenant or app is not found, and Zoom is not asked', async () => {
    const { app, target } = await userSetting();
    const nobody = Buffer.from('ProviderApp:00000000-0000-4000-8000-000000000000').toString('base64url');
    for (const patch of [{ tenantId: 'org_nobody' }, { appId: nobody }, { appId: 'nonsense' }]) {
      expect(await importTokens(server, { ...target, ...patch, refreshToken: 'anything' })).toMatchObject({
        __typename: 'NotFoundError',
      });
    }
    expect(tokenRequests(server, app)).toBe(0);
  });

  test('tokens that Zoom does not know, or issued to another app, are refused and nothing is stored', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const other = await registerApp(server, 'USER_MANAGED');
    const tokens = await obtainElsewhere(server, other, zoomUserId);
    for (const input of [{ refreshToken: 'made.up' }, tokens, { refreshToken: tokens.accessToken }]) {
      expect(await importTokens(server, { ...target, ...input })).toMatchObject({
        __typename: 'RefusedByProviderError',
      });
    }
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    expect(await healthEventsOf(server, tenantId)).toEqual([]);
    expect(await worksElsewhere(server, other, tokens)).toBe(true);
    expect(journalOf(server, app, 'revoke')).toEqual([]);
  });

  test('tokens that may not read whom they speak for are refused: before anything is spent, or revoked', async () => {
    const [app, tenantId] = [
      await registerApp(server, 'USER_MANAGED', ['meeting:read:list_meetings']),
      await createTenant(server),
    ];
    const target = { tenantId, userId: 'user_1', appId: app.id };
    const tokens = await obtainElsewhere(server, app, createZoomUser(server));
    const refusal = { __typename: 'RefusedByProviderError', message: expect.stringContaining('user:read:user') };
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject(refusal);
    expect(refreshes(app)).toEqual([]);
    const { refreshToken } = tokens;
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject(refusal);
    await expect.poll(() => journalOf(server, app, 'revoke')).toMatchObject([{ status: 200, outcome: 'revoked' }]);
    await expect.poll(() => storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test('a refused client secret opens one incident on the app and spends nothing', async () => {
    const { app, target, zoomUserId } = await userSetting();
    const tokens = await obtainElsewhere(server, app, zoomUserId);
    const { clientSecret } = control.rotateSecret(app.clientId);
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({
      __typename: 'RefusedByProviderError',
    });
    const [row] = await server.db.query<{ reason: string }>(sql`
      SELECT incident_reason AS reason FROM provider_app WHERE client_id = ${app.clientId}`);
    expect(row).toEqual({ reason: 'APP_REJECTED' });
    await server.data(
      `mutation ($input: UpdateProviderAppInput!) {
        updateProviderApp(input: $input) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
      }`,
      { input: { id: app.id, clientSecret } },
    );
    expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({ __typename: 'ImportGrantSuccess' });
  });

  test.each([
    ['500', { kind: 'status', status: 500 }, 'PROVIDER_UNAVAILABLE'],
    ['429', { kind: 'status', status: 429, headers: { 'retry-after': '7' } }, 'RATE_LIMITED'],
  ] as const)(
    'where Zoom answers %s before anything is spent, the call may be repeated',
    async (_name, fault, reason) => {
      const { app, target, zoomUserId } = await userSetting();
      const tokens = await obtainElsewhere(server, app, zoomUserId);
      for (const route of ['users', 'token'] as const) {
        control.addFault({ route, clientId: app.clientId, fault });
        const answer = await importTokens(server, { ...target, ...tokens });
        expect(answer).toMatchObject({ __typename: 'ProviderUnavailableError', reason });
        expect(answer.message).toContain('try again');
      }
      expect(await importTokens(server, { ...target, ...tokens })).toMatchObject({ __typename: 'ImportGrantSuccess' });
    },
  );

  test('where the answer to the refresh is lost nothing is stored, and a repeated call says that the token is dead', async () => {
    const { app, tenantId, zoomUserId, target } = await userSetting();
    const { refreshToken } = await obtainElsewhere(server, app, zoomUserId);
    control.addFault({ route: 'token', clientId: app.clientId, fault: { kind: 'drop', when: 'after' } });
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject({
      __typename: 'ProviderUnavailableError',
      reason: 'PROVIDER_UNAVAILABLE',
    });
    expect(await importTokens(server, { ...target, refreshToken })).toMatchObject({
      __typename: 'RefusedByProviderError',
    });
    expect(refreshes(app)).toHaveLength(2);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });
});
