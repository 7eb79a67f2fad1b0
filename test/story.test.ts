import { expect, test } from 'vitest';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, sandboxUser } from './support/story.js';

const server = await startTestServer();

test('an admin installs, a user authorizes, and the backend gets a token that Zoom accepts', async () => {
  const adminApp = await registerApp(server, 'ADMIN_MANAGED');
  const userApp = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const admin = sandboxUser(server, 'Admin');
  const member = sandboxUser(server, 'Member');

  const installed = await connect(
    server,
    'beginInstallation',
    { tenantId, userId: 'admin_1', appId: adminApp.id },
    admin.id,
  );
  expect(installed).toMatchObject({
    status: 'COMPLETED',
    grant: { __typename: 'Installation', health: { status: 'HEALTHY', reason: 'CONNECTED' } },
  });
  const authorized = await connect(
    server,
    'beginAuthorization',
    { tenantId, userId: 'user_1', appId: userApp.id },
    member.id,
  );
  expect(authorized).toMatchObject({ status: 'COMPLETED', grant: { __typename: 'UserConnection' } });

  for (const input of [
    { tenantId, credentialFor: 'INSTALLATION' },
    { tenantId, credentialFor: 'USER', userId: 'user_1' },
  ]) {
    const answer = await credential(server, input);
    expect(answer).toMatchObject({ __typename: 'Credential', tokenType: 'Bearer', version: 1, warning: null });
    const me = await fetch(`${answer.apiUrl}/v2/users/me`, {
      headers: { authorization: `Bearer ${answer.accessToken}` },
    });
    expect(me.status).toBe(200);
    expect(((await me.json()) as { id: string }).id).toBe(input.userId === undefined ? admin.id : member.id);
  }
});
