import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { importTokens, obtainElsewhere } from './support/outside-tokens.js';
import { startTestServer, type TestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, sandboxUser } from './support/story.js';

const government = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
const commercial = await startTestServer({
  ZOOM_GOV_OAUTH_URL: government.origin,
  ZOOM_GOV_API_URL: `${government.origin}/v2`,
});
afterAll(() => government.close());

/** The same server, whose apps are made and registered at Zoom for Government. */
const server: TestServer = {
  ...commercial,
  sandbox: government,
  data: (query, variables) => {
    const input = (variables as { input?: object } | undefined)?.input;
    const isRegistration = query.includes('registerProviderApp(');
    return commercial.data(query, isRegistration ? { input: { ...input, environment: 'GOVERNMENT' } } : variables);
  },
};
const ada = sandboxUser(server, 'Admin');
const ben = sandboxUser(server, 'Member');

/** Everything that the commercial Zoom was asked. */
const askedElsewhere = () => commercial.sandbox.control.journal();

async function meOf(input: Record<string, unknown>): Promise<unknown> {
  const { apiUrl, accessToken } = await credential(server, input);
  expect(apiUrl).toBe(government.origin);
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  return ((await me.json()) as { id: string }).id;
}

test('an app of the government environment installs, connects, refreshes and revokes at its own hosts alone', async () => {
  const [adminApp, userApp] = [await registerApp(server, 'ADMIN_MANAGED'), await registerApp(server, 'USER_MANAGED')];
  const tenantId = await createTenant(server);
  const admin = { tenantId, userId: 'admin_1', appId: adminApp.id };
  expect(await connect(server, 'beginInstallation', admin, ada.id)).toMatchObject({ status: 'COMPLETED' });
  const user = { tenantId, userId: 'user_1', appId: userApp.id };
  const { grant } = await connect(server, 'beginAuthorization', user, ben.id);
  expect(await meOf({ tenantId, credentialFor: 'INSTALLATION' })).toBe(ada.id);
  const data = await server.data(
    `mutation ($id: ID!) {
      refreshGrant(input: { id: $id }) { ... on RefreshGrantSuccess { grant { credentialInfo { version } } } }
      revokeUserConnection(input: { id: $id }) { ... on RevokeUserConnectionSuccess { userConnection { id } } }
    }`,
    { id: grant.id },
  );
  expect(data.refreshGrant).toEqual({ grant: { credentialInfo: { version: 2 } } });
  await expect
    .poll(() => government.control.journal().filter(({ route }) => route === 'revoke'))
    .toMatchObject([{ status: 200 }]);
  expect(askedElsewhere()).toEqual([]);
});

test('server-to-server apps and imports go to the government hosts, too', async () => {
  const [serverApp, userApp] = [
    await registerApp(server, 'SERVER_TO_SERVER'),
    await registerApp(server, 'USER_MANAGED'),
  ];
  const tenantId = await createTenant(server);
  const { connectServerToServer } = await server.data(
    `mutation ($input: ConnectServerToServerInput!) { connectServerToServer(input: $input) { __typename } }`,
    { input: { tenantId, appId: serverApp.id, providerAccountId: serverApp.atZoom.accountId } },
  );
  expect(connectServerToServer).toEqual({ __typename: 'ConnectServerToServerSuccess' });
  const tokens = await obtainElsewhere(server, userApp, ben.id);
  expect(await importTokens(server, { tenantId, userId: 'user_1', appId: userApp.id, ...tokens })).toMatchObject({
    __typename: 'ImportGrantSuccess',
  });
  expect(await meOf({ tenantId, userId: 'user_1', credentialFor: 'USER' })).toBe(ben.id);
  expect(askedElsewhere()).toEqual([]);
});

test('an installation at one Zoom does not bind the users of the other', async () => {
  const tenantId = await createTenant(commercial);
  const adminApp = await registerApp(commercial, 'ADMIN_MANAGED');
  const admin = { tenantId, userId: 'admin_1', appId: adminApp.id };
  expect(await connect(commercial, 'beginInstallation', admin, sandboxUser(commercial, 'Admin').id)).toMatchObject({
    status: 'COMPLETED',
  });
  const userApp = await registerApp(server, 'USER_MANAGED');
  const user = { tenantId, userId: 'user_1', appId: userApp.id };
  expect(await connect(server, 'beginAuthorization', user, ben.id)).toMatchObject({ status: 'COMPLETED' });
});
