import { createHmac } from 'node:crypto';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { SHARED_ROOT_KEY, startSecondServer } from './support/second-server.js';
import { startTestServer } from './support/server.js';
import { connect, createTenant, credential, registerApp, type RegisteredApp } from './support/story.js';
import { openSse } from './support/streams.js';
import { until } from './support/until.js';
import { deliver, nowSeconds as now, signatureOf } from './support/webhook.js';
import { newZoomUser } from './support/zoom-user.js';

const server = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY });
const accountId = server.sandbox.control.accounts()[0]!.id;

interface Connected {
  app: RegisteredApp;
  tenantId: string;
  zoomUserId: string;
}

/** A tenant whose user `u` is connected through an app of its own. */
async function connected(): Promise<Connected> {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const zoomUserId = newZoomUser(server);
  await connect(server, 'beginAuthorization', { tenantId, userId: 'u', appId: app.id }, zoomUserId);
  return { app, tenantId, zoomUserId };
}

const health = async (tenantId: string): Promise<{ status: string; reason: string }> => {
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { health { status reason } } } } }',
    { t: tenantId },
  );
  return userConnections.edges[0].node.health;
};
const HEALTHY = { status: 'HEALTHY', reason: 'CONNECTED' };
const DEAUTHORIZED = { status: 'REVOKED', reason: 'DEAUTHORIZED_AT_PROVIDER' };

const events = async (tenantId: string): Promise<string[]> => {
  const { healthEvents } = await server.data(
    'query ($t: String!) { healthEvents(filter: { tenantId: $t }) { edges { node { reason } } } }',
    { t: tenantId },
  );
  return healthEvents.edges.map(({ node }: { node: { reason: string } }) => node.reason);
};

function deauthorization(
  { app, zoomUserId }: Connected,
  payload: Record<string, unknown> = {},
  event_ts: unknown = Date.now(),
) {
  return {
    event: 'app_deauthorized',
    event_ts,
    payload: {
      account_id: accountId,
      user_id: zoomUserId,
      signature: 'x',
      client_id: app.clientId,
      deauthorization_time: new Date().toISOString(),
      ...payload,
    },
  };
}

const stored = async (app: RegisteredApp) =>
  (
    await server.db.query(
      sql`SELECT 1 FROM webhook_event e JOIN provider_app a ON a.id = e.app_id WHERE a.client_id = ${app.clientId}`,
    )
  ).length;

test('when a user removes the app at Zoom, the connection ends, subscribers are told within a second, and its credential says why', async () => {
  const it = await connected();
  const stream = await openSse(
    server.url,
    'subscription ($t: String!, $a: String) { healthChanged(tenantId: $t, after: $a) { reason previous current } }',
    {
      variables: { t: it.tenantId, a: Buffer.from('e0').toString('base64url') },
    },
  );
  expect((await stream.next())?.data.healthChanged.reason).toBe('CONNECTED');
  const told = stream.next();
  const removedAt = performance.now();
  const { deliveryId } = server.sandbox.control.removeGrant({ clientId: it.app.clientId, userId: it.zoomUserId });
  const heardAt = told.then(() => performance.now());
  const entry = await server.sandbox.control.waitFor(
    (each) => each.deliveryId === deliveryId && each.outcome !== 'sending',
  );
  expect(entry).toMatchObject({ status: 200, outcome: 'delivered' });
  expect((await told)?.data.healthChanged).toEqual({
    previous: 'HEALTHY',
    current: 'REVOKED',
    reason: 'DEAUTHORIZED_AT_PROVIDER',
  });
  expect((await heardAt) - removedAt).toBeLessThan(1_000);
  await stream.close();
  expect(await credential(server, { tenantId: it.tenantId, credentialFor: 'USER', userId: 'u' })).toMatchObject({
    __typename: 'ReauthorizationRequiredError',
    reason: 'DEAUTHORIZED_AT_PROVIDER',
  });
  expect(
    await server.db.query(
      sql`SELECT 1 FROM credential c JOIN provider_grant g ON g.id = c.grant_id JOIN tenant t ON t.id = g.tenant_id WHERE t.external_id = ${it.tenantId}`,
    ),
  ).toEqual([]);
});

test.each(['top', 'payload', 'payload-string'] as const)(
  'an event is understood with its time %s',
  async (webhookEventTsPlacement) => {
    const it = await connected();
    server.sandbox.control.setKnobs({ webhookEventTsPlacement });
    server.sandbox.control.removeGrant({ clientId: it.app.clientId, userId: it.zoomUserId });
    await until(async () => (await health(it.tenantId)).status === 'REVOKED');
    expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
  },
);

test('twenty copies of one delivery at once are all accepted and take effect once', async () => {
  const it = await connected();
  const body = JSON.stringify(deauthorization(it));
  const answers = await Promise.all(
    Array.from({ length: 20 }, (_, index) =>
      deliver(it.app.webhookUrl, body, { secret: it.app.atZoom.webhookSecret, timestamp: now() - (index % 3) }),
    ),
  );
  expect(answers.map(({ status }) => status)).toEqual(Array(20).fill(200));
  expect(await events(it.tenantId)).toEqual(['CONNECTED', 'DEAUTHORIZED_AT_PROVIDER']);
  expect(await stored(it.app)).toBe(1);
});

test('a deauthorization ends the connections of its user alone', async () => {
  const it = await connected();
  const other = newZoomUser(server);
  const otherTenant = await createTenant(server);
  await connect(server, 'beginAuthorization', { tenantId: otherTenant, userId: 'u', appId: it.app.id }, other);
  expect((await deliver(it.app.webhookUrl, deauthorization(it), { secret: it.app.atZoom.webhookSecret })).status).toBe(
    200,
  );
  expect([await health(it.tenantId), await health(otherTenant)]).toEqual([DEAUTHORIZED, HEALTHY]);
});

test('of an admin-managed app a deauthorization ends the installation of the account, whoever removed it', async () => {
  const app = await registerApp(server, 'ADMIN_MANAGED');
  const tenantId = await createTenant(server);
  await connect(
    server,
    'beginInstallation',
    { tenantId, userId: 'admin', appId: app.id },
    newZoomUser(server, { role: 'Admin' }),
  );
  const body = deauthorization({ app, tenantId, zoomUserId: newZoomUser(server) });
  expect((await deliver(app.webhookUrl, body, { secret: app.atZoom.webhookSecret })).status).toBe(200);
  const { installations } = await server.data(
    'query ($t: String!) { installations(filter: { tenantId: $t }) { edges { node { health { status reason } } } } }',
    { t: tenantId },
  );
  expect(installations.edges).toEqual([{ node: { health: DEAUTHORIZED } }]);
});

// ----------------------------------------------------------------------------------------------------------- signatures

test('what Zoom did not sign, byte for byte and lately, is answered 401 and changes nothing', async () => {
  const it = await connected();
  const { webhookUrl, atZoom } = it.app;
  const secret = atZoom.webhookSecret;
  const body = JSON.stringify(deauthorization(it));
  const good = signatureOf(secret, now(), body);
  const at = (seconds: number) => ({ timestamp: now() + seconds, secret });
  const attempts: [string, unknown, Parameters<typeof deliver>[2]][] = [
    [
      'one byte changed',
      body.replace('app_deauthorized', 'app_deauthorizee'),
      { secret, headers: { 'x-zm-signature': good } },
    ],
    ['one blank more', `${body} `, { secret, headers: { 'x-zm-signature': good } }],
    ['other white space', JSON.stringify(JSON.parse(body), null, 1), { secret, headers: { 'x-zm-signature': good } }],
    [
      'other order',
      JSON.stringify(Object.fromEntries(Object.entries(JSON.parse(body)).toReversed())),
      { secret, headers: { 'x-zm-signature': good } },
    ],
    ['another secret', body, { secret: 'another' }],
    ['the client secret', body, { secret: atZoom.clientSecret }],
    ['an empty secret', body, { secret: '' }],
    ['no signature', body, { secret, headers: { 'x-zm-signature': undefined } }],
    ['an empty signature', body, { secret, headers: { 'x-zm-signature': '' } }],
    ['another version', body, { secret, headers: { 'x-zm-signature': good.replace('v0', 'v1') } }],
    ['the bare digest', body, { secret, headers: { 'x-zm-signature': good.slice(3) } }],
    ['the digest in capitals', body, { secret, headers: { 'x-zm-signature': `v0=${good.slice(3).toUpperCase()}` } }],
    ['a shorter digest', body, { secret, headers: { 'x-zm-signature': good.slice(0, -2) } }],
    ['no timestamp', body, { secret, headers: { 'x-zm-request-timestamp': undefined } }],
    ['a timestamp that is none', body, { secret, timestamp: 'soon' }],
    [
      'another timestamp than was signed',
      body,
      { secret, headers: { 'x-zm-request-timestamp': String(now() + 1), 'x-zm-signature': good } },
    ],
    ['an old timestamp', body, at(-302)],
    ['a future timestamp', body, at(303)],
    ['a token of the old way', body, { secret, headers: { 'x-zm-signature': undefined, authorization: secret } }],
  ];
  for (const [name, sent, options] of attempts)
    expect([name, (await deliver(webhookUrl, sent, options)).status]).toEqual([name, 401]);
  expect(await health(it.tenantId)).toEqual(HEALTHY);
  expect(await stored(it.app)).toBe(0);
  // The same body, rightly signed within the tolerance, takes effect: none of the above was refused for another reason.
  expect((await deliver(webhookUrl, body, at(-290))).status).toBe(200);
  expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
});

test('how far off a timestamp may be is a setting', async () => {
  const it = await connected();
  const strict = await startSecondServer(server.db, { LATCHKEY_WEBHOOK_TOLERANCE_SECONDS: '30' });
  const url = `${strict.url}${new URL(it.app.webhookUrl).pathname}`;
  const secret = it.app.atZoom.webhookSecret;
  const statuses = [];
  for (const seconds of [-40, 40, -20, 20])
    statuses.push((await deliver(url, { event: 'x', payload: {} }, { secret, timestamp: now() + seconds })).status);
  expect(statuses).toEqual([401, 401, 200, 200]);
});

test('odd white space and characters do no harm to what is signed over the very bytes', async () => {
  const it = await connected();
  const body = `\n{  "payload" : ${JSON.stringify({ ...deauthorization(it).payload, note: 'Köln 🎉' })} ,\t"event":"app_deauthorized" }\n`;
  expect((await deliver(it.app.webhookUrl, body, { secret: it.app.atZoom.webhookSecret })).status).toBe(200);
  expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
});

test('the secret of one app signs nothing for another', async () => {
  const [it, other] = [await connected(), await connected()];
  expect(
    (await deliver(it.app.webhookUrl, deauthorization(it), { secret: other.app.atZoom.webhookSecret })).status,
  ).toBe(401);
  // Signed rightly for the address, but about another app.
  expect(
    (await deliver(other.app.webhookUrl, deauthorization(it), { secret: other.app.atZoom.webhookSecret })).status,
  ).toBe(200);
  expect([await health(it.tenantId), await health(other.tenantId)]).toEqual([HEALTHY, HEALTHY]);
});

test('an app that is not registered is nowhere, and one without a webhook secret takes nothing', async () => {
  expect((await deliver(`${server.url}/webhooks/zoom/unknown`, {}, { secret: 'x' })).status).toBe(404);
  const { registerProviderApp } = await server.data(
    'mutation { registerProviderApp(input: { name: "x", kind: USER_MANAGED, clientId: "without", clientSecret: "x" }) { ... on RegisterProviderAppSuccess { providerApp { webhookUrl } } } }',
  );
  for (const secret of ['', 'x', 'undefined', 'null']) {
    expect((await deliver(registerProviderApp.providerApp.webhookUrl, {}, { secret })).status).toBe(401);
  }
});

test('while a webhook secret is changed both are taken, and the former no longer once it is retired', async () => {
  const it = await connected();
  const former = it.app.atZoom.webhookSecret;
  const answers = async (secret: string) =>
    (await deliver(it.app.webhookUrl, { event: 'user.updated', payload: {} }, { secret })).status;
  const change = (patch: Record<string, unknown>) =>
    server.data('mutation ($input: UpdateProviderAppInput!) { updateProviderApp(input: $input) { __typename } }', {
      input: { id: it.app.id, ...patch },
    });
  await change({ webhookSecret: 'the-second' });
  expect([await answers(former), await answers('the-second'), await answers('the-third')]).toEqual([200, 200, 401]);
  // The answer to a validation uses the secret that signed it.
  const plainToken = 'abcdefgh12345678';
  const validation = await deliver(
    it.app.webhookUrl,
    { event: 'endpoint.url_validation', payload: { plainToken } },
    { secret: former },
  );
  expect(await validation.json()).toEqual({
    plainToken,
    encryptedToken: createHmac('sha256', former).update(plainToken).digest('hex'),
  });
  await server.db.query(
    sql`UPDATE provider_app SET former_webhook_secret_retires_at = now() WHERE client_id = ${it.app.clientId}`,
  );
  expect([await answers(former), await answers('the-second')]).toEqual([401, 200]);
  await change({ webhookSecret: 'the-third', retireFormerSecretAt: new Date().toISOString() });
  expect([await answers(former), await answers('the-second'), await answers('the-third')]).toEqual([401, 401, 200]);
});

// ----------------------------------------------------------------------------------------------------------- validation

test('Zoom can validate the address, and when it did is told', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const validatedAt = async () =>
    (await server.data('query ($id: ID!) { providerApp(id: $id) { webhookValidatedAt } }', { id: app.id })).providerApp
      .webhookValidatedAt;
  expect(await validatedAt()).toBeNull();
  expect(await server.sandbox.control.validateWebhook(app.clientId)).toEqual({
    valid: true,
    status: 200,
    problem: null,
  });
  expect(Date.now() - Date.parse(await validatedAt())).toBeLessThan(60_000);
});

test('a validation is answered to nobody but who signed it, and never with what could serve as a signature', async () => {
  const it = await connected();
  const { webhookUrl, atZoom } = it.app;
  const validation = (plainToken: unknown) =>
    JSON.stringify({ event: 'endpoint.url_validation', event_ts: Date.now(), payload: { plainToken } });
  const validatedAt = async () =>
    (
      await server.db.query<{ at: Date | null }>(
        sql`SELECT webhook_validated_at AS at FROM provider_app WHERE client_id = ${it.app.clientId}`,
      )
    )[0]?.at;

  for (const headers of [
    { 'x-zm-signature': undefined },
    { 'x-zm-signature': signatureOf('x', now(), validation('abcdefgh')) },
  ]) {
    const refused = await deliver(webhookUrl, validation('abcdefgh'), { secret: atZoom.webhookSecret, headers });
    expect([refused.status, await refused.text()]).toEqual([401, '{"error":"The signature is not right."}']);
  }
  const forged = JSON.stringify(deauthorization(it));
  const tokens = [
    `v0:${now()}:${forged}`,
    'v0:1:x',
    'abcdefgh:',
    '',
    'short',
    'x'.repeat(129),
    'abc defgh',
    'abcdefgé',
    7,
    null,
    ['abcdefgh'],
    undefined,
  ];
  for (const token of tokens) {
    const refused = await deliver(webhookUrl, validation(token), { secret: atZoom.webhookSecret });
    expect([token, refused.status]).toEqual([token, 400]);
    expect(await refused.text()).not.toMatch(/[0-9a-f]{64}/);
  }
  expect([await validatedAt(), await stored(it.app), await health(it.tenantId)]).toEqual([null, 0, HEALTHY]);
});

test('the answer to a validation cannot be had to forge an event with', async () => {
  const it = await connected();
  const forged = JSON.stringify(deauthorization(it));
  const timestamp = now();
  const oracle = { event: 'endpoint.url_validation', payload: { plainToken: `v0:${timestamp}:${forged}` } };
  for (const headers of [{ 'x-zm-signature': undefined }, {}]) {
    const answer = await (await deliver(it.app.webhookUrl, oracle, { secret: 'unknown', headers })).text();
    const learned = /[0-9a-f]{64}/.exec(answer)?.[0];
    expect(learned).toBeUndefined();
    const signature = `v0=${learned ?? 'f'.repeat(64)}`;
    const attack = { secret: 'unknown', timestamp, headers: { 'x-zm-signature': signature } };
    expect((await deliver(it.app.webhookUrl, forged, attack)).status).toBe(401);
  }
  expect([await stored(it.app), await health(it.tenantId)]).toEqual([0, HEALTHY]);
});

// -------------------------------------------------------------------------------------------- what is not for us to act on

test('what is signed but not understood is accepted with one log line, and changes nothing', async () => {
  const it = await connected();
  const secret = it.app.atZoom.webhookSecret;
  const payload = deauthorization(it).payload;
  const bodies: [string, unknown][] = [
    ['an unknown event', { event: 'meeting.created', event_ts: Date.now(), payload }],
    ['malformed JSON', '{"event":'],
    ['no JSON', 'event=app_deauthorized'],
    ['nothing', ''],
    ['null', 'null'],
    ['a list', [deauthorization(it)]],
    ['no payload', { event: 'app_deauthorized' }],
    ['a payload that is a text', { event: 'app_deauthorized', payload: 'x' }],
    ['an event that is no text', { event: 7, payload }],
    ['another case', { event: 'APP_DEAUTHORIZED', payload }],
    ['another client id', deauthorization(it, { client_id: 'another' })],
    ['no client id', deauthorization(it, { client_id: undefined })],
    ['no user', deauthorization(it, { user_id: undefined })],
    ['an empty user', deauthorization(it, { user_id: '' })],
    ['a user that is a list', deauthorization(it, { user_id: [it.zoomUserId] })],
    ['another account', deauthorization(it, { account_id: 'another' })],
    ['a user that no text could be', deauthorization(it, { user_id: 'a\0b' })],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x00]).toString('latin1')],
  ];
  for (const [name, body] of bodies) {
    const before = server.logs.length;
    expect([name, (await deliver(it.app.webhookUrl, body, { secret })).status]).toEqual([name, 200]);
    const lines = server.logs.slice(before).filter((line) => /webhook|removed at Zoom/.test(line));
    expect([name, lines.length]).toEqual([name, 1]);
    for (const line of lines) expect(line).not.toContain(it.zoomUserId);
  }
  expect(await health(it.tenantId)).toEqual(HEALTHY);
  expect(await events(it.tenantId)).toEqual(['CONNECTED']);
});

test('times that no database holds do not make a delivery fail', async () => {
  for (const [deauthorization_time, event_ts] of [
    ['0000-01-01T00:00:00Z', 8.64e15],
    ['9999-99-99', 'never'],
    [8.64e15, -1],
    [1, 1],
  ]) {
    const it = await connected();
    const body = deauthorization(it, { deauthorization_time }, event_ts);
    expect((await deliver(it.app.webhookUrl, body, { secret: it.app.atZoom.webhookSecret })).status).toBe(200);
    expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
  }
});

test('every refused or repeated delivery has its status and one log line that holds nothing of it', async () => {
  const it = await connected();
  const { webhookUrl, atZoom } = it.app;
  const secret = atZoom.webhookSecret;
  const body = {
    event: 'user.updated',
    event_ts: Date.now(),
    payload: { account_id: accountId, object: { id: 'm4rk' } },
  };
  const validation = { event: 'endpoint.url_validation', payload: { plainToken: 'm4rk:' } };
  const attempts: [string, number, string, unknown, Parameters<typeof deliver>[2]][] = [
    ['unknown-app', 404, `${server.url}/webhooks/zoom/m4rk`, body, { secret }],
    ['bad-signature', 401, webhookUrl, body, { secret: 'm4rk' }],
    ['bad-signature', 401, webhookUrl, 'm4rk', { secret: 'm4rk' }],
    ['stale-timestamp', 401, webhookUrl, body, { secret, timestamp: now() - 302 }],
    ['stale-timestamp', 401, webhookUrl, body, { secret, timestamp: now() + 303 }],
    ['malformed-validation', 400, webhookUrl, validation, { secret }],
    ['too-large', 413, webhookUrl, 'm4rk'.repeat(300_000), { secret }],
    ['malformed', 200, webhookUrl, 'm4rk', { secret }],
    ['"count":0', 200, webhookUrl, body, { secret }],
    ['delivered before', 200, webhookUrl, body, { secret, timestamp: now() - 1 }],
  ];
  for (const [reason, status, url, sent, options] of attempts) {
    const before = server.logs.length;
    expect([reason, (await deliver(url, sent, options)).status]).toEqual([reason, status]);
    const lines = server.logs.slice(before).filter((line) => line.includes('webhook'));
    expect([reason, lines.length]).toEqual([reason, 1]);
    expect(lines[0]).toContain(reason);
    expect(lines[0]).not.toContain('m4rk');
  }
  expect(await health(it.tenantId)).toEqual(HEALTHY);
  expect(await stored(it.app)).toBe(1);
});

// ----------------------------------------------------------------------------------------------------------------- order

test('a deauthorization from before a reconnect arrives late and does not end the new connection', async () => {
  const it = await connected();
  const secret = it.app.atZoom.webhookSecret;
  const first = new Date();
  // The reconnect comes in a later second, so that Zoom's times to the second can tell the two apart.
  await until(() => Date.now() > Math.ceil(first.getTime() / 1_000) * 1_000 + 50);
  await connect(server, 'beginAuthorization', { tenantId: it.tenantId, userId: 'u', appId: it.app.id }, it.zoomUserId);
  const times = [
    first.toISOString(),
    first.toISOString().replace(/\.\d+Z$/, 'Z'),
    first.toISOString().slice(0, 19).replace('T', ' '),
  ];
  for (const deauthorization_time of times) {
    expect((await deliver(it.app.webhookUrl, deauthorization(it, { deauthorization_time }), { secret })).status).toBe(
      200,
    );
    expect(await health(it.tenantId)).toEqual(HEALTHY);
  }
  // Without a time of its own the event's counts.
  const untimed = deauthorization(it, { deauthorization_time: undefined }, first.getTime());
  expect((await deliver(it.app.webhookUrl, untimed, { secret })).status).toBe(200);
  expect(await health(it.tenantId)).toEqual(HEALTHY);
  expect(await credential(server, { tenantId: it.tenantId, credentialFor: 'USER', userId: 'u' })).toMatchObject({
    __typename: 'Credential',
  });
});

test('a deauthorization in the second of the consent ends the connection, since seconds cannot tell which was first', async () => {
  const it = await connected();
  const [{ at } = { at: new Date() }] = await server.db.query<{ at: Date }>(sql`
    SELECT authorized_at AS at FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id WHERE t.external_id = ${it.tenantId}`);
  const earlier = new Date(at.getTime() - 1);
  // To the millisecond it was before, and harms nothing; unless that happens to be a whole second.
  if (earlier.getTime() % 1_000 !== 0) {
    await deliver(it.app.webhookUrl, deauthorization(it, { deauthorization_time: earlier.toISOString() }), {
      secret: it.app.atZoom.webhookSecret,
    });
    expect(await health(it.tenantId)).toEqual(HEALTHY);
  }
  const second = `${at.toISOString().slice(0, 19)}Z`;
  await deliver(it.app.webhookUrl, deauthorization(it, { deauthorization_time: second }), {
    secret: it.app.atZoom.webhookSecret,
  });
  expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
});

test('a deauthorization of what was disconnected here adds no event', async () => {
  const it = await connected();
  const { userConnections } = await server.data(
    'query ($t: String!) { userConnections(filter: { tenantId: $t }) { edges { node { id } } } }',
    { t: it.tenantId },
  );
  await server.data('mutation ($id: ID!) { revokeUserConnection(input: { id: $id }) { __typename } }', {
    id: userConnections.edges[0].node.id,
  });
  await deliver(it.app.webhookUrl, deauthorization(it), { secret: it.app.atZoom.webhookSecret });
  expect(await events(it.tenantId)).toEqual(['CONNECTED', 'DISCONNECTED']);
});

// ---------------------------------------------------------------------------------------------------------------- limits

test('a body over 1 MiB is not read to its end', async () => {
  const it = await connected();
  const secret = it.app.atZoom.webhookSecret;
  expect((await deliver(it.app.webhookUrl, ' '.repeat(1_048_577), { secret })).status).toBe(413);
  expect((await deliver(it.app.webhookUrl, ' '.repeat(1_048_576), { secret })).status).toBe(200);
});

test('while the database is away deliveries are answered 503, and taken when it is back', async () => {
  const it = await connected();
  let away = false;
  const failing = <Run extends (...args: never[]) => Promise<unknown>>(run: Run): Run =>
    ((...args: Parameters<Run>) => (away ? Promise.reject(new Error('connection refused')) : run(...args))) as Run;
  const second = await startSecondServer({
    ...server.db,
    query: failing(server.db.query),
    transaction: failing(server.db.transaction),
  });
  const url = `${second.url}${new URL(it.app.webhookUrl).pathname}`;
  const body = JSON.stringify(deauthorization(it));
  away = true;
  const refused = await deliver(url, body, { secret: it.app.atZoom.webhookSecret });
  expect([refused.status, refused.headers.get('retry-after')]).toEqual([503, '60']);
  expect(await refused.text()).not.toContain('connection refused');
  expect((await fetch(`${second.url}/readyz`)).status).toBe(503);
  expect((await fetch(`${second.url}/livez`)).status).toBe(200);
  away = false;
  expect((await deliver(url, body, { secret: it.app.atZoom.webhookSecret })).status).toBe(200);
  expect(await health(it.tenantId)).toEqual(DEAUTHORIZED);
});
