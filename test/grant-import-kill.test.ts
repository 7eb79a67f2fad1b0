import { randomBytes } from 'node:crypto';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { createPostgresDatabase, databaseKind } from './support/database.js';
import { importTokens, obtainElsewhere } from './support/outside-tokens.js';
import { clientOf, spawnServer } from './support/process.js';
import { TEST_ADMIN_KEY } from './support/server.js';
import { createTenant, credential, registerApp, sandboxUser } from './support/story.js';
import { until } from './support/until.js';

// Starts processes, each of which loads everything anew.
vi.setConfig({ testTimeout: 60_000 });

const folder = await mkdtemp(join(tmpdir(), 'latchkey-import-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
afterAll(() => sandbox.close());
// The database is the other process's alone.
const parts = { sandbox, db: null as never };

test('a server that is killed with imported tokens in hand finishes the import when it starts again', async () => {
  const settings = {
    LATCHKEY_DATA_DIR: folder,
    ...(databaseKind === 'postgres' ? { DATABASE_URL: await createPostgresDatabase() } : {}),
    LATCHKEY_SANDBOX: '0',
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
    ZOOM_OAUTH_URL: sandbox.origin,
    ZOOM_API_URL: `${sandbox.origin}/v2`,
  };
  const first = spawnServer(settings);
  const before = await clientOf(first, parts);
  const app = await registerApp(before, 'USER_MANAGED');
  const tenantId = await createTenant(before);
  const ben = sandboxUser(before, 'Member');
  const { refreshToken } = await obtainElsewhere(before, app, ben.id);
  sandbox.control.addFault({ route: 'users', clientId: app.clientId, fault: { kind: 'hang', ms: 60_000 } });
  const answer = importTokens(before, { tenantId, userId: 'user_1', appId: app.id, refreshToken }).catch(() => null);
  await sandbox.control.waitFor(({ route, clientId }) => route === 'users' && clientId === app.clientId);
  first.kill('SIGKILL');
  await first.exited;
  expect(await answer).toBeNull();
  expect(await readdir(join(folder, 'spool'))).toHaveLength(1);

  const second = spawnServer(settings);
  const after = await clientOf(second, parts);
  const { apiUrl, accessToken } = await credential(after, { tenantId, userId: 'user_1', credentialFor: 'USER' });
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  expect(await me.json()).toMatchObject({ id: ben.id });
  await until(async () => (await readdir(join(folder, 'spool'))).length === 0);
  for (const output of [first.output(), second.output()]) expect(output).not.toContain('ZCANARY');
});
