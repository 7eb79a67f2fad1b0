import sql from 'sql-template-tag';
import { Webhook } from 'standardwebhooks';
import { describe, expect, test } from 'vitest';
import { retryDelay, RETRY_SECONDS } from '../src/domain/delivery.js';
import { purgeDeliveries } from '../src/domain/delivery-replay.js';
import { forgetRetiredSecrets } from '../src/domain/webhook-endpoint.js';
import { connectUser } from './support/connections.js';
import { codeOf, createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { createTenant, PRODUCT } from './support/story.js';
import { flip, makeGrants } from './support/transitions.js';
import { until } from './support/until.js';
import {
  connectReceiver,
  createEndpoint,
  deleteEndpoint,
  endDeliveryWait,
  endpointOf,
  replay,
  rotateSecret,
  rowOf,
  type TestEndpoint,
  updateEndpoint,
} from './support/webhook-endpoint.js';
import { type Received, startReceiver } from './support/webhook-receiver.js';

const secrets: string[] = [];
const server = await startTestServer({ LATCHKEY_WEBHOOK_ALLOW_PRIVATE: '127.0.0.1/32' }, () => secrets);
const { db } = server;

/** A tenant with one connection, and a backend that is told of it alone. */
async function createWorld() {
  const tenantId = await createTenant(server);
  const [grant] = await makeGrants(db, 1, tenantId);
  if (grant === undefined) throw new Error('No grant was made.');
  const endpoint = await connectReceiver(server, { tenantId });
  secrets.push(...endpoint.receiver.secrets);
  return { tenantId, grant, endpoint, receiver: endpoint.receiver };
}

/** Until so many requests have arrived, and what came of them is stored. */
async function settled({ receiver, rowId }: TestEndpoint, count: number): Promise<void> {
  await until(() => receiver.received.length >= count);
  await until(async () => {
    const running = await db.query(sql`
      SELECT id FROM webhook_delivery WHERE endpoint_id = ${rowId}::uuid AND lease_until > now()`);
    return running.length === 0;
  });
}

const secondsUntil = (time: string) => (Date.parse(time) - Date.now()) / 1_000;
const sequences = (received: readonly Received[]) => received.map(({ message }) => message.data.sequence as number);

test('a transition reaches the backend, signed as Standard Webhooks has it, with what the guide says', async () => {
  const tenantId = await createTenant(server);
  const endpoint = await connectReceiver(server, { tenantId, description: 'Billing' });
  const connection = await connectUser(server, { tenantId, userId: 'user_7' });
  await settled(endpoint, 1);
  const [received] = endpoint.receiver.received;
  const [event] = await db.query<{ id: string; occurredAt: Date }>(sql`
    SELECT id, occurred_at AS "occurredAt" FROM health_event WHERE grant_id = ${connection.rowId}::uuid`);
  const eventId = Buffer.from(`HealthEvent:${event?.id}`).toString('base64url');
  expect(received?.message).toEqual({
    type: 'grant.health_changed',
    timestamp: event?.occurredAt.toISOString(),
    data: {
      id: eventId,
      tenantId,
      sequence: 1,
      grantId: connection.id,
      grantType: 'UserConnection',
      userId: 'user_7',
      previous: null,
      current: 'HEALTHY',
      reason: 'CONNECTED',
    },
  });
  expect(received?.headers).toMatchObject({ 'webhook-id': eventId, 'content-type': 'application/json' });
  const found = await server.data('query ($id: ID!) { node(id: $id) { ... on HealthEvent { reason } } }', {
    id: eventId,
  });
  expect(found.node).toEqual({ reason: 'CONNECTED' });
  expect(await endpointOf(server, endpoint.id)).toMatchObject({
    status: 'ENABLED',
    description: 'Billing',
    failingSince: null,
    deliveries: [
      { status: 'DELIVERED', attemptCount: 1, nextAttemptAt: null, attempts: [{ httpStatus: 204, failure: null }] },
    ],
  });
});

test('a message whose body, time, identifier or secret is another is not what was signed', async () => {
  const { grant, endpoint, receiver } = await createWorld();
  await flip(db, grant, 1);
  await settled(endpoint, 1);
  const { body, headers } = receiver.received[0]!;
  const library = new Webhook(receiver.secrets[0]!);
  const later = String(Number(headers['webhook-timestamp']) + 1);
  expect(() => library.verify(`${body} `, headers)).toThrow('No matching signature');
  expect(() => library.verify(body, { ...headers, 'webhook-timestamp': later })).toThrow('No matching signature');
  expect(() => library.verify(body, { ...headers, 'webhook-id': 'another' })).toThrow('No matching signature');
  const other = new Webhook(`whsec_${Buffer.alloc(32).toString('base64')}`);
  expect(() => other.verify(body, headers)).toThrow('No matching signature');
});

test('events of one connection arrive in their order, and each of several connections once', async () => {
  const tenantId = await createTenant(server);
  const grants = await makeGrants(db, 3, tenantId);
  const endpoint = await connectReceiver(server, { tenantId });
  endpoint.receiver.answer = async () => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 10));
    return { status: 200 };
  };
  await Promise.all(grants.map((grant) => flip(db, grant, 10)));
  await settled(endpoint, 30);
  const { received } = endpoint.receiver;
  expect(sequences(received).toSorted((a, b) => a - b)).toEqual(Array.from({ length: 30 }, (_, i) => i + 1));
  for (const { id } of grants) {
    const grantId = Buffer.from(`UserConnection:${id}`).toString('base64url');
    const own = sequences(received.filter(({ message }) => message.data.grantId === grantId));
    expect(own).toHaveLength(10);
    expect(own).toEqual(own.toSorted((a, b) => a - b));
  }
});

describe('an endpoint that does not take what it is told', () => {
  test('is asked again after the published waits, for three days', () => {
    const total = RETRY_SECONDS.reduce((sum, seconds) => sum + seconds, 0);
    expect(total / 86_400).toBeCloseTo(3.15, 2);
    for (const [index, seconds] of RETRY_SECONDS.entries()) {
      const delays = Array.from({ length: 200 }, () => retryDelay(index + 1, null) ?? 0);
      expect(Math.min(...delays)).toBeGreaterThanOrEqual(seconds * 0.8);
      expect(Math.max(...delays)).toBeLessThanOrEqual(seconds * 1.2);
      expect(new Set(delays).size).toBeGreaterThan(1);
    }
    expect(retryDelay(1, 900)).toBe(900);
    expect(retryDelay(9, 900)).toBeGreaterThan(60_000);
    expect(retryDelay(10, 900)).toBeNull();
  });

  test('gets the same message under the same identifier again, and its log tells every attempt', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    receiver.answer = () => ({ status: 500, body: 'a secret of the backend' });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    const failing = await endpointOf(server, endpoint.id);
    expect(failing).toMatchObject({ status: 'ENABLED', failingSince: expect.any(String) });
    expect(failing.deliveries).toMatchObject([
      { status: 'PENDING', attempts: [{ httpStatus: 500, failure: 'REFUSED' }] },
    ]);
    expect(secondsUntil(failing.deliveries[0].nextAttemptAt)).toBeLessThan(6);
    await endDeliveryWait(db, endpoint);
    await settled(endpoint, 2);
    const { deliveries } = await endpointOf(server, endpoint.id);
    expect(secondsUntil(deliveries[0].nextAttemptAt)).toBeGreaterThan(200);
    receiver.answer = () => ({ status: 200 });
    await endDeliveryWait(db, endpoint);
    await settled(endpoint, 3);
    expect(new Set(receiver.ids()).size).toBe(1);
    expect(new Set(receiver.received.map(({ body }) => body)).size).toBe(1);
    expect(receiver.received.every(({ message }) => message !== null)).toBe(true);
    const mended = await endpointOf(server, endpoint.id);
    expect(mended.failingSince).toBeNull();
    expect(mended.deliveries).toMatchObject([
      {
        status: 'DELIVERED',
        attemptCount: 3,
        attempts: [{ httpStatus: 200 }, { httpStatus: 500 }, { httpStatus: 500 }],
      },
    ]);
  });

  test('holds up no later event, and is given up after the tenth attempt', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    receiver.answer = ({ message }) => ({ status: message.data.sequence === 1 ? 400 : 200 });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    await db.query(sql`UPDATE webhook_delivery SET attempt_count = 9 WHERE endpoint_id = ${endpoint.rowId}::uuid`);
    await flip(db, grant, 1);
    await settled(endpoint, 2);
    expect(sequences(receiver.received)).toEqual([1, 2]);
    await endDeliveryWait(db, endpoint);
    await settled(endpoint, 3);
    const { deliveries, status } = await endpointOf(server, endpoint.id);
    expect(deliveries).toMatchObject([
      { status: 'DELIVERED' },
      { status: 'FAILED', attemptCount: 10, nextAttemptAt: null },
    ]);
    expect(status).toBe('ENABLED');
  });

  test('that asks for silence is left alone for so long, with whatever else happens', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    receiver.answer = () => ({ status: 429, headers: { 'retry-after': '120' } });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    const [delivery] = (await endpointOf(server, endpoint.id)).deliveries;
    expect(secondsUntil(delivery.nextAttemptAt)).toBeGreaterThan(115);
    receiver.answer = () => ({ status: 200 });
    await flip(db, grant, 1);
    // Longer than a turn of the job.
    await new Promise((resolve) => setTimeout(resolve, 300));
    expect(receiver.received).toHaveLength(1);
    await endDeliveryWait(db, endpoint);
    await settled(endpoint, 3);
    expect(sequences(receiver.received).toSorted((a, b) => a - b)).toEqual([1, 1, 2]);
  });

  test('and answers 410 is disabled at once; enabled again, it is told what it missed when that is replayed', async () => {
    const { tenantId, grant, endpoint, receiver } = await createWorld();
    receiver.answer = () => ({ status: 410 });
    await flip(db, grant, 1);
    await until(async () => (await endpointOf(server, endpoint.id)).status === 'DISABLED');
    const gone = await endpointOf(server, endpoint.id);
    expect(gone).toMatchObject({
      disabledReason: 'GONE',
      disabledAt: expect.any(String),
      deliveries: [{ status: 'FAILED' }],
    });
    receiver.answer = () => ({ status: 200 });
    await flip(db, grant, 2);
    expect((await endpointOf(server, endpoint.id)).deliveries).toHaveLength(1);
    expect(await replay(server, { endpointId: endpoint.id, tenantId, fromSequence: 1 })).toMatchObject({
      __typename: 'InvalidInputError',
    });
    const { webhookEndpoint } = await updateEndpoint(server, { id: endpoint.id, enabled: true });
    expect(webhookEndpoint).toMatchObject({ status: 'ENABLED', disabledReason: null, disabledAt: null });
    expect(await replay(server, { endpointId: endpoint.id, since: gone.disabledAt })).toMatchObject({
      webhookReplay: { count: 2 },
    });
    await settled(endpoint, 3);
    expect(sequences(receiver.received)).toEqual([1, 2, 3]);
  });

  test('for five days is disabled, and what it has not taken waits until it is enabled', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    receiver.answer = () => ({ status: 503 });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    await db.query(sql`
      UPDATE webhook_endpoint SET failing_since = now() - interval '5 days' WHERE id = ${endpoint.rowId}::uuid`);
    await endDeliveryWait(db, endpoint);
    await until(async () => (await endpointOf(server, endpoint.id)).status === 'DISABLED');
    const disabled = await endpointOf(server, endpoint.id);
    expect(disabled).toMatchObject({
      disabledReason: 'FAILING',
      deliveries: [{ status: 'PENDING', nextAttemptAt: null }],
    });
    receiver.answer = () => ({ status: 200 });
    await updateEndpoint(server, { id: endpoint.id, enabled: true });
    await until(async () => (await endpointOf(server, endpoint.id)).deliveries[0].status === 'DELIVERED');
    expect(new Set(receiver.ids()).size).toBe(1);
  });

  test('because it is elsewhere now gets what is still to be delivered at its new address', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    receiver.answer = () => ({ status: 301, headers: { location: '/moved' } });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    const moved = await startReceiver();
    moved.secrets.push(...receiver.secrets);
    await updateEndpoint(server, { id: endpoint.id, url: moved.url });
    await endDeliveryWait(db, endpoint);
    await until(() => moved.received.length === 1);
    expect(sequences(moved.received)).toEqual([1]);
    expect(receiver.received.map(({ path }) => path)).toEqual(['/hooks']);
  });
});

describe('a secret', () => {
  test('is shown once, and rotated with an overlap in which both sign', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    const [former = ''] = receiver.secrets;
    expect(former).toMatch(/^whsec_[A-Za-z0-9+/]{43}=$/);
    const { webhookEndpoint } = await rotateSecret(server, { id: endpoint.id });
    secrets.push(webhookEndpoint.secret);
    expect(webhookEndpoint.secret).not.toBe(former);
    expect(Math.round(secondsUntil(webhookEndpoint.formerSecretRetiresAt) / 3_600)).toBe(24);
    const shown = await server.data('query ($id: ID!) { node(id: $id) { ... on WebhookEndpoint { secret } } }', {
      id: endpoint.id,
    });
    expect(shown).toEqual({ node: { secret: null } });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    const { body, headers } = receiver.received[0]!;
    expect(headers['webhook-signature']).toMatch(/^v1,\S+ v1,\S+$/);
    for (const secret of [former, webhookEndpoint.secret]) {
      expect(new Webhook(secret).verify(body, headers)).toMatchObject({ type: 'grant.health_changed' });
    }
    await db.query(
      sql`UPDATE webhook_endpoint SET former_secret_retires_at = now() WHERE id = ${endpoint.rowId}::uuid`,
    );
    await flip(db, grant, 1);
    await settled(endpoint, 2);
    const last = receiver.received[1]!;
    expect(() => new Webhook(former).verify(last.body, last.headers)).toThrow('No matching signature');
    new Webhook(webhookEndpoint.secret).verify(last.body, last.headers);
    await forgetRetiredSecrets({ db });
    const [row] = await db.query(sql`
      SELECT sealed_former_secret FROM webhook_endpoint WHERE id = ${endpoint.rowId}::uuid`);
    expect(row).toEqual({ sealed_former_secret: null });
  });

  test('that is said to be known to others can be ended at once', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    const now = new Date().toISOString();
    const { webhookEndpoint } = await rotateSecret(server, { id: endpoint.id, retireFormerSecretAt: now });
    secrets.push(webhookEndpoint.secret);
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    expect(receiver.received[0]?.message).toBeNull();
    const late = new Date(Date.now() + 31 * 86_400_000).toISOString();
    expect(await rotateSecret(server, { id: endpoint.id, retireFormerSecretAt: late })).toMatchObject({
      path: ['input', 'retireFormerSecretAt'],
    });
  });

  test('is sealed anew when the key of its tenant is rotated, and goes on signing', async () => {
    const { tenantId, grant, endpoint, receiver } = await createWorld();
    await rotateSecret(server, { id: endpoint.id }).then(({ webhookEndpoint }) => {
      secrets.push(webhookEndpoint.secret);
      receiver.secrets.push(webhookEndpoint.secret);
    });
    const { rotateTenantKey } = await server.data(
      `mutation ($input: RotateTenantKeyInput!) { rotateTenantKey(input: $input) {
        ... on RotateTenantKeySuccess { tenantKey { version pendingReseal } } } }`,
      { input: { tenantId } },
    );
    expect(rotateTenantKey.tenantKey).toEqual({ version: 2, pendingReseal: 2 });
    await until(async () => {
      const [row] = await db.query<{ version: number }>(sql`
        SELECT key_version AS version FROM webhook_endpoint WHERE id = ${endpoint.rowId}::uuid`);
      return row?.version === 2;
    });
    await flip(db, grant, 1);
    await settled(endpoint, 1);
    const { body, headers } = receiver.received[0]!;
    for (const secret of receiver.secrets) new Webhook(secret).verify(body, headers);
    expect(headers['webhook-signature']?.split(' ')).toHaveLength(2);
  });
});

describe('a replay', () => {
  test('delivers named deliveries and ranges of events again, in their order and under the same identifiers', async () => {
    const { tenantId, grant, endpoint, receiver } = await createWorld();
    await flip(db, grant, 4);
    await settled(endpoint, 4);
    const first = receiver.ids();
    const { deliveries } = await endpointOf(server, endpoint.id);
    const second = deliveries.find((each: any) => each.event.id === first[1]);
    expect(await replay(server, { endpointId: endpoint.id, deliveryIds: [second.id] })).toMatchObject({
      webhookReplay: { count: 1 },
    });
    await settled(endpoint, 5);
    expect(receiver.ids()[4]).toBe(first[1]);
    const range = { endpointId: endpoint.id, tenantId, fromSequence: 2, toSequence: 4 };
    expect(await replay(server, range)).toMatchObject({ webhookReplay: { count: 3 } });
    await settled(endpoint, 8);
    expect(receiver.ids().slice(5)).toEqual(first.slice(1));
    expect(receiver.received.every(({ message }) => message !== null)).toBe(true);
  });

  test('tells an endpoint also of what happened before it was made', async () => {
    const tenantId = await createTenant(server);
    const [grant] = await makeGrants(db, 1, tenantId);
    const since = new Date(Date.now() - 60_000).toISOString();
    await flip(db, grant!, 2);
    const endpoint = await connectReceiver(server, { tenantId });
    await flip(db, grant!, 1);
    await settled(endpoint, 1);
    expect(sequences(endpoint.receiver.received)).toEqual([3]);
    const until_ = new Date(Date.now() + 60_000).toISOString();
    expect(await replay(server, { endpointId: endpoint.id, since, until: until_ })).toMatchObject({
      webhookReplay: { count: 3 },
    });
    await settled(endpoint, 4);
    expect(sequences(endpoint.receiver.received)).toEqual([3, 1, 2, 3]);
  });

  test('says what is wrong with what it is asked for', async () => {
    const { tenantId, endpoint } = await createWorld();
    const endpointId = endpoint.id;
    const nothing = Buffer.from('WebhookDelivery:00000000-0000-4000-8000-000000000000').toString('base64url');
    const wrong = [
      [{}, 'since'],
      [{ deliveryIds: [] }, 'deliveryIds'],
      [{ deliveryIds: [nothing], since: '2026-01-01T00:00:00Z' }, 'deliveryIds'],
      [{ fromSequence: 1 }, 'tenantId'],
      [{ tenantId }, 'since'],
    ] as const;
    for (const [input, field] of wrong) {
      expect(await replay(server, { endpointId, ...input })).toMatchObject({ path: ['input', field] });
    }
    expect(await replay(server, { endpointId, deliveryIds: [nothing] })).toMatchObject({ __typename: 'NotFoundError' });
    expect(await replay(server, { endpointId, tenantId: 'org_nobody', fromSequence: 1 })).toMatchObject({
      webhookReplay: { count: 0 },
    });
  });
});

describe('between tenants', () => {
  const PERMISSIONS = ['CONNECTIONS_READ', 'TENANTS_WRITE'];

  test('an endpoint of one is told of that one, and an endpoint for all of each', async () => {
    const [mine, other] = [await createWorld(), await createWorld()];
    const all = await connectReceiver(server);
    secrets.push(...all.receiver.secrets);
    await Promise.all([flip(db, mine.grant, 2), flip(db, other.grant, 3)]);
    await Promise.all([settled(mine.endpoint, 2), settled(other.endpoint, 3), settled(all, 5)]);
    const tenantsOf = ({ received }: typeof mine.receiver) => [
      ...new Set(received.map((each) => each.message.data.tenantId)),
    ];
    expect(tenantsOf(mine.receiver)).toEqual([mine.tenantId]);
    expect(tenantsOf(other.receiver)).toEqual([other.tenantId]);
    expect(new Set(tenantsOf(all.receiver))).toEqual(new Set([mine.tenantId, other.tenantId]));
    await deleteEndpoint(server, all.id);
  });

  test('the ids of another tenant’s endpoints and deliveries, and of those for all, open nothing', async () => {
    const [mine, other] = [await createWorld(), await createWorld()];
    const all = await connectReceiver(server);
    secrets.push(...all.receiver.secrets);
    await flip(db, other.grant, 1);
    await Promise.all([settled(other.endpoint, 1), settled(all, 1)]);
    const thief = await createServerKey(server, { permissions: PERMISSIONS, tenantId: mine.tenantId });
    for (const stolen of [other.endpoint, all]) {
      const { id } = stolen;
      const [delivery] = (await endpointOf(server, id)).deliveries;
      expect(await endpointOf(thief, id)).toBeNull();
      expect(await thief.data('query ($id: ID!) { node(id: $id) { id } }', { id: delivery.id })).toEqual({
        node: null,
      });
      const answers = [
        await updateEndpoint(thief, { id, url: mine.receiver.url, enabled: false }),
        await rotateSecret(thief, { id }),
        await replay(thief, { endpointId: id, since: '2026-01-01T00:00:00Z' }),
        await replay(thief, { endpointId: mine.endpoint.id, deliveryIds: [delivery.id] }),
        await deleteEndpoint(thief, id),
      ];
      expect(answers.map((answer) => answer.__typename)).toEqual(Array.from({ length: 5 }, () => 'NotFoundError'));
      expect(await endpointOf(server, id)).toMatchObject({ status: 'ENABLED', url: stolen.receiver.url });
    }
    const foreign = { endpointId: mine.endpoint.id, tenantId: other.tenantId, fromSequence: 1 };
    for (const caller of [thief, server])
      expect(await replay(caller, foreign)).toMatchObject({ webhookReplay: { count: 0 } });
    const list = '{ webhookEndpoints(first: 100) { edges { node { id } } } }';
    expect((await thief.data(list)).webhookEndpoints.edges).toEqual([{ node: { id: mine.endpoint.id } }]);
    await deleteEndpoint(server, all.id);
  });

  test('a key of one tenant makes endpoints for that tenant only', async () => {
    const { tenantId } = await createWorld();
    const bound = await createServerKey(server, { permissions: PERMISSIONS, tenantId });
    const { url } = await startReceiver();
    expect(await createEndpoint(bound, { url })).toMatchObject({ path: ['input', 'tenantId'] });
    const elsewhere = await createTenant(server);
    expect(await createEndpoint(bound, { url, tenantId: elsewhere })).toMatchObject({ __typename: 'NotFoundError' });
    const own = await createEndpoint(bound, { url, tenantId });
    secrets.push(own.webhookEndpoint.secret);
    expect(own).toMatchObject({ webhookEndpoint: { url } });
  });

  test('neither a browser nor a key that may not read connections may manage endpoints', async () => {
    const { tenantId, endpoint } = await createWorld();
    const allow = ['CONNECT_USER', 'READ_CONNECTIONS', 'REVOKE', 'CONNECT_INSTALLATION'];
    const callers = [
      await createFrontendSession(server, { tenantId, userId: 'user_1', allow }, PRODUCT),
      await createServerKey(server, { permissions: ['TENANTS_WRITE'] }),
      await createServerKey(server, { permissions: ['CONNECTIONS_READ', 'CONNECTIONS_WRITE'] }),
    ];
    const { id } = endpoint;
    const operations = [
      `mutation { createWebhookEndpoint(input: { url: "https://backend.example" }) { __typename } }`,
      `mutation { updateWebhookEndpoint(input: { id: "${id}" }) { __typename } }`,
      `mutation { rotateWebhookEndpointSecret(input: { id: "${id}" }) { __typename } }`,
      `mutation { deleteWebhookEndpoint(input: { id: "${id}" }) { __typename } }`,
      `mutation { replayWebhookDeliveries(input: { endpointId: "${id}" }) { __typename } }`,
    ];
    for (const caller of callers) {
      for (const operation of operations) expect(codeOf(await caller.graphql(operation))).toBe('FORBIDDEN');
    }
    const [browser] = callers;
    expect(codeOf(await browser!.graphql('{ webhookEndpoints { edges { node { url } } } }'))).toBe('FORBIDDEN');
    expect(codeOf(await browser!.graphql(`{ node(id: "${id}") { id } }`))).toBe('FORBIDDEN');
  });
});

describe('an address', () => {
  test.each([
    'ftp://backend.example/',
    'https://user:password@backend.example/',
    'https://backend.example/#fragment',
    'https://10.0.0.1/',
    'https://169.254.169.254/latest/meta-data/',
    'https://[fd00:ec2::254]/',
    'https://0xa9fea9fe/',
    'backend.example',
    `https://backend.example/${'a'.repeat(2_000)}`,
  ])('that nothing could be sent to is refused: %s', async (url) => {
    expect(await createEndpoint(server, { url })).toMatchObject({ path: ['input', 'url'] });
  });

  test('that is not allowed any more when it is its turn is not connected to, and the log says why', async () => {
    const { grant, endpoint, receiver } = await createWorld();
    await db.query(sql`
      UPDATE webhook_endpoint SET url = replace(url, '127.0.0.1', '127.0.0.2') WHERE id = ${endpoint.rowId}::uuid`);
    await flip(db, grant, 1);
    await until(async () => (await endpointOf(server, endpoint.id)).failingSince !== null);
    const { deliveries } = await endpointOf(server, endpoint.id);
    expect(deliveries).toMatchObject([
      { status: 'PENDING', attempts: [{ failure: 'ADDRESS_NOT_ALLOWED', httpStatus: null }] },
    ]);
    expect(receiver.received).toEqual([]);
  });
});

test('what is delivered, and what is not, is forgotten when its time is over', async () => {
  const { grant, endpoint } = await createWorld();
  await flip(db, grant, 2);
  await settled(endpoint, 2);
  const { deliveries } = await endpointOf(server, endpoint.id);
  await db.query(sql`
    UPDATE webhook_delivery SET queued_at = now() - interval '31 days' WHERE id = ${rowOf(deliveries[0].id)}::uuid`);
  await purgeDeliveries({ db }, 30);
  expect((await endpointOf(server, endpoint.id)).deliveries.map((each: any) => each.id)).toEqual([deliveries[1].id]);
});

test('a tenant takes its endpoints with it when it is deleted', async () => {
  const { tenantId, grant, endpoint, receiver } = await createWorld();
  receiver.answer = () => ({ status: 500 });
  await flip(db, grant, 1);
  await settled(endpoint, 1);
  const { deleteTenant } = await server.data(
    `mutation ($input: DeleteTenantInput!) { deleteTenant(input: $input) { __typename ... on Error { message } } }`,
    { input: { tenantId, confirm: tenantId } },
  );
  expect(deleteTenant).toEqual({ __typename: 'DeleteTenantSuccess' });
  expect(await endpointOf(server, endpoint.id)).toBeNull();
  const rest = await db.query(sql`SELECT id FROM webhook_delivery WHERE endpoint_id = ${endpoint.rowId}::uuid`);
  expect(rest).toEqual([]);
});

test('a tenant has twenty endpoints at most', async () => {
  const { tenantId } = await createWorld();
  const url = 'https://backend.example/';
  for (let made = 1; made < 20; made += 1) {
    const { webhookEndpoint } = await createEndpoint(server, { url, tenantId });
    secrets.push(webhookEndpoint.secret);
  }
  expect(await createEndpoint(server, { url, tenantId })).toMatchObject({ __typename: 'InvalidInputError' });
});

test('a server that ends waits for what it is sending, stores what came of it, and begins nothing else', async () => {
  const { grant, endpoint, receiver } = await createWorld();
  let answer: (reply: { status: number }) => void = () => undefined;
  receiver.answer = () => new Promise((resolve) => (answer = resolve));
  await flip(db, grant, 2);
  await until(() => receiver.received.length === 1);
  const closed = server.close();
  await new Promise((resolve) => setTimeout(resolve, 100));
  answer({ status: 200 });
  await closed;
  const rows = await db.query<{ status: string }>(sql`
    SELECT d.status FROM webhook_delivery d JOIN health_event h ON h.id = d.event_id
    WHERE d.endpoint_id = ${endpoint.rowId}::uuid ORDER BY h.sequence`);
  expect(rows).toEqual([{ status: 'DELIVERED' }, { status: 'PENDING' }]);
  expect(receiver.received).toHaveLength(1);
});
