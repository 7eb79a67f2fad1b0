import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sql from 'sql-template-tag';
import { afterAll, expect, test, vi } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { createPostgresDatabase } from '../support/database.js';
import { clientOf, spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY } from '../support/server.js';
import { createTenant } from '../support/story.js';
import { flip, makeGrants } from '../support/transitions.js';
import { until } from '../support/until.js';
import { connectReceiver, deleteEndpoint, endDeliveryLeases, endpointOf } from '../support/webhook-endpoint.js';
import { startReceiver } from '../support/webhook-receiver.js';

// Starts processes, each of which loads everything anew.
vi.setConfig({ testTimeout: 60_000 });

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const databaseUrl = await createPostgresDatabase();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-deliveries-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
afterAll(() => db.close());

const settings = {
  DATABASE_URL: databaseUrl,
  LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: folder,
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_EVENT_POLL_MS: '50',
  LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '127.0.0.0/8',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
};
const start = () => spawnServer(settings);
const processes = [start(), start(), start()] as const;
let client = await clientOf(processes[0], { sandbox, db });
await Promise.all(processes.map(({ listening }) => listening));

const countOf = async (status: string, rowId: string) => {
  const rows = await db.query(sql`
    SELECT id FROM webhook_delivery WHERE endpoint_id = ${rowId}::uuid AND status::text = ${status}`);
  return rows.length;
};

test('three processes share the work: each event is sent once, eight at a time, and in the order of its connection', async () => {
  const tenantId = await createTenant(client);
  const grants = await makeGrants(db, 20, tenantId);
  const { receiver, id, rowId } = await connectReceiver(client, { tenantId });
  let running = 0;
  let most = 0;
  receiver.answer = async () => {
    running += 1;
    most = Math.max(most, running);
    await new Promise((resolve) => setTimeout(resolve, 15));
    running -= 1;
    return { status: 200 };
  };
  await Promise.all(grants.map((grant) => flip(db, grant, 6)));
  await until(async () => (await countOf('DELIVERED', rowId)) === 120);
  expect(receiver.received).toHaveLength(120);
  expect(new Set(receiver.ids()).size).toBe(120);
  expect(most).toBeGreaterThan(1);
  expect(most).toBeLessThanOrEqual(8);
  for (const grant of grants) {
    const grantId = Buffer.from(`UserConnection:${grant.id}`).toString('base64url');
    const own = receiver.received.filter(({ message }) => message.data.grantId === grantId);
    const sequences = own.map(({ message }) => message.data.sequence as number);
    expect(sequences).toEqual(sequences.toSorted((a, b) => a - b));
  }
  expect((await endpointOf(client, id)).failingSince).toBeNull();
});

test('endpoints that come and go while health changes make no transition fail, and lose no event of another', async () => {
  const tenantId = await createTenant(client);
  const grants = await makeGrants(db, 4, tenantId);
  const receiver = await startReceiver();
  const lasting = await connectReceiver(client, { tenantId }, receiver);
  let isOver = false;
  const comeAndGo = async () => {
    while (!isOver) {
      const passing = await connectReceiver(client, { tenantId }, receiver);
      await deleteEndpoint(client, passing.id);
    }
  };
  const restless = [comeAndGo(), comeAndGo()];
  await Promise.all(grants.map((grant) => flip(db, grant, 25)));
  isOver = true;
  await Promise.all(restless);
  await until(async () => (await countOf('DELIVERED', lasting.rowId)) === 100);
  const { received, ids } = receiver;
  const own = received.filter(({ message }) => message?.data.tenantId === tenantId);
  expect(new Set(own.map(({ message }) => message.data.sequence)).size).toBe(100);
  expect(new Set(ids()).size).toBe(100);
});

test('what a process has sent and not stored when it is killed is sent again, under the same identifier', async () => {
  const tenantId = await createTenant(client);
  const [grant] = await makeGrants(db, 1, tenantId);
  const endpoint = await connectReceiver(client, { tenantId });
  const { receiver } = endpoint;
  // It has the request, and answers when whoever sent it is gone.
  receiver.answer = async () => {
    for (const process of processes) process.kill('SIGKILL');
    await Promise.all(processes.map(({ exited }) => exited));
    return { status: 200 };
  };
  await flip(db, grant!, 1);
  await Promise.all(processes.map(({ exited }) => exited));
  expect(await countOf('PENDING', endpoint.rowId)).toBe(1);
  receiver.answer = () => ({ status: 200 });
  const heir = start();
  client = await clientOf(heir, { sandbox, db });
  // As long as it might still be sent by another, nobody takes it up.
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(receiver.received).toHaveLength(1);
  await endDeliveryLeases(db, endpoint);
  await until(async () => (await countOf('DELIVERED', endpoint.rowId)) === 1);
  expect(receiver.received).toHaveLength(2);
  expect(new Set(receiver.ids()).size).toBe(1);
  expect(new Set(receiver.received.map(({ body }) => body)).size).toBe(1);
  expect(receiver.received.every(({ message }) => message !== null)).toBe(true);
  expect(await endpointOf(client, endpoint.id)).toMatchObject({
    deliveries: [{ status: 'DELIVERED', attemptCount: 2 }],
  });
});
