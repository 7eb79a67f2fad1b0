import { randomUUID } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { runCli, serverEnv, startCli } from './support/cli.js';
import { calls, createZoomUser } from './support/connections.js';
import { obtainElsewhere } from './support/outside-tokens.js';
import { startTestServer } from './support/server.js';
import { createTenant, registerApp, type RegisteredApp } from './support/story.js';
import { until } from './support/until.js';

const server = await startTestServer();
const env = serverEnv(server.url);
const folder = await mkdtemp(join(tmpdir(), 'latchkey-cli-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => runCli(args, env);

test('a new key is all that standard output gets; it works, is listed without its secret, and ends when revoked', async () => {
  const permissions = ['--permission', 'CONNECTIONS_READ', '--permission', 'TENANTS_WRITE'];
  const made = await cli('keys', 'create', '--name', 'deploy', ...permissions);
  expect(made).toMatchObject({ code: 0, stdout: expect.stringMatching(/^\S{32,}\n$/) });
  const key = made.stdout.trim();
  expect(made.stderr).not.toContain(key);
  const [asKey, list] = await Promise.all([
    runCli(['tenants', 'list'], { LATCHKEY_URL: server.url, LATCHKEY_API_KEY: key }),
    cli('--json', 'keys', 'list'),
  ]);
  expect(asKey.code).toBe(0);
  expect(list.stdout).not.toContain(key);
  const { id } = list.json().find(({ name }: { name: string }) => name === 'deploy');
  expect(await cli('keys', 'revoke', id)).toMatchObject({ code: 0, stdout: `revoked ${id}\n` });
  expect(await cli('keys', 'revoke', id)).toMatchObject({ code: 1, stderr: expect.stringContaining('NotFoundError') });
});

test('a tenant is made, listed, its key rotated, and deleted only when its identifier is repeated', async () => {
  const id = `org_${randomUUID()}`;
  const made = await cli('tenants', 'create', id, '--name', 'Acme', '--origin', 'https://acme.example', '--json');
  expect(made.json()).toMatchObject({ externalId: id, name: 'Acme', allowedOrigins: ['https://acme.example'] });
  expect((await cli('tenants', 'create', id)).stderr).toContain('AlreadyExistsError');
  const [list, rotated, unconfirmed] = await Promise.all([
    cli('tenants', 'list', '--json'),
    cli('rotate', 'tenant', id, '--json'),
    cli('tenants', 'delete', id),
  ]);
  expect(list.json().map(({ externalId }: { externalId: string }) => externalId)).toContain(id);
  expect(rotated.json()).toMatchObject({ tenantId: id, version: 2, pendingReseal: 0 });
  expect(unconfirmed).toMatchObject({ code: 2, stderr: expect.stringContaining(`--confirm ${id}`) });
  const deleted = await cli('tenants', 'delete', id, '--confirm', id, '--json');
  expect(deleted.json()).toMatchObject({ keysDestroyedAt: expect.any(String), revocation: { pending: 0 } });
});

test('what is wrong is said in a sentence, with exit code 1 for a refusal and 2 for the command line', async () => {
  const [wrongKey, nobody, noKey, unknown, incomplete, root] = await Promise.all([
    runCli(['keys', 'list'], { ...env, LATCHKEY_API_KEY: 'x'.repeat(40) }),
    runCli(['keys', 'list'], { ...env, LATCHKEY_URL: 'http://127.0.0.1:1' }),
    runCli(['keys', 'list'], { LATCHKEY_URL: server.url, LATCHKEY_DATA_DIR: folder }),
    cli('keis', 'list'),
    cli('keys', 'create', '--name', 'x'),
    cli('rotate', 'root', '--generate'),
  ]);
  expect(wrongKey).toMatchObject({ code: 1, stdout: '', stderr: expect.stringContaining('LATCHKEY_API_KEY') });
  expect(nobody).toMatchObject({ code: 1, stderr: expect.stringContaining('LATCHKEY_URL') });
  expect(noKey).toMatchObject({ code: 2, stderr: expect.stringContaining('LATCHKEY_API_KEY') });
  expect(unknown).toMatchObject({ code: 2, stderr: expect.stringContaining('Did you mean keys?') });
  expect(incomplete).toMatchObject({ code: 2, stderr: expect.stringContaining('--permission') });
  expect(Buffer.from(root.stdout, 'base64')).toHaveLength(32);
});

interface Line {
  tenantId: string;
  userId: string;
  appId: string;
  refreshToken: string;
  accessToken?: string;
}

/** Lines for so many Zoom users whose tokens another product holds. */
async function outsideLines(app: RegisteredApp, tenantId: string, count: number): Promise<Line[]> {
  const lines: Line[] = [];
  for (let index = 0; index < count; index += 1) {
    const { refreshToken, accessToken } = await obtainElsewhere(server, app, createZoomUser(server));
    lines.push({ tenantId, userId: `user_${index}`, appId: app.id, refreshToken, accessToken });
  }
  return lines;
}

async function write(lines: readonly (Line | string)[]): Promise<string> {
  const path = join(folder, `${randomUUID()}.jsonl`);
  await writeFile(path, lines.map((line) => (typeof line === 'string' ? line : JSON.stringify(line))).join('\n'));
  return path;
}

test('lines that are wrong are told by number, one message each and without what is in them; nothing is imported', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const good = { tenantId, userId: 'user_1', appId: app.id, refreshToken: 'secret-refresh-token' };
  const { refreshToken: _left, ...incomplete } = good;
  const path = await write([
    good,
    '{"refreshToken":"secret-refr',
    '',
    JSON.stringify(incomplete),
    JSON.stringify({ ...good, userId: 'user_2', extra: 'secret-extra' }),
    JSON.stringify({ ...good, userId: 7, refreshToken: 'secret with spaces' }),
    good,
  ]);
  const result = await cli('import', path);
  expect(result).toMatchObject({ code: 2, stdout: '' });
  expect(result.stderr.trim().split('\n')).toEqual([
    `${path}:2: not JSON`,
    `${path}:4: refreshToken must be text`,
    `${path}:5: 1 unknown fields`,
    `${path}:6: userId must be text, refreshToken is not a token of Zoom`,
    `${path}:7: the same connection as line 1`,
    'Nothing was imported.',
  ]);
  expect(result.stderr).not.toContain('secret');
  expect(calls(server, { app })).toEqual([]);
});

test('a dry run finds unknown tenants and apps, and asks nothing of Zoom', async () => {
  const [app, admin] = [await registerApp(server, 'USER_MANAGED'), await registerApp(server, 'ADMIN_MANAGED')];
  const tenantId = await createTenant(server);
  const line = { tenantId, userId: 'user_1', appId: app.id, refreshToken: 'made-up' };
  const path = await write([
    line,
    { ...line, tenantId: 'org_nobody' },
    { ...line, appId: 'QXBwOm5vYm9keQ' },
    { ...line, appId: admin.id },
  ]);
  const result = await cli('import', path, '--dry-run', '--json');
  expect(result.code).toBe(1);
  expect(result.json()).toEqual({
    lines: 4,
    problems: [
      { line: 2, error: 'no such tenant' },
      { line: 3, error: 'no such provider app' },
      { line: 4, error: 'the app is not for users' },
    ],
  });
  expect(calls(server, { app })).toEqual([]);
});

test('an import that is killed goes on where it was, and sends no token twice', { timeout: 60_000 }, async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const lines = await outsideLines(app, await createTenant(server), 6);
  const dead = { ...lines[0]!, userId: 'user_dead', refreshToken: 'dead-refresh-token' };
  delete dead.accessToken;
  const path = await write([...lines, dead]);
  // Zoom has answered the second refresh, and the import that asked for it has not been answered yet.
  const run = startCli(['import', path, '--concurrency', '1'], env);
  await until(() => calls(server, { app }).length >= 2);
  run.kill('SIGKILL');
  expect((await run.done).code).toBeNull();
  const again = await cli('import', path, '--json');
  expect(again.code).toBe(1);
  expect(again.json()).toMatchObject({
    lines: 7,
    imported: 6,
    refused: 1,
    failed: 0,
    problems: [{ line: 7, outcome: 'refused', error: expect.stringContaining('RefusedByProviderError') }],
  });
  expect(again.stderr).toContain(`${path}:7: refused`);
  const before = calls(server, { app });
  expect(before.filter(({ status }) => status === 200)).toHaveLength(6);
  expect(before).toHaveLength(7);
  expect((await cli('import', path, '--json')).json()).toMatchObject({ imported: 6, refused: 1, skipped: 7 });
  expect(calls(server, { app })).toHaveLength(7);
  const journal = await readFile(`${path}.journal`, 'utf8');
  for (const { refreshToken, accessToken } of lines) {
    expect(journal).not.toContain(refreshToken);
    expect(journal).not.toContain(accessToken);
  }
});

test('while Zoom is away an import is done in part, with exit code 3, and the same command finishes it', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const lines = await outsideLines(app, await createTenant(server), 1);
  const path = await write(lines);
  server.sandbox.control.addFault({ route: 'users', clientId: app.clientId, fault: { kind: 'status', status: 503 } });
  const first = await cli('import', path);
  expect(first).toMatchObject({ code: 3, stdout: expect.stringContaining('run it again to go on') });
  expect(first.stderr).toContain(`${path}:1: failed`);
  // A server may be at it for a minute, in which the next run would wait.
  const journal = await readFile(`${path}.journal`, 'utf8');
  await writeFile(`${path}.journal`, journal.replaceAll(/"at":"[^"]+"/g, '"at":"2026-01-01T00:00:00.000Z"'));
  expect(await cli('import', path)).toMatchObject({ code: 0, stdout: '1 imported, 0 refused, 0 failed of 1\n' });
});

test('connections of Nango become an import file; those without tenant, user or refresh token are left out and named', async () => {
  const connection = (id: string, more: object) => ({
    connection_id: id,
    provider_config_key: 'zoom',
    credentials: { type: 'OAUTH2', access_token: `access-${id}`, refresh_token: `refresh-${id}`, raw: {} },
    ...more,
  });
  const path = join(folder, 'nango.json');
  const connections = [
    connection('tags', { tags: { end_user_id: 'u1', organization_id: 'org_1' } }),
    connection('user', { end_user: { id: 'u2', organization: { id: 'org_2' } } }),
    connection('alone', { end_user: { id: 'u3', organization: null } }),
    connection('nobody', { tags: { organization_id: 'org_1' } }),
    connection('other', { provider_config_key: 'slack' }),
    { ...connection('bare', {}), credentials: { type: 'OAUTH2', access_token: 'access-bare' } },
    connection('account', { provider_config_key: 'zoom-admin', tags: { organization_id: 'org_1' } }),
  ];
  await writeFile(path, JSON.stringify(connections));
  const to = join(folder, 'converted.jsonl');
  const args = ['convert', 'nango', path, '--output', to, '--app', 'zoom=app_1', '--app', 'zoom-admin=app_2'];
  const result = await cli(...args, '--installation', 'zoom-admin', '--json');
  expect(result.code).toBe(3);
  expect(result.json()).toMatchObject({
    converted: 3,
    left: [{ connection: 3 }, { connection: 4 }, { connection: 5 }, { connection: 6 }],
  });
  const lines = (await readFile(to, 'utf8')).trim().split('\n');
  expect(lines.map((line) => JSON.parse(line) as unknown)).toEqual([
    { tenantId: 'org_1', userId: 'u1', appId: 'app_1', refreshToken: 'refresh-tags', accessToken: 'access-tags' },
    { tenantId: 'org_2', userId: 'u2', appId: 'app_1', refreshToken: 'refresh-user', accessToken: 'access-user' },
    { tenantId: 'org_1', userId: null, appId: 'app_2', refreshToken: 'refresh-account', accessToken: 'access-account' },
  ]);
  expect((await stat(to)).mode & 0o777).toBe(0o600);
  expect(result.stderr).not.toMatch(/refresh-|access-/);
  expect(await cli(...args)).toMatchObject({ code: 2, stderr: expect.stringContaining('EEXIST') });
});
