import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from 'vitest';
import { findCanaries } from './support/canary.js';
import { startChild } from './support/child.js';
import { freePort } from './support/free-port.js';
import { startTestServer } from './support/server.js';

const DEMO = fileURLToPath(new URL('../src/client/demo.ts', import.meta.url));

const server = await startTestServer();
const { control } = server.sandbox;

afterEach(() => control.clearFaults());

/** Runs the demo as a process of its own, which is all it ever is to a server. */
async function runDemo(
  settings: Record<string, string> = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = startChild('The demo', process.execPath, ['--import', 'tsx', DEMO], {
    env: {
      LATCHKEY_URL: server.url,
      LATCHKEY_SANDBOX_URL: server.sandbox.origin,
      LATCHKEY_ADMIN_KEY: server.adminKey,
      ...settings,
    },
  });
  const { code } = await child.exited;
  return { code, ...child.written };
}

async function expectNoSecrets(outputs: string[]): Promise<void> {
  expect(await findCanaries({ output: outputs.join('\n') })).toEqual([]);
  expect(outputs.join('\n')).not.toContain(server.adminKey);
}

test('the demo plays the whole story and prints no secret', async () => {
  const story = await runDemo();
  expect(story).toMatchObject({ code: 0, stderr: '' });
  expect(story.stdout).toContain('UserConnection HEALTHY → REVOKED, DISCONNECTED');
  expect(story.stdout).toContain('UserConnection HEALTHY → REVOKED, DEAUTHORIZED_AT_PROVIDER');
  expect(story.stdout).toContain('All as it has to be');
  // Escape sequences are for terminals.
  expect(story.stdout).not.toContain('\u001b');
  await expectNoSecrets([story.stdout]);
  expect(control.knobs().accessTokenSeconds).toBe(3_600);
}, 40_000);

test('the demo fails at the step where the story goes wrong, and puts the sandbox back, also on a server where it ran before', async () => {
  // The admin's code is redeemed, the user's is not.
  control.addFault({ route: 'token', grantType: 'authorization_code', fault: { kind: 'hang', ms: 0 } });
  control.addFault({
    route: 'token',
    grantType: 'authorization_code',
    fault: { kind: 'status', status: 400, body: { reason: 'Invalid authorization code', error: 'invalid_grant' } },
  });
  const { code, stdout, stderr } = await runDemo();
  expect(code).toBe(1);
  expect(stderr).toContain('Step 6 failed (A user authorizes).');
  expect(stderr).toContain('status of the session: expected COMPLETED, got FAILED (CODE_REJECTED)');
  expect(stdout).not.toContain('All as it has to be');
  await expectNoSecrets([stdout, stderr]);
  expect(control.knobs().accessTokenSeconds).toBe(3_600);
}, 30_000);

test('the demo says what to do about a wrong key, a missing key and a server that is not there', async () => {
  const key = 'another-key-of-more-than-32-characters';
  const address = `http://127.0.0.1:${await freePort()}`;
  const [wrong, missing, silent] = await Promise.all([
    runDemo({ LATCHKEY_ADMIN_KEY: key }),
    runDemo({ LATCHKEY_ADMIN_KEY: '', LATCHKEY_DATA_DIR: '/nowhere' }),
    runDemo({ LATCHKEY_URL: address }),
  ]);
  expect(wrong.code).toBe(1);
  expect(wrong.stderr).toContain('Step 1 failed');
  expect(wrong.stderr).toContain('HTTP 401, UNAUTHENTICATED');
  expect(wrong.stderr).toContain('The server does not know the admin key');
  expect(wrong.stdout + wrong.stderr).not.toContain(key);
  expect(missing).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('There is no admin key in /nowhere/admin-key.'),
  });
  expect(silent).toMatchObject({ code: 1, stderr: expect.stringContaining('Nobody answers (ECONNREFUSED).') });
}, 30_000);
