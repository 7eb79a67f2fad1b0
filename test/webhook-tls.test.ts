import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { createCertificates, type Certificate } from './support/certificates.js';
import { createZoomUser } from './support/connections.js';
import { clientOf, spawnServer } from './support/process.js';
import { TEST_ADMIN_KEY } from './support/server.js';
import { connect, createTenant, registerApp } from './support/story.js';
import { until } from './support/until.js';
import { connectReceiver, endpointOf } from './support/webhook-endpoint.js';
import { startReceiver } from './support/webhook-receiver.js';

// Starts a process, which loads everything anew: which authorities are trusted is read when a process starts.
vi.setConfig({ testTimeout: 60_000 });

const folder = await mkdtemp(join(tmpdir(), 'latchkey-tls-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const certificates = createCertificates(folder);
const authority = await certificates.createAuthority('authority');

const server = spawnServer({
  NODE_EXTRA_CA_CERTS: authority,
  LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: join(folder, 'data'),
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_EVENT_POLL_MS: '50',
  LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '127.0.0.0/8',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
});
// Nothing of this file looks into the database of the other process.
const client = await clientOf(server, { sandbox, db: undefined as never });
const app = await registerApp(client, 'USER_MANAGED');

/** Tells a backend that shows this certificate of one event. @returns what it got, and the endpoint after one attempt. */
async function tell(certificate: Certificate) {
  const tenantId = await createTenant(client);
  const { id, receiver } = await connectReceiver(client, { tenantId }, await startReceiver(certificate));
  await connect(client, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id }, createZoomUser(client));
  await until(async () => (await endpointOf(client, id)).deliveries[0]?.attempts.length > 0);
  return { received: receiver.received, endpoint: await endpointOf(client, id) };
}

const CERTIFICATE_REFUSED = { status: 'PENDING', attempts: [{ httpStatus: null, failure: 'CONNECTION_FAILED' }] };

test('a backend with a certificate of an authority that the process trusts is told, signed as ever', async () => {
  const { received, endpoint } = await tell(await certificates.issue('trusted', 'localhost', 'authority'));
  expect(received).toMatchObject([{ message: { type: expect.any(String) } }]);
  expect(endpoint).toMatchObject({
    failingSince: null,
    deliveries: [{ status: 'DELIVERED', attempts: [{ httpStatus: 204, failure: null }] }],
  });
});

test.each([
  ['that signed itself', 'localhost', undefined],
  ['of another host', 'other.example', 'authority'],
])('a certificate %s is refused before anything is sent, and the delivery says so', async (name, host, issuer) => {
  const { received, endpoint } = await tell(await certificates.issue(name.replaceAll(' ', '-'), host, issuer));
  expect(received).toEqual([]);
  expect(endpoint).toMatchObject({ failingSince: expect.any(String), deliveries: [CERTIFICATE_REFUSED] });
  expect(endpoint.deliveries[0].nextAttemptAt).not.toBeNull();
});
