import { expectEqual, type Report, UnexpectedError } from './report.js';
import {
  ALERT_FIELDS,
  type Alert,
  type Cast,
  expectType,
  PRODUCT,
  type Props,
  type RegisteredApp,
  type Stage,
} from './stage.js';

const SCOPES = {
  ADMIN_MANAGED: ['user:read:user:admin', 'user:read:list_users:admin'],
  USER_MANAGED: ['user:read:user', 'meeting:read:list_meetings'],
} as const;

/** Everything before the first consent: reaching both sides, apps, a tenant, and the subscription that stays open. */
export async function playOpening(stage: Stage, report: Report): Promise<Props> {
  const cast = await report.step('The server and its Zoom sandbox answer', (tell) => reach(stage, tell));
  const apps = await report.step('Two apps: made at Zoom, registered here, URLs pasted there', async (tell) => ({
    adminApp: await makeApp(stage, 'ADMIN_MANAGED', tell),
    userApp: await makeApp(stage, 'USER_MANAGED', tell),
  }));
  const tenantId = await report.step('A tenant', (tell) => makeTenant(stage, tell));
  const alerts = await report.step('A subscription to its health, open from here to the end', async (tell) => {
    const opened = await stage.latchkey.subscribe<{ healthChanged: Alert }>(
      `subscription ($tenantId: String!) { healthChanged(tenantId: $tenantId) { ${ALERT_FIELDS} } }`,
      { tenantId },
    );
    tell('healthChanged over WebSocket (graphql-transport-ws)');
    return opened;
  });
  return { cast, ...apps, tenantId, alerts };
}

async function reach(stage: Stage, tell: (line: string) => void): Promise<Cast> {
  const ready = await fetch(`${stage.url}/readyz`, { signal: AbortSignal.timeout(10_000) });
  expectEqual('status of /readyz', ready.status, 200);
  const { viewer } = await stage.latchkey.run<{ viewer: { kind: string; permissions: string[] } }>(
    '{ viewer { kind permissions } }',
  );
  expectEqual('kind of our key', viewer.kind, 'SERVER_KEY');
  tell(`${stage.url}: our key is a ${viewer.kind} with ${viewer.permissions.length} permissions`);

  const users = await stage.zoom.users();
  const admin = users.find(({ role }) => role !== 'Member');
  const [ben, cleo] = users.filter(({ role, accountId }) => role === 'Member' && accountId === admin?.accountId);
  if (admin === undefined || ben === undefined || cleo === undefined) {
    throw new UnexpectedError('people at the sandbox', 'an admin and two members of one account', users.length);
  }
  tell(
    `${stage.sandboxUrl}: ${users.length} people, among them ${[admin, ben, cleo].map((user) => user.displayName).join(', ')}`,
  );
  return { admin, ben, cleo };
}

/** Makes an app as a developer does in the Marketplace, and carries its secrets in and its URLs back. */
async function makeApp(stage: Stage, kind: keyof typeof SCOPES, tell: (line: string) => void): Promise<RegisteredApp> {
  const { latchkey, zoom, runId } = stage;
  const name = `Demo ${kind === 'ADMIN_MANAGED' ? 'admin' : 'user'} app ${runId}`;
  const usage = kind === 'ADMIN_MANAGED' ? 'ADMIN_MANAGEMENT' : 'USER_OPERATION';
  const { clientId, clientSecret, webhookSecret } = await zoom.createApp({ name, usage, scopes: SCOPES[kind] });
  const registered = await latchkey.mutate<{ providerApp: RegisteredApp & { webhookUrl: string } }>(
    'registerProviderApp',
    { name, kind, clientId, clientSecret, webhookSecret, scopes: SCOPES[kind].map((scope) => ({ name: scope })) },
    'providerApp { id redirectUri webhookUrl clientId }',
  );
  const { providerApp } = expectType('registerProviderApp', registered, 'RegisterProviderAppSuccess');
  const { id, redirectUri, webhookUrl } = providerApp;
  await zoom.pasteUrls(clientId, { redirectUri, webhookUrl });
  expectEqual('Zoom validates the webhook URL', await zoom.validateWebhook(clientId), true);
  const { app } = await latchkey.run<{ app: { webhookValidatedAt: string | null } | null }>(
    'query ($id: ID!) { app: providerApp(id: $id) { webhookValidatedAt } }',
    { id },
  );
  expectEqual('webhookValidatedAt is set', typeof app?.webhookValidatedAt, 'string');
  tell(`${kind}, client id ${clientId}`);
  tell(`  redirect URI ${new URL(redirectUri).pathname}, webhook ${new URL(webhookUrl).pathname} (validated by Zoom)`);
  return { id, clientId, redirectUri };
}

async function makeTenant({ latchkey, runId }: Stage, tell: (line: string) => void): Promise<string> {
  const externalId = `org_demo_${runId}`;
  const created = await latchkey.mutate<{ tenant: { externalId: string; key: { version: number } } }>(
    'createTenant',
    { externalId, name: `Demo ${runId}`, allowedOrigins: [PRODUCT] },
    'tenant { externalId key { version } }',
  );
  const { tenant } = expectType('createTenant', created, 'CreateTenantSuccess');
  expectEqual('externalId', tenant.externalId, externalId);
  tell(`${externalId}, with an encryption key of its own (version ${tenant.key.version})`);
  return externalId;
}
