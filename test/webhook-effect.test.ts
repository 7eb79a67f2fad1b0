import fc from 'fast-check';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, type RegisteredApp } from './support/story.js';
import { deliver } from './support/webhook.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const accountId = server.sandbox.control.accounts()[0]!.id;

interface Connected {
  app: RegisteredApp;
  tenantId: string;
  zoomUserId: string;
}

async function connected(app?: RegisteredApp): Promise<Connected> {
  app ??= await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const zoomUserId = newZoomUser(server);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id }, zoomUserId);
  return { app, tenantId, zoomUserId };
}

const send = async ({ app }: Connected, body: object): Promise<number> =>
  (await deliver(app.webhookUrl, body, { secret: app.atZoom.webhookSecret })).status;

const userEvent = (it: Connected, event: string, object: object = {}, at: unknown = Date.now()) => ({
  event,
  event_ts: at,
  payload: { account_id: accountId, operator: 'admin@acme.example', object: { id: it.zoomUserId, ...object } },
});

const deauthorized = (it: Connected, at = new Date()) => ({
  event: 'app_deauthorized',
  event_ts: at.getTime(),
  payload: {
    account_id: accountId,
    user_id: it.zoomUserId,
    client_id: it.app.clientId,
    deauthorization_time: at.toISOString(),
  },
});

interface State {
  health: string;
  email: string | null;
  name: string | null;
  userId: string | null;
}

async function stateOf({ tenantId }: Connected): Promise<State & { authorizedAt: Date }> {
  const [row] = await server.db.query<State & { authorizedAt: Date }>(sql`
    SELECT health_status || ' ' || health_reason AS health, provider_user_email AS email, provider_user_name AS name,
      provider_user_id AS "userId", authorized_at AS "authorizedAt"
    FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id WHERE t.external_id = ${tenantId}`);
  return row!;
}

const providerUser = async ({ tenantId }: Connected) => {
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { health { status reason } providerUser { providerUserId email displayName } } } } }',
    { t: tenantId },
  );
  return userConnections.edges[0].node;
};

/** Receipts of one app, by the public list. */
async function receipts({ app }: Connected): Promise<any[]> {
  const found = [];
  for (let after: string | null = null; ;) {
    const { deauthorizationReceipts }: any = await server.data(
      'query ($after: String) { deauthorizationReceipts(first: 100, after: $after) { edges { node { id receivedAt grantsRevoked purgedAt app { id } } } pageInfo { hasNextPage endCursor } } }',
      { after },
    );
    found.push(...deauthorizationReceipts.edges.map(({ node }: any) => node));
    if (!deauthorizationReceipts.pageInfo.hasNextPage) break;
    after = deauthorizationReceipts.pageInfo.endCursor;
  }
  return found.filter((receipt) => receipt.app.id === app.id);
}

// ------------------------------------------------------------------------------------------------------- deauthorization

test('a deauthorization removes what is known of the person and leaves a receipt that names nobody', async () => {
  const it = await connected();
  expect((await providerUser(it)).providerUser).toMatchObject({ providerUserId: it.zoomUserId });
  const before = Date.now();
  expect(await send(it, deauthorized(it))).toBe(200);
  expect(await providerUser(it)).toEqual({
    health: { status: 'REVOKED', reason: 'DEAUTHORIZED_AT_PROVIDER' },
    providerUser: null,
  });
  const [receipt, ...others] = await receipts(it);
  expect(others).toEqual([]);
  expect(receipt).toMatchObject({ grantsRevoked: 1, app: { id: it.app.id } });
  for (const at of [receipt.receivedAt, receipt.purgedAt])
    expect(Math.abs(Date.parse(at) - before)).toBeLessThan(10_000);
  const { node } = await server.data(
    'query ($id: ID!) { node(id: $id) { ... on DeauthorizationReceipt { grantsRevoked } } }',
    { id: receipt.id },
  );
  expect(node).toEqual({ grantsRevoked: 1 });
  // Nothing that is stored still holds the person's ids or address.
  const user = server.sandbox.control.users().find(({ id }) => id === it.zoomUserId)!;
  for (const table of ['provider_grant', 'webhook_event', 'health_event', 'deauthorization_receipt']) {
    const rows = await server.db.query({ text: `SELECT * FROM ${table}`, values: [] } as never);
    for (const text of [user.id, user.email, user.displayName]) expect(JSON.stringify(rows)).not.toContain(text);
  }
});

test('what had been disconnected here is purged as well when the app is removed at Zoom', async () => {
  const it = await connected();
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { id } } } }',
    { t: it.tenantId },
  );
  await server.data('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', {
    id: userConnections.edges[0].node.id,
  });
  await send(it, deauthorized(it));
  expect(await stateOf(it)).toMatchObject({ health: 'REVOKED DISCONNECTED', email: null, name: null, userId: null });
  expect((await receipts(it)).map(({ grantsRevoked }) => grantsRevoked)).toEqual([0]);
});

test('a person who was removed can connect again, and is known again', async () => {
  const it = await connected();
  await send(it, deauthorized(it));
  await connect(server, 'beginAuthorization', { tenantId: it.tenantId, userId: 'u', appId: it.app.id }, it.zoomUserId);
  expect(await stateOf(it)).toMatchObject({ health: 'HEALTHY CONNECTED', userId: it.zoomUserId });
});

test('a deauthorization of nobody we know, or of another app, leaves no receipt and one log line', async () => {
  const it = await connected();
  const known = deauthorized(it);
  const strangers = [
    { ...known, payload: { ...known.payload, account_id: 'another' } },
    { ...known, payload: { ...known.payload, user_id: 'another' } },
    { ...known, payload: { ...known.payload, client_id: 'another' } },
    deauthorized(it, new Date(Date.now() - 3_600_000)),
  ];
  for (const body of strangers) {
    const lines = server.logs.length;
    expect(await send(it, body)).toBe(200);
    expect(server.logs.slice(lines).filter((line) => line.includes('webhook'))).toHaveLength(1);
  }
  expect(await receipts(it)).toEqual([]);
  expect(await stateOf(it)).toMatchObject({ health: 'HEALTHY CONNECTED', userId: it.zoomUserId });
});

test('fifty copies at once at three servers are all accepted, stored once and take effect once', async () => {
  const it = await connected();
  const others = [await startSecondServer(server.db), await startSecondServer(server.db)];
  const path = new URL(it.app.webhookUrl).pathname;
  const urls = [server.url, ...others.map(({ url }) => url)].map((origin) => `${origin}${path}`);
  const body = deauthorized(it);
  const answers = await Promise.all(
    Array.from({ length: 50 }, (_, index) => deliver(urls[index % 3]!, body, { secret: it.app.atZoom.webhookSecret })),
  );
  expect(answers.map(({ status }) => status)).toEqual(Array(50).fill(200));
  const [count] = await server.db.query<{ stored: number; events: number }>(sql`
    SELECT (SELECT count(*) FROM webhook_event e JOIN provider_app a ON a.id = e.app_id
        WHERE a.client_id = ${it.app.clientId}) AS stored,
      (SELECT count(*) FROM health_event e JOIN tenant t ON t.id = e.tenant_id
        WHERE t.external_id = ${it.tenantId} AND e.current = 'REVOKED') AS events`);
  expect(count).toEqual({ stored: 1, events: 1 });
  expect(await receipts(it)).toHaveLength(1);
});

// ------------------------------------------------------------------------------------------------------------- the user

test('a changed address and name are taken over, and what the event leaves out stays', async () => {
  const it = await connected();
  const { name } = await stateOf(it);
  await send(it, userEvent(it, 'user.updated', { email: 'new@acme.example' }));
  expect((await providerUser(it)).providerUser).toEqual({
    providerUserId: it.zoomUserId,
    email: 'new@acme.example',
    displayName: name,
  });
  await send(it, userEvent(it, 'user.updated', { first_name: 'Ada', last_name: 'Lovelace' }));
  expect(await stateOf(it)).toMatchObject({ email: 'new@acme.example', name: 'Ada Lovelace' });
  // Of a time to the second inside the payload, as one of Zoom's forms has it.
  const later = new Date(Date.now() + 5_000).toISOString().slice(0, 19).replace('T', ' ');
  const { event, payload } = userEvent(it, 'user.updated', { display_name: 'Countess' });
  await send(it, { event, payload: { ...payload, event_ts: later } });
  expect(await stateOf(it)).toMatchObject({ email: 'new@acme.example', name: 'Countess' });
});

test('a change from before the consent, of another account or of an app that is not theirs changes nothing', async () => {
  const it = await connected();
  const other = await connected();
  const before = await stateOf(it);
  const change = userEvent(it, 'user.updated', { email: 'new@acme.example' });
  await send(it, userEvent(it, 'user.updated', { email: 'old@acme.example' }, Date.now() - 60_000));
  await send(it, { ...change, payload: { ...change.payload, account_id: 'another' } });
  await send(other, change);
  expect(await stateOf(it)).toEqual(before);
});

test.each(['user.deactivated', 'user.deleted'])(
  '%s ends the connection until somebody authorizes again',
  async (name) => {
    const it = await connected();
    const bystander = await connected(it.app);
    expect(await send(it, userEvent(it, name, { email: 'x@acme.example', type: 1 }))).toBe(200);
    expect((await providerUser(it)).health).toEqual({
      status: 'REAUTHORIZATION_REQUIRED',
      reason: 'PROVIDER_USER_REMOVED',
    });
    expect(await credential(server, { tenantId: it.tenantId, credentialFor: 'USER', userId: 'u' })).toMatchObject({
      __typename: 'ReauthorizationRequiredError',
      reason: 'PROVIDER_USER_REMOVED',
    });
    const [due] = await server.db.query<{ next: Date | null; probe: Date | null }>(sql`
    SELECT next_refresh_at AS next, next_probe_at AS probe FROM credential c JOIN tenant t ON t.id = c.tenant_id
    WHERE t.external_id = ${it.tenantId}`);
    expect(due).toEqual({ next: null, probe: null });
    expect((await stateOf(bystander)).health).toBe('HEALTHY CONNECTED');
    // Told late, it does not end what was authorized after it.
    await connect(
      server,
      'beginAuthorization',
      { tenantId: it.tenantId, userId: 'u', appId: it.app.id },
      it.zoomUserId,
    );
    await send(it, userEvent(it, name, {}, Date.now() - 60_000));
    expect((await stateOf(it)).health).toBe('HEALTHY CONNECTED');
  },
);

test('an installation whose administrator left the account has to be authorized again', async () => {
  const app = await registerApp(server, 'ADMIN_MANAGED');
  const tenantId = await createTenant(server);
  const zoomUserId = newZoomUser(server, { role: 'Admin' });
  await connect(server, 'beginInstallation', { tenantId, userId: 'admin', appId: app.id }, zoomUserId);
  const it = { app, tenantId, zoomUserId };
  await send(it, userEvent(it, 'user.deleted'));
  expect((await stateOf(it)).health).toBe('REAUTHORIZATION_REQUIRED PROVIDER_USER_REMOVED');
});

// ----------------------------------------------------------------------------------------------------------- all orders

interface Told {
  kind: 'deauthorized' | 'removed' | 'email' | 'name';
  value: string;
  /** Milliseconds from the consent. */
  offset: number;
}

const told = fc.record<Told>({
  kind: fc.constantFrom('deauthorized', 'removed', 'email', 'email', 'name', 'name'),
  value: fc.constantFrom('ada', 'bob', 'cyd'),
  offset: fc.constantFrom(-3_600_000, -60_000, -5_000, 1, 1, 2, 1_000, 2_000, 60_000),
});

function bodyOf(it: Connected, { kind, value }: Told, at: Date): object {
  if (kind === 'deauthorized') return deauthorized(it, at);
  if (kind === 'removed') return userEvent(it, 'user.deleted', {}, at.getTime());
  const change = kind === 'email' ? { email: `${value}@acme.example` } : { display_name: value };
  return userEvent(it, 'user.updated', change, at.getTime());
}

/** What has to come of a set of events, whatever their order. */
function expected(consented: State, events: readonly Told[]): State {
  const since = events.filter(({ offset }) => offset > 0);
  if (since.some(({ kind }) => kind === 'deauthorized'))
    return { health: 'REVOKED DEAUTHORIZED_AT_PROVIDER', email: null, name: null, userId: null };
  const newest = (kind: Told['kind']) =>
    since
      .filter((event) => event.kind === kind)
      .toSorted((a, b) => b.offset - a.offset || (a.value < b.value ? 1 : -1))[0]?.value;
  const email = newest('email');
  return {
    ...consented,
    health: since.some(({ kind }) => kind === 'removed')
      ? 'REAUTHORIZATION_REQUIRED PROVIDER_USER_REMOVED'
      : consented.health,
    email: email === undefined ? consented.email : `${email}@acme.example`,
    name: newest('name') ?? consented.name,
  };
}

test('whatever events arrive, in whatever order, repeated or at once, the same state comes of them', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const orders = fc
    .array(told, { minLength: 1, maxLength: 6 })
    .chain((events) =>
      fc.tuple(
        fc.constant(events),
        fc.shuffledSubarray([...events, ...events], { minLength: 2 * events.length }),
        fc.boolean(),
      ),
    );
  await fc.assert(
    fc.asyncProperty(orders, async ([events, order, atOnce]) => {
      const it = await connected(app);
      const { authorizedAt, ...consented } = await stateOf(it);
      const deliverOne = (event: Told) => send(it, bodyOf(it, event, new Date(authorizedAt.getTime() + event.offset)));
      if (atOnce) expect(new Set(await Promise.all(order.map(deliverOne)))).toEqual(new Set([200]));
      else for (const event of order) expect(await deliverOne(event)).toBe(200);
      const { authorizedAt: _, ...state } = await stateOf(it);
      expect(state).toEqual(expected(consented, events));
    }),
    { numRuns: 30 },
  );
}, 60_000);

// --------------------------------------------------------------------------------------------------------------- meetings

test.each(['meeting.created', 'meeting.updated', 'meeting.deleted'])(
  '%s is remembered by its name alone, and once',
  async (event) => {
    const it = await connected();
    const object = { id: 98765432101, uuid: 'x==', topic: 'Secret plan', password: 'letmein', join_url: 'https://x' };
    const body = {
      event,
      event_ts: Date.now(),
      payload: { account_id: accountId, operator: 'a@acme.example', object },
    };
    expect([await send(it, body), await send(it, body)]).toEqual([200, 200]);
    const rows = await server.db.query(sql`
      SELECT e.name, dedupe_hash FROM webhook_event e JOIN provider_app a ON a.id = e.app_id
      WHERE a.client_id = ${it.app.clientId}`);
    expect(rows).toEqual([{ name: event, dedupe_hash: expect.anything() }]);
    expect(server.logs.join('\n')).not.toContain('Secret plan');
  },
);
