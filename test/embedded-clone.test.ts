import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sql from 'sql-template-tag';
import { afterAll, expect, test, vi } from 'vitest';
import { systemClock } from '../src/clock.js';
import { readConfig } from '../src/config.js';
import { openEmbedded } from '../src/database/embedded.js';
import { startLatchkey } from '../src/latchkey.js';
import { createLog } from '../src/log.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { runCli } from './support/cli.js';
import { createZoomUser } from './support/connections.js';
import { clientOf } from './support/process.js';
import { TEST_ADMIN_KEY } from './support/server.js';
import { connect, createTenant, credential, registerApp } from './support/story.js';
import { until } from './support/until.js';

// Starts three servers one after the other, and a command.
vi.setConfig({ testTimeout: 180_000 });

const base = await mkdtemp(join(tmpdir(), 'latchkey-clone-'));
afterAll(() => rm(base, { recursive: true, force: true }));
const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());

const rootKey = randomBytes(32).toString('base64');
const settingsOf = (folder: string) => ({
  LATCHKEY_DATA_DIR: join(base, folder),
  LATCHKEY_ROOT_KEY: rootKey,
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
});

/** Starts the whole server on a folder, which nobody else may look into until it is closed. */
async function start(folder: string) {
  const logs: string[] = [];
  const log = createLog('info', { write: (line) => void logs.push(line) });
  const latchkey = await startLatchkey(readConfig({ PORT: '0', ...settingsOf(folder) }), log);
  const server = { listening: Promise.resolve(latchkey.url), kill: () => void latchkey.close() };
  const client = await clientOf(server, { sandbox, db: undefined as never });
  return { client, logs, close: latchkey.close };
}

/** Works on the database of a server that is stopped. */
async function change(folder: string, ...statements: ReturnType<typeof sql>[]): Promise<void> {
  const db = await openEmbedded(join(base, folder));
  for (const statement of statements) await db.query(statement);
  await db.close();
}

const USERS = ['expired', 'due', 'fresh'] as const;

/** A server that has three connections, stopped. One token has run out, and two are to be refreshed at once. */
async function leaveOrigin() {
  const { client, close } = await start('origin');
  const app = await registerApp(client, 'USER_MANAGED');
  const tenantId = await createTenant(client);
  for (const userId of USERS) {
    await connect(client, 'beginAuthorization', { tenantId, userId, appId: app.id }, createZoomUser(client));
  }
  await close();
  await change(
    'origin',
    sql`UPDATE credential SET next_refresh_at = now() - interval '1 second' WHERE grant_id IN (
      SELECT id FROM provider_grant WHERE external_user_id IN ('expired', 'due'))`,
    sql`UPDATE credential SET issued_at = now() - interval '1 hour', expires_at = now() - interval '1 second'
      WHERE grant_id IN (SELECT id FROM provider_grant WHERE external_user_id = 'expired')`,
    sql`UPDATE credential SET next_probe_at = now() - interval '1 second'`,
    sql`UPDATE deployment SET alive_at = now() - interval '1 minute'`,
  );
  const input = (userId: (typeof USERS)[number]) => ({ tenantId, credentialFor: 'USER', userId });
  return { app, input };
}

test('a copied data folder asks nothing of the provider until it is adopted; then tokens are probed before any is refreshed, and one refresh goes before the others', async () => {
  const { app, input } = await leaveOrigin();
  await cp(join(base, 'origin'), join(base, 'copy'), { recursive: true });
  const before = sandbox.control.journal().length;

  const { client: quarantined, ...clone } = await start('copy');
  expect(await (await fetch(`${quarantined.url}/readyz`)).json()).toEqual({ ready: false, quarantined: true });
  expect(await credential(quarantined, input('fresh'))).toMatchObject({ __typename: 'Credential' });
  expect(await credential(quarantined, input('expired'))).toMatchObject({ __typename: 'ProviderUnavailableError' });
  // Long enough for the jobs that refresh and probe to have had their turn.
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(clone.logs.join('')).toMatch(/"reason":"other_database".*quarantine/);
  await clone.close();
  expect(sandbox.control.journal()).toHaveLength(before);

  const adopted = await runCli(['adopt', '--json'], settingsOf('copy'));
  expect(adopted.json()).toMatchObject({ adopted: true, mismatch: 'other_database', canaries: 1 });
  const { client, logs, close } = await start('copy');
  const asked = () =>
    sandbox.control
      .journal()
      .slice(before)
      .filter(({ clientId }) => clientId === app.clientId);
  const refreshes = () => asked().filter(({ grantType }) => grantType === 'refresh_token');
  await until(() => refreshes().filter(({ status }) => status === 200).length >= 2);
  const routes = asked().map(({ route }) => route);
  // The two tokens that had not run out; the third says nothing by itself.
  expect(routes.slice(0, 2)).toEqual(['users', 'users']);
  expect(routes.slice(2)).not.toContain('users');
  expect(logs.join('')).toContain('the first refresh after the restore worked; those of the app follow');
  expect(await (await fetch(`${client.url}/readyz`)).json()).toEqual({ ready: true });
  for (const userId of USERS)
    expect(await credential(client, input(userId))).toMatchObject({ __typename: 'Credential' });
  await close();
});
