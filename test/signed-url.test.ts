import { createHmac } from 'node:crypto';
import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import {
  age,
  type Connection,
  connectUser,
  disconnect,
  expire,
  meStatus,
  spoilRefresh,
} from './support/connections.js';
import { HOST_SCOPES, installForAccount, startMeetingWorkshop } from './support/meetings.js';
import { createTenant, registerApp } from './support/story.js';

const { server, createWorker } = await startMeetingWorkshop();
const { control } = server.sandbox;

beforeEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

const connectHost = async (given: Parameters<typeof connectUser>[1] = {}): Promise<Connection> =>
  connectUser(server, { app: await registerApp(server, 'USER_MANAGED', HOST_SCOPES), ...given });

async function sign(input: Record<string, unknown>): Promise<any> {
  const data = await server.data(
    `mutation ($input: CreateSignedUrlInput!) {
      createSignedUrl(input: $input) {
        __typename
        ... on CreateSignedUrlSuccess { signedUrl { url expiresAt } }
        ... on InvalidInputError { path }
        ... on Error { message }
      }
    }`,
    { input },
  );
  return data.createSignedUrl.signedUrl ?? data.createSignedUrl;
}

const signFor = async (host: Connection, more: Record<string, unknown> = {}): Promise<string> =>
  (await sign({ tenantId: host.tenantId, kind: 'ACCESS', grantId: host.id, ...more })).url;

/** What a vendor gets who fetches the address. */
async function fetchToken(url: string, headers: Record<string, string> = {}, method = 'GET') {
  const response = await fetch(url, { method, headers, redirect: 'manual' });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

const withKey = (path: string, key = server.adminKey, more: Record<string, string> = {}) =>
  fetchToken(`${server.url}${path}`, { authorization: `Bearer ${key}`, ...more });

const isAlive = (token: string) => meStatus({ apiUrl: server.sandbox.origin, accessToken: token });

test('whoever has the URL gets the bare access token as text, which nothing may keep', async () => {
  const host = await connectHost();
  const url = await signFor(host);
  const { status, headers, text } = await fetchToken(url);
  expect(status).toBe(200);
  expect(headers.get('content-type')).toBe('text/plain; charset=utf-8');
  expect(headers.get('cache-control')).toBe('no-store');
  expect(headers.get('content-length')).toBe(String(text.length));
  expect(await isAlive(text)).toBe(200);
  const { searchParams } = new URL(url);
  expect([...searchParams.keys()]).toEqual(['kind', 'tenant', 'expires', 'signature']);
});

test('the token that is given is good for two minutes or more', async () => {
  const host = await connectHost();
  const url = await signFor(host);
  const before = (await fetchToken(url)).text;
  await age(server, 130, host);
  expect((await fetchToken(url)).text).toBe(before);
  await age(server, 115, host);
  const renewed = await fetchToken(url);
  expect(renewed.status).toBe(200);
  expect(renewed.text).not.toBe(before);
  await age(server, 115, host);
  spoilRefresh(server, host, { kind: 'status', status: 503, headers: { 'retry-after': '17' } });
  const late = await fetchToken(url);
  expect(late.status).toBe(503);
  expect(Number(late.headers.get('retry-after'))).toBeGreaterThan(0);
});

test('a URL for a meeting gives the token of whoever can act for its host', async () => {
  const { members, tenantId } = await installForAccount(server);
  const meetingId = String(control.createMeeting({ hostId: members[0]!.id }).id);
  const access = await fetchToken((await sign({ tenantId, kind: 'ACCESS', meetingId })).url);
  expect(access.status).toBe(200);
  expect(await isAlive(access.text)).toBe(200);
  const recording = await fetchToken((await sign({ tenantId, kind: 'LOCAL_RECORDING', meetingId })).url);
  expect(recording.status).toBe(200);
  expect(recording.text).toMatch(/^\S{20,}$/);
});

test('access keys and tokens on behalf of a user are fetched by their connection', async () => {
  const host = await connectHost();
  const typeOf = (text: string) => JSON.parse(Buffer.from(text.split('.')[1] ?? '', 'base64url').toString()).typ;
  const zak = await fetchToken(await signFor(host, { kind: 'ZAK' }));
  expect([zak.status, typeOf(zak.text)]).toEqual([200, 'zak']);
  const onBehalf = await fetchToken(await signFor(host, { kind: 'ON_BEHALF_OF', meetingId: '812 3456-7890' }));
  expect([onBehalf.status, typeOf(onBehalf.text)]).toEqual([200, 'onbehalf']);
});

test('a URL that was changed in any part of it is refused, and the refusals are all the same', async () => {
  const [host, other] = [await connectHost(), await connectHost()];
  const signed = new URL(await signFor(host, { kind: 'ON_BEHALF_OF', meetingId: '81234567890' }));
  await signFor(other);
  const changes: ((url: URL) => void)[] = [
    (url) => url.searchParams.set('kind', 'access'),
    (url) => url.searchParams.delete('kind'),
    (url) => url.searchParams.set('kind', 'everything'),
    (url) => url.searchParams.set('meeting', '81234567891'),
    (url) => url.searchParams.delete('meeting'),
    (url) => url.searchParams.set('tenant', other.tenantId),
    (url) => url.searchParams.set('tenant', 'org_nobody'),
    (url) => url.searchParams.set('tenant', 'nul\0'),
    (url) => url.searchParams.delete('tenant'),
    (url) => url.searchParams.set('expires', String(Number(url.searchParams.get('expires')) + 1)),
    (url) => url.searchParams.set('expires', '9'.repeat(30)),
    (url) => url.searchParams.delete('expires'),
    (url) => url.searchParams.set('signature', 'A'.repeat(43)),
    (url) => url.searchParams.set('signature', ''),
    (url) => url.searchParams.set('signature', `${url.searchParams.get('signature')}A`),
    (url) => url.searchParams.append('kind', 'zak'),
    (url) => url.searchParams.append('signature', 'A'.repeat(43)),
    (url) => (url.pathname = `/tokens/grants/${other.id}`),
    (url) => (url.pathname = '/tokens/grants/nonsense'),
    (url) => (url.pathname = '/tokens/meetings/81234567890'),
  ];
  const answers = new Set<string>();
  for (const change of changes) {
    const url = new URL(signed);
    change(url);
    const { status, text } = await fetchToken(url.href);
    answers.add(`${status} ${text}`);
  }
  expect([...answers]).toEqual(['401 {"error":"The URL is not signed rightly, or its time is over."}']);
  // What a vendor adds is passed over.
  signed.searchParams.set('bot_id', '17');
  expect((await fetchToken(signed.href)).status).toBe(200);
});

test('a URL ends when its time is over', async () => {
  const host = await connectHost();
  const signed = await sign({ tenantId: host.tenantId, kind: 'ACCESS', grantId: host.id, ttlSeconds: 60 });
  expect((Date.parse(signed.expiresAt) - Date.now()) / 1_000).toBeLessThanOrEqual(61);
  expect((await fetchToken(signed.url)).status).toBe(200);
  // Signed as the server signs, so that it can be given an end that has come.
  const { db, vault } = createWorker();
  const [row] = await db.query<{ tenantId: string; key: Uint8Array }>(sql`
    SELECT tenant_id AS "tenantId", sealed_key AS key FROM url_signing_key k JOIN tenant t ON t.id = k.tenant_id
    WHERE t.external_id = ${host.tenantId}`);
  const { tenantId, key: sealed } = row!;
  const place = { tenantId, table: 'url_signing_key', column: 'sealed_key', recordId: tenantId, version: 1 };
  const key = Buffer.from((await vault.open(db, place, sealed)).reveal(), 'base64');
  const statusWith = async (expires: number) => {
    const message = JSON.stringify(['latchkey token url 1', tenantId, 'access', 'grants', host.rowId, null, expires]);
    const url = new URL(signed.url);
    url.searchParams.set('expires', String(expires));
    url.searchParams.set('signature', createHmac('sha256', key).update(message).digest('base64url'));
    return (await fetchToken(url.href)).status;
  };
  const now = Math.floor(Date.now() / 1_000);
  expect([await statusWith(now + 10), await statusWith(now - 1)]).toEqual([200, 401]);
});

test('all URLs of a tenant end at once when they are revoked, and those of others do not', async () => {
  const [host, other] = [await connectHost(), await connectHost()];
  const [url, kept] = [await signFor(host), await signFor(other)];
  const revoke = (tenantId: string) =>
    server.data(
      `mutation ($input: RevokeSignedUrlsInput!) {
        revokeSignedUrls(input: $input) { ... on RevokeSignedUrlsSuccess { tenant { externalId } } ... on Error { message } }
      }`,
      { input: { tenantId } },
    );
  expect(await revoke(host.tenantId)).toEqual({ revokeSignedUrls: { tenant: { externalId: host.tenantId } } });
  expect((await fetchToken(url)).status).toBe(401);
  expect((await fetchToken(kept)).status).toBe(200);
  expect((await fetchToken(await signFor(host))).status).toBe(200);
  expect((await revoke(await createTenant(server))).revokeSignedUrls.tenant).toBeDefined();
});

test('a connection that has ended is 409, and a meeting that nobody knows 404', async () => {
  const host = await connectHost();
  const url = await signFor(host);
  const meetingUrl = (await sign({ tenantId: host.tenantId, kind: 'ACCESS', meetingId: '81234567890' })).url;
  expect((await fetchToken(meetingUrl)).status).toBe(404);
  await expire(server, host);
  spoilRefresh(server, host, { kind: 'status', status: 400, body: { error: 'invalid_grant' } });
  const ended = await fetchToken(url);
  expect([ended.status, JSON.parse(ended.text).code]).toEqual([409, 'ReauthorizationRequiredError']);
  await disconnect(server, host);
  expect((await fetchToken(url)).status).toBe(409);
});

test('what Zoom does not let the connection do is 403', async () => {
  const host = await connectHost();
  const meetingId = String(control.createMeeting({ hostId: host.zoomUserId }).id);
  control.updateUser(host.zoomUserId, { localRecordingOff: true });
  const { url } = await sign({ tenantId: host.tenantId, kind: 'LOCAL_RECORDING', meetingId });
  const refused = await fetchToken(url);
  expect([refused.status, JSON.parse(refused.text).code]).toEqual([403, 'RefusedByProviderError']);
  const app = await registerApp(server, 'USER_MANAGED', ['user:read:user']);
  const lacking = await fetchToken(await signFor(await connectUser(server, { app }), { kind: 'ZAK' }));
  expect([lacking.status, JSON.parse(lacking.text).code]).toEqual([403, 'MissingScopesError']);
});

test('a database that does not serve is 503 with a time to wait', async () => {
  const host = await connectHost();
  const url = await signFor(host);
  await server.db.query(sql`ALTER TABLE url_signing_key RENAME TO url_signing_key_away`);
  try {
    const { status, headers } = await fetchToken(url);
    expect([status, headers.get('retry-after')]).toEqual([503, '5']);
  } finally {
    await server.db.query(sql`ALTER TABLE url_signing_key_away RENAME TO url_signing_key`);
  }
  expect((await fetchToken(url)).status).toBe(200);
});

test('a server key gets the same tokens without a signature', async () => {
  const host = await connectHost();
  const meeting = control.createMeeting({ hostId: host.zoomUserId });
  const tenant = `tenant=${host.tenantId}`;
  const access = await withKey(`/tokens/grants/${host.id}`);
  expect(access.status).toBe(200);
  expect(await isAlive(access.text)).toBe(200);
  expect((await withKey(`/tokens/meetings/${meeting.id}?kind=local-recording&${tenant}`)).status).toBe(200);
  expect((await withKey(`/tokens/meetings/${meeting.id}?kind=access&${tenant}`)).status).toBe(200);
  expect((await withKey(`/tokens/grants/${host.id}?kind=zak&${tenant}`)).status).toBe(200);
  expect((await withKey(`/tokens/grants/${host.id}?kind=on-behalf-of&meeting=${meeting.id}`)).status).toBe(200);
});

test.each([
  ['no key', '', 401],
  ['a wrong key', 'x'.repeat(40), 401],
])('%s is %s', async (_what, key, status) => {
  const host = await connectHost();
  const answer = await withKey(`/tokens/grants/${host.id}`, key);
  expect([answer.status, answer.headers.get('www-authenticate')]).toEqual([status, 'Bearer']);
});

test('a right key does not excuse a wrong signature, and is refused from a browser', async () => {
  const host = await connectHost();
  expect((await withKey(`/tokens/grants/${host.id}?signature=${'A'.repeat(43)}`)).status).toBe(401);
  const headers = { origin: 'https://product.example' };
  expect((await withKey(`/tokens/grants/${host.id}`, server.adminKey, headers)).status).toBe(403);
});

test('what is not there is 404, also for a right key', async () => {
  const [host, other] = [await connectHost(), await connectHost()];
  const unknown = Buffer.from('UserConnection:00000000-0000-4000-8000-000000000000').toString('base64url');
  for (const path of [
    `/tokens/grants/${unknown}`,
    '/tokens/grants/nonsense',
    `/tokens/grants/${host.id}?tenant=${other.tenantId}`,
    `/tokens/grants/${host.id}?kind=everything`,
    `/tokens/grants/${host.id}?kind=on-behalf-of`,
    `/tokens/meetings/123?tenant=${host.tenantId}`,
    `/tokens/meetings/81234567890?tenant=${host.tenantId}`,
    '/tokens/users/1',
    '/tokens/grants/',
  ]) {
    expect([path, (await withKey(path)).status]).toEqual([path, 404]);
  }
});

test('a token is only to be had by GET', async () => {
  const url = await signFor(await connectHost());
  for (const method of ['POST', 'PUT', 'DELETE']) {
    const { status, headers } = await fetchToken(url, {}, method);
    expect([method, status, headers.get('allow')]).toEqual([method, 405, 'GET']);
  }
});

test('a URL is made only for what the tenant has, and for a time that makes sense', async () => {
  const [host, other] = [await connectHost(), await connectHost()];
  const { tenantId, id: grantId } = host;
  const meetingId = '81234567890';
  const invalid = { __typename: 'InvalidInputError' };
  expect(await sign({ tenantId: 'org_nobody', kind: 'ACCESS', grantId })).toMatchObject({
    __typename: 'NotFoundError',
  });
  expect(await sign({ tenantId: 'nul\0', kind: 'ACCESS', grantId })).toMatchObject({ __typename: 'NotFoundError' });
  expect(await sign({ tenantId, kind: 'ACCESS', grantId: other.id })).toMatchObject({
    __typename: 'GrantNotFoundError',
  });
  for (const input of [
    { kind: 'ACCESS' },
    { kind: 'ACCESS', grantId, meetingId },
    { kind: 'ACCESS', meetingId: '12' },
    { kind: 'LOCAL_RECORDING', grantId },
    { kind: 'ZAK', meetingId },
    { kind: 'ON_BEHALF_OF', grantId },
    { kind: 'ON_BEHALF_OF', grantId, meetingId: 'abc' },
    { kind: 'ACCESS', grantId, ttlSeconds: 59 },
    { kind: 'ACCESS', grantId, ttlSeconds: 2_592_001 },
  ]) {
    expect([input, await sign({ tenantId, ...input })]).toMatchObject([input, invalid]);
  }
});

test('neither a token nor a signature is logged, and the key is stored sealed', async () => {
  const host = await connectHost();
  const url = await signFor(host);
  const { text } = await fetchToken(url);
  await fetchToken(url.replace('signature=', 'signature=A'));
  const logs = server.logs.join('\n');
  expect(logs).toContain('a token was handed out');
  expect(logs).not.toContain(text);
  expect(logs).not.toContain(new URL(url).searchParams.get('signature'));
  const [row] = await server.db.query<{ key: Uint8Array }>(sql`
    SELECT sealed_key AS key FROM url_signing_key k JOIN tenant t ON t.id = k.tenant_id
    WHERE t.external_id = ${host.tenantId}`);
  expect(Buffer.from(row!.key).toString('latin1', 0, 2)).toBe('ZV');
});
