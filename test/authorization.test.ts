import { createHash } from 'node:crypto';
import sql from 'sql-template-tag';
import { describe, expect, test } from 'vitest';
import { dumpDatabase } from './support/canary.js';
import {
  expectRefusal,
  expire,
  beginAnswer,
  journalOf,
  NOTHING_STORED,
  rawRequest,
  read,
  rowIdOf,
  rowOf,
  sessionOf,
  storedOf,
  tokenRequests,
  tripWithCode,
} from './support/consent-trip.js';
import { startInstances } from './support/instances.js';
import { startTestServer } from './support/server.js';
import {
  begin,
  comeBack,
  complete,
  consent,
  COMPLETE,
  createTenant,
  open,
  PRODUCT,
  registerApp,
  sandboxUser,
  type RegisteredApp,
  type Trip,
} from './support/story.js';

const server = await startTestServer();
const member = sandboxUser(server, 'Member');

/** A tenant and an app of its own, so that counts and grants are this test's alone. */
async function prepare(): Promise<{ app: RegisteredApp; tenantId: string; begin(more?: object): Promise<Trip> }> {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const input = { tenantId, userId: 'user_1', appId: app.id };
  return { app, tenantId, begin: (more = {}) => begin(server, 'beginAuthorization', { ...input, ...more }) };
}

async function startedAt(trip: Trip): Promise<URL> {
  const response = await open(trip.jar, trip.startUrl);
  expect(response.status).toBe(303);
  return new URL(response.headers.get('location') ?? '');
}

const pathOf = (url: string): string => url.slice(new URL(url).origin.length);

async function expectFinishes(trip: Trip, userId = 'user_1'): Promise<void> {
  const { connectCode } = await comeBack(trip, await consent(trip, member.id));
  expect(await complete(server, connectCode, userId)).toMatchObject({ status: 'COMPLETED', failure: null });
}

describe('setting out', () => {
  // Five hundred starts: several seconds on the embedded database.
  test('every start makes a state of 256 random bits that is stored nowhere', { timeout: 60_000 }, async () => {
    const { begin } = await prepare();
    const trips = await Promise.all(Array.from({ length: 10 }, () => begin()));
    const states: string[] = [];
    const challenges: string[] = [];
    for (let round = 0; round < 50; round += 1) {
      const urls = await Promise.all(trips.map((trip) => startedAt({ ...trip, jar: new Map() })));
      states.push(...urls.map((url) => url.searchParams.get('state') ?? ''));
      challenges.push(...urls.map((url) => url.searchParams.get('code_challenge') ?? ''));
    }
    expect(states.filter((state) => /^[A-Za-z0-9_-]{43}$/.test(state))).toHaveLength(500);
    expect(new Set(states).size).toBe(500);
    expect(new Set(challenges).size).toBe(500);
    // Random all the way through: at each place of the 43 many characters occur.
    for (let place = 0; place < 42; place += 1) {
      expect(new Set(states.map((state) => state[place])).size).toBeGreaterThan(40);
    }
    const dump = await dumpDatabase(server.db);
    // A control: what is stored of the last state is its hash, and the dump would show it.
    const hashes = states.map((state) => createHash('sha256').update(state).digest('hex'));
    expect(hashes.filter((hash) => dump.includes(hash))).toHaveLength(10);
    const bytes = (state: string) => Buffer.from(state).toString('hex');
    expect(states.filter((state) => dump.includes(state) || dump.includes(bytes(state)))).toEqual([]);
  });

  test('the authorize address has exactly the parameters of a code request with PKCE, and no scope', async () => {
    const { app, begin } = await prepare();
    const url = await startedAt(await begin());
    expect(`${url.origin}${url.pathname}`).toBe(`${server.sandbox.origin}/oauth/authorize`);
    expect([...url.searchParams.keys()]).toEqual([
      'response_type',
      'client_id',
      'redirect_uri',
      'state',
      'code_challenge',
      'code_challenge_method',
    ]);
    expect(Object.fromEntries(url.searchParams)).toMatchObject({
      response_type: 'code',
      client_id: app.clientId,
      redirect_uri: app.redirectUri,
      code_challenge: expect.stringMatching(/^[A-Za-z0-9_-]{43}$/),
      code_challenge_method: 'S256',
    });
  });

  test('the code is redeemed once, with PKCE and the secret in the header, and nothing in the address', async () => {
    const { app, begin } = await prepare();
    await expectFinishes(await begin());
    expect(journalOf(server, app, 'token')).toEqual([
      expect.objectContaining({
        grantType: 'authorization_code',
        authentication: 'basic',
        pkce: true,
        scopeSent: false,
        queryKeys: [],
        status: 200,
        outcome: 'issued',
      }),
    ]);
  });

  test('a code that was issued for another code challenge is not redeemed', async () => {
    const { app, tenantId, begin } = await prepare();
    const trip = await begin();
    const url = await startedAt(trip);
    url.searchParams.set('code_challenge', createHash('sha256').update('of somebody else').digest('base64url'));
    url.searchParams.set('sandbox_user', member.id);
    url.searchParams.set('sandbox_decision', 'allow');
    const decided = await open(new Map(), url.href);
    const { connectCode } = await comeBack(trip, decided.headers.get('location') ?? '');
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'FAILED', failure: 'CODE_REJECTED' });
    expect(journalOf(server, app, 'token').map(({ outcome }) => outcome)).toEqual(['verifier-mismatch']);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test('on http loopback the cookie has a plain name, is hidden from scripts and lives as long as the trip', async () => {
    const trip = await (await prepare()).begin();
    const response = await open(trip.jar, trip.startUrl);
    const [cookie = '', ...others] = response.headers.getSetCookie();
    expect(others).toEqual([]);
    const name = `latchkey-${rowIdOf(trip).replaceAll('-', '')}`;
    expect(
      cookie.replace(/=[A-Za-z0-9_-]{43};/, '=<token>;').replace(/Max-Age=(600|599|598|597|596|595);/, '<life>'),
    ).toBe(`${name}=<token>; <life> Path=/; HttpOnly; SameSite=Lax`);
    const [, token = ''] = /=([A-Za-z0-9_-]{43});/.exec(cookie) ?? [];
    expect(await dumpDatabase(server.db)).not.toContain(token);
  });

  test('behind https the cookie has the __Host- prefix and is Secure', async () => {
    const [instance] = await startInstances(1, { LATCHKEY_PUBLIC_URL: 'https://latchkey.example' });
    if (instance === undefined) throw new Error('No instance was started.');
    const app = await registerApp(instance, 'USER_MANAGED');
    const tenantId = await createTenant(instance);
    const trip = await begin(instance, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id });
    expect(trip.startUrl).toBe(`https://latchkey.example/oauth/start/${rowIdOf(trip)}`);
    expect(app.redirectUri).toMatch(/^https:\/\/latchkey\.example\/oauth\/callback\/[A-Za-z0-9_-]+$/);
    const answer = await rawRequest(instance.address, pathOf(trip.startUrl));
    expect(new URL(answer.headers.location ?? '').searchParams.get('redirect_uri')).toBe(app.redirectUri);
    expect(answer.headers['set-cookie']).toEqual([
      expect.stringMatching(
        new RegExp(
          `^__Host-latchkey-${rowIdOf(trip).replaceAll('-', '')}=[A-Za-z0-9_-]{43}; Max-Age=(600|59\\d); Path=/; HttpOnly; SameSite=Lax; Secure$`,
        ),
      ),
    ]);
  });

  test('no header of a request changes the start address or the redirect URI', async () => {
    const { app, tenantId } = await prepare();
    const spoofed = {
      host: 'evil.example',
      'x-forwarded-host': 'evil.example',
      'x-forwarded-proto': 'https',
      'x-forwarded-port': '444',
      forwarded: 'host=evil.example;proto=https',
    };
    const answer = await rawRequest(server.url, '/graphql', {
      method: 'POST',
      headers: { ...spoofed, 'content-type': 'application/json', authorization: `Bearer ${server.adminKey}` },
      body: JSON.stringify({
        query: `mutation ($input: BeginAuthorizationInput!) { beginAuthorization(input: $input) {
          ... on BeginAuthorizationSuccess { authorizationSession { startUrl } } } }`,
        variables: { input: { tenantId, userId: 'user_1', appId: app.id, returnTo: `${PRODUCT}/done` } },
      }),
    });
    const { startUrl } = (
      JSON.parse(answer.text) as { data: { beginAuthorization: { authorizationSession: { startUrl: string } } } }
    ).data.beginAuthorization.authorizationSession;
    expect(startUrl).toMatch(new RegExp(`^${server.url}/oauth/start/[0-9a-f-]{36}$`));
    const started = await rawRequest(server.url, pathOf(startUrl), { headers: spoofed });
    expect(new URL(started.headers.location ?? '').searchParams.get('redirect_uri')).toBe(app.redirectUri);
    expect(started.headers['set-cookie']?.[0]).toMatch(/^latchkey-[0-9a-f]{32}=/);
    expect(JSON.stringify(started.headers)).not.toContain('evil');
  });

  test('opening the start page again replaces the state: only the browser that opened it last may return', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const first = { ...trip, jar: new Map() };
    const firstCallback = await consent(first, member.id);
    const second = { ...trip, jar: new Map() };
    const secondCallback = await consent(second, member.id);
    expectRefusal(await read(await open(first.jar, firstCallback)));
    expectRefusal(await read(await open(first.jar, secondCallback)));
    expect((await comeBack(second, secondCallback)).connectCode).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(tokenRequests(server, app)).toBe(0);
  });

  test('a start page that leads nowhere says so and sets no cookie', async () => {
    for (const id of ['00000000-0000-4000-8000-000000000000', 'x', '..%2f', "'"]) {
      const answer = await rawRequest(server.url, `/oauth/start/${id}`);
      expect(answer.status).toBe(404);
      expect(answer.headers['set-cookie']).toBeUndefined();
      expect(answer.headers.location).toBeUndefined();
    }
  });
});

describe('coming back', () => {
  test('the right state from another browser changes nothing, and the right browser can still return', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    const before = await rowOf(server, trip);
    expectRefusal(await read(await open(new Map(), callback)));
    // A browser with a trip of its own, and one that guesses the cookie's name.
    const other = await begin();
    await startedAt(other);
    expectRefusal(await read(await open(other.jar, callback)));
    const [name = ''] = trip.jar.keys();
    expectRefusal(await read(await open(new Map([[name, 'A'.repeat(43)]]), callback)));
    const twice = await rawRequest(server.url, pathOf(callback), {
      headers: { cookie: `${name}=${trip.jar.get(name)}; ${name}=${'A'.repeat(43)}` },
    });
    expectRefusal({ ...twice, cookies: twice.headers['set-cookie'] ?? [] });
    expect(await rowOf(server, trip)).toBe(before);
    expect(tokenRequests(server, app)).toBe(0);
    const { connectCode } = await comeBack(trip, callback);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
    expect(tokenRequests(server, app)).toBe(1);
  });

  test('of 30 identical answers at once exactly one is taken', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    const answers = await Promise.all(Array.from({ length: 30 }, () => open(new Map(trip.jar), callback)));
    expect(answers.filter(({ status }) => status === 303)).toHaveLength(1);
    expect(answers.filter(({ status }) => status === 400)).toHaveLength(29);
    const location = answers.find(({ status }) => status === 303)?.headers.get('location') ?? '';
    expect(tokenRequests(server, app)).toBe(0);
    const connectCode = new URL(location).searchParams.get('connectCode');
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  });

  test('the address that the browser returns to holds the connect code and nothing of the provider', async () => {
    const { begin } = await prepare();
    const trip = await begin({ returnTo: `${PRODUCT}/done?tab=zoom&connectCode=mine&connectError=mine#here` });
    const callback = await consent(trip, member.id);
    const response = await open(trip.jar, callback);
    expect(response.status).toBe(303);
    const location = new URL(response.headers.get('location') ?? '');
    expect(location.origin).toBe(PRODUCT);
    expect([...location.searchParams.keys()]).toEqual(['tab', 'connectCode']);
    expect(location.searchParams.get('connectCode')).toMatch(/^[A-Za-z0-9_-]{43}$/);
    expect(location.hash).toBe('#here');
    const { code = '', state = '' } = Object.fromEntries(new URL(callback).searchParams);
    expect(location.href).not.toContain(code);
    expect(location.href).not.toContain(state);
    expect(response.headers.getSetCookie()).toEqual([
      `latchkey-${rowIdOf(trip).replaceAll('-', '')}=; Max-Age=0; Path=/; HttpOnly; SameSite=Lax`,
    ]);
  });

  test('an answer is taken once', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    const jar = new Map(trip.jar);
    await comeBack(trip, callback);
    const before = await rowOf(server, trip);
    expectRefusal(await read(await open(new Map(jar), callback)));
    expectRefusal(await read(await open(new Map(jar), `${callback.replace(/code=[^&]+/, 'error=access_denied')}`)));
    expect(await rowOf(server, trip)).toBe(before);
    // The start page is closed, too.
    expect((await open(new Map(), trip.startUrl)).status).toBe(404);
    expect(tokenRequests(server, app)).toBe(0);
  });

  test("an answer at another app's callback is refused, in both directions", async () => {
    const [one, other] = [await prepare(), await prepare()];
    const [trip, otherTrip] = [await one.begin(), await other.begin()];
    const [callback, otherCallback] = [await consent(trip, member.id), await consent(otherTrip, member.id)];
    const at = (path: string, query: string) => `${path}${new URL(query).search}`;
    const before = [await rowOf(server, trip), await rowOf(server, otherTrip)];
    expectRefusal(await read(await open(new Map(trip.jar), at(other.app.redirectUri, callback))));
    expectRefusal(await read(await open(new Map(otherTrip.jar), at(one.app.redirectUri, otherCallback))));
    expect([await rowOf(server, trip), await rowOf(server, otherTrip)]).toEqual(before);
    expect([tokenRequests(server, one.app), tokenRequests(server, other.app)]).toEqual([0, 0]);
    for (const [going, address] of [
      [trip, callback],
      [otherTrip, otherCallback],
    ] as const) {
      const { connectCode } = await comeBack(going, address);
      expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
    }
  });

  test('a repeated, empty, oversized or malformed parameter is refused and the trip goes on', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    const { code = '', state = '' } = Object.fromEntries(new URL(callback).searchParams);
    const before = await rowOf(server, trip);
    const path = pathOf(app.redirectUri);
    const [cookie = ''] = [...trip.jar].map(([name, value]) => `${name}=${value}`);
    const queries = [
      '',
      'unknown=1',
      `state=${state}`,
      `code=${code}&state=`,
      `code=&state=${state}`,
      `error=&state=${state}`,
      `state=${state}&state=${state}&code=${code}`,
      `state=${state}&state=other&code=${code}`,
      `state=${state}&code=${code}&code=${code}`,
      `state=${state}&error=access_denied&error=access_denied`,
      `state=${state}&code=${code}&other=1&other=1`,
      `state[]=${state}&code=${code}`,
      `state%5B%5D=${state}&code=${code}`,
      `state=${state}&code[]=${code}`,
      `state=${state}&code[0]=${code}`,
      `state=${state}%00&code=${code}`,
      `state=${state}&code=${code}%00`,
      `state=${state}&error=access_denied%00`,
      `state=%ff%fe&code=${code}`,
      `state=${state}&code=%ff%fe`,
      `state=x&code=${code}`,
      `state=${state.slice(0, -1)}&code=${code}`,
      `state=${state}A&code=${code}`,
      `state=${'A'.repeat(4_097)}&code=${code}`,
      `state=${state}&code=${'A'.repeat(4_097)}`,
      `state=${state}&error=${'a'.repeat(4_097)}`,
      `state=${'B'.repeat(43)}&code=${code}`,
    ];
    for (const query of queries) {
      const answer = await rawRequest(server.url, `${path}?${query}`, { headers: { cookie } });
      expect({ query, status: answer.status }).toEqual({ query, status: 400 });
      expectRefusal({ ...answer, cookies: answer.headers['set-cookie'] ?? [] });
    }
    expect(await rowOf(server, trip)).toBe(before);
    expect(tokenRequests(server, app)).toBe(0);
    const { connectCode } = await comeBack(trip, callback);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  });

  test('a callback of no app is not found', async () => {
    expect((await rawRequest(server.url, '/oauth/callback/nobody?code=x&state=y')).status).toBe(404);
  });
});

describe('when the provider answers an error', () => {
  test('a denial goes to the product and ends the session', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const response = await open(trip.jar, await consent(trip, member.id, 'deny'));
    expect(response.status).toBe(303);
    expect(response.headers.get('location')).toBe(`${PRODUCT}/done?connectError=DENIED_BY_USER`);
    expect(await sessionOf(server, trip)).toEqual({ status: 'FAILED', failure: 'DENIED_BY_USER', grant: null });
    expect(tokenRequests(server, app)).toBe(0);
  });

  test.each([
    ['access_denied', 'DENIED_BY_USER'],
    ['server_error', 'PROVIDER_UNAVAILABLE'],
    ['temporarily_unavailable', 'PROVIDER_UNAVAILABLE'],
    ['invalid_scope', 'CODE_REJECTED'],
    ['something_new', 'CODE_REJECTED'],
  ])('%s is told as %s', async (error, failure) => {
    const { begin } = await prepare();
    const trip = await begin();
    const state = (await startedAt(trip)).searchParams.get('state') ?? '';
    const { redirectUri } = await redirectOf(trip);
    expect(await comeBack(trip, `${redirectUri}?${new URLSearchParams({ state, error })}`)).toEqual({
      connectCode: null,
      connectError: failure,
    });
    expect(await sessionOf(server, trip)).toMatchObject({ status: 'FAILED', failure });
  });

  test('nothing of the query appears on the page', async () => {
    const { begin } = await prepare();
    const trip = await begin({ returnTo: null });
    const state = (await startedAt(trip)).searchParams.get('state') ?? '';
    const { redirectUri } = await redirectOf(trip);
    const query = new URLSearchParams({
      state,
      error: 'marker_of_the_error',
      error_description: '<script>alert("marker of the description")</script>',
      error_uri: 'https://marker.example/',
      other: 'marker of another',
    });
    const withoutCookie = await open(new Map(), `${redirectUri}?${query}`);
    const withCookie = await open(trip.jar, `${redirectUri}?${query}`);
    expect([withoutCookie.status, withCookie.status]).toEqual([400, 200]);
    for (const text of [await withoutCookie.text(), await withCookie.text()]) {
      expect(text).not.toContain('marker');
      expect(text).not.toContain('alert');
      expect(text).not.toContain(state);
    }
    expect(server.logs.join('\n')).not.toContain('marker');
  });

  test('an error with a forged state, or from another browser, changes nothing', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const state = (await startedAt(trip)).searchParams.get('state') ?? '';
    const { redirectUri } = await redirectOf(trip);
    const before = await rowOf(server, trip);
    const errorWith = (value: string) =>
      `${redirectUri}?${new URLSearchParams({ state: value, error: 'access_denied' })}`;
    expectRefusal(await read(await open(new Map(trip.jar), errorWith('C'.repeat(43)))));
    expectRefusal(await read(await open(new Map(), errorWith(state))));
    expectRefusal(await read(await open(new Map(trip.jar), `${redirectUri}?error=access_denied`)));
    expect(await rowOf(server, trip)).toBe(before);
    await expectFinishes(trip);
    expect(tokenRequests(server, app)).toBe(1);
  });
});

async function redirectOf(trip: Trip): Promise<{ redirectUri: string }> {
  const [row] = await server.db.query<{ redirectUri: string }>(sql`
    SELECT redirect_uri AS "redirectUri" FROM authorization_session WHERE id = ${rowIdOf(trip)}::uuid`);
  if (row === undefined) throw new Error('There is no such session.');
  return row;
}

describe('an answer that nobody asked for', () => {
  const add = async (app: RegisteredApp): Promise<string> => {
    const query = new URLSearchParams({ sandbox_user: member.id, sandbox_decision: 'allow' });
    const install = await open(new Map(), `${server.sandbox.origin}/marketplace/apps/${app.clientId}/add?${query}`);
    const decided = await open(new Map(), install.headers.get('location') ?? '');
    const callback = decided.headers.get('location') ?? '';
    expect([...new URL(callback).searchParams.keys()]).toEqual(['code']);
    return callback;
  };

  test('adding the app at the Marketplace redeems nothing and says where to go on', async () => {
    const { app, tenantId } = await prepare();
    const response = await open(new Map(), await add(app));
    expect(response.status).toBe(200);
    const page = await response.text();
    expect(page).toContain('One more step');
    expect(page).not.toContain('<a ');
    expect(page).not.toContain('ZCANARY');
    expect(tokenRequests(server, app)).toBe(0);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test("the page links to the app's setup page", async () => {
    const { app } = await prepare();
    await server.data(
      `mutation ($input: UpdateProviderAppInput!) { updateProviderApp(input: $input) { __typename } }`,
      { input: { id: app.id, setupUrl: `${PRODUCT}/zoom?from=marketplace&x="><b>` } },
    );
    const page = await (await open(new Map(), await add(app))).text();
    expect(page).toContain(`<a href="${PRODUCT}/zoom?from=marketplace&amp;x=`);
    expect(page).not.toContain('<b>');
    expect(tokenRequests(server, app)).toBe(0);
  });

  test('a browser in the middle of a trip can still finish it', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    await startedAt(trip);
    expect((await open(trip.jar, await add(app))).status).toBe(200);
    await expectFinishes(trip);
  });
});

describe('completing', () => {
  test('of 20 completions at once exactly one succeeds, with one token request', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    const answers = await Promise.all(Array.from({ length: 20 }, () => complete(server, connectCode, 'user_1')));
    expect(answers.filter((answer) => answer.status === 'COMPLETED')).toHaveLength(1);
    expect(answers.filter((answer) => answer.__typename === 'NotFoundError')).toHaveLength(19);
    expect(tokenRequests(server, app)).toBe(1);
    expect(await storedOf(server, tenantId)).toEqual({ grants: 1, credentials: 1, revocations: 0 });
  });

  test('a connect code works once', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ __typename: 'NotFoundError' });
    expect((await sessionOf(server, trip)).status).toBe('COMPLETED');
    expect(tokenRequests(server, app)).toBe(1);
  });

  test('an unknown connect code is not found', async () => {
    for (const connectCode of ['D'.repeat(43), '', 'x', '\u0000', 'x'.repeat(10_000)]) {
      expect(await complete(server, connectCode, 'user_1')).toMatchObject({ __typename: 'NotFoundError' });
    }
  });

  test('another user of the product cannot complete: the code is dropped unspent and the connect code is gone', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    expect(await complete(server, connectCode, 'user_2')).toMatchObject({
      status: 'FAILED',
      failure: 'INITIATOR_MISMATCH',
      grant: null,
    });
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ __typename: 'NotFoundError' });
    expect(await sessionOf(server, trip)).toEqual({ status: 'FAILED', failure: 'INITIATOR_MISMATCH', grant: null });
    expect(tokenRequests(server, app)).toBe(0);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
    const [row] = await server.db.query<{ sealed: number }>(sql`
      SELECT count(*)::int AS sealed FROM authorization_session
      WHERE id = ${rowIdOf(trip)}::uuid AND (sealed_code IS NOT NULL OR sealed_code_verifier IS NOT NULL)`);
    expect(row?.sealed).toBe(0);
  });

  test('a caller who selects nothing but the type name is served like any other', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    const run = (field: string, type: string, value: object) =>
      server.data(`mutation ($input: ${type}!) { ${field}(input: $input) { __typename } }`, { input: value });
    expect(await run('completeAuthorization', 'CompleteAuthorizationInput', { connectCode, userId: 'user_1' })).toEqual(
      {
        completeAuthorization: { __typename: 'CompleteAuthorizationSuccess' },
      },
    );
    expect((await sessionOf(server, trip)).status).toBe('COMPLETED');
    expect(await run('beginAuthorization', 'BeginAuthorizationInput', input)).toEqual({
      beginAuthorization: { __typename: 'BeginAuthorizationSuccess' },
    });
    expect(
      await server.data(`query ($id: ID!) { authorizationSession(id: $id) { __typename } }`, { id: trip.sessionId }),
    ).toEqual({ authorizationSession: { __typename: 'AuthorizationSession' } });
  });

  test('a completion that names no user is refused and leaves the connect code usable', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    const document = COMPLETE.replace('... on Error', '... on InvalidInputError { path } ... on Error');
    for (const userId of [undefined, null]) {
      const { completeAuthorization } = await server.data(document, { input: { connectCode, userId } });
      expect(completeAuthorization).toMatchObject({ __typename: 'InvalidInputError', path: ['input', 'userId'] });
    }
    expect(tokenRequests(server, app)).toBe(0);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  });
});

describe('out of time', () => {
  test('a trip that ran out before the start does not begin', async () => {
    const trip = await (await prepare()).begin();
    await expire(server, trip);
    const response = await open(trip.jar, trip.startUrl);
    expect(response.status).toBe(404);
    expect(response.headers.getSetCookie()).toEqual([]);
    expect((await sessionOf(server, trip)).status).toBe('EXPIRED');
  });

  test('a trip that ran out at the consent screen takes no answer', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    await expire(server, trip);
    const before = await rowOf(server, trip);
    expectRefusal(await read(await open(new Map(trip.jar), callback)));
    expectRefusal(await read(await open(new Map(trip.jar), callback.replace(/code=[^&]+/, 'error=access_denied'))));
    expect(await rowOf(server, trip)).toBe(before);
    expect((await sessionOf(server, trip)).status).toBe('EXPIRED');
    expect(tokenRequests(server, app)).toBe(0);
  });

  test('a connect code that ran out is not found and nothing is redeemed', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    await expire(server, trip);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ __typename: 'NotFoundError' });
    expect((await sessionOf(server, trip)).status).toBe('EXPIRED');
    expect(tokenRequests(server, app)).toBe(0);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test('a trip has 10 minutes, and 2 of them at most remain once the provider has answered', async () => {
    const { begin } = await prepare();
    const secondsLeft = async (trip: Trip) => {
      const [row] = await server.db.query<{ seconds: number }>(sql`
        SELECT extract(epoch FROM expires_at - now())::float8 AS seconds
        FROM authorization_session WHERE id = ${rowIdOf(trip)}::uuid`);
      return row?.seconds ?? 0;
    };
    const trip = await begin();
    expect(await secondsLeft(trip)).toBeGreaterThan(580);
    expect(await secondsLeft(trip)).toBeLessThanOrEqual(600);
    const callback = await consent(trip, member.id);
    await comeBack(trip, callback);
    expect(await secondsLeft(trip)).toBeGreaterThan(100);
    expect(await secondsLeft(trip)).toBeLessThanOrEqual(120);
    // An answer does not give more time than the trip had left.
    const late = await begin();
    const lateCallback = await consent(late, member.id);
    await server.db.query(sql`
      UPDATE authorization_session SET expires_at = now() + interval '30 seconds' WHERE id = ${rowIdOf(late)}::uuid`);
    await comeBack(late, lateCallback);
    expect(await secondsLeft(late)).toBeLessThanOrEqual(30);
  });
});

describe('the pages', () => {
  const hashOf = (content: string) => `'sha256-${createHash('sha256').update(content).digest('base64')}'`;

  test('without a return address the result page reports to the exact origins and loads nothing', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server, [PRODUCT, 'http://localhost:9', 'https://other.example:444']);
    const trip = await begin(server, 'beginAuthorization', {
      tenantId,
      userId: 'user_1',
      appId: app.id,
      returnTo: null,
    });
    const response = await open(trip.jar, await consent(trip, member.id));
    expect(response.status).toBe(200);
    const html = await response.text();
    const [, script = ''] = /<script>(.*)<\/script>/s.exec(html) ?? [];
    const [, style = ''] = /<style>(.*)<\/style>/s.exec(html) ?? [];
    expect(response.headers.get('content-security-policy')).toBe(
      `default-src 'none'; style-src ${hashOf(style)}; script-src ${hashOf(script)}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
    );
    expect(html).not.toMatch(/src=|href=|@import|url\(|<link|<img|<iframe|<base/i);
    const [, connectCode = ''] = /"connectCode":"([A-Za-z0-9_-]{43})"/.exec(script) ?? [];
    expect(html.replace(script, '')).not.toContain(connectCode);
    expect(script).toContain(JSON.stringify([PRODUCT, 'http://localhost:9', 'https://other.example:444']));
    expect(script).not.toContain("'*'");
    expect(script).not.toContain('"*"');
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  });

  test('without a return address a denial is reported by the result page', async () => {
    const { begin } = await prepare();
    const trip = await begin({ returnTo: null });
    const response = await open(trip.jar, await consent(trip, member.id, 'deny'));
    expect(response.status).toBe(200);
    const html = await response.text();
    expect(html).toContain('{"source":"latchkey","connectError":"DENIED_BY_USER"}');
    expect(html).not.toContain('connectCode');
  });

  test('every answer below /oauth is kept by nobody, tells no referrer and cannot be framed', async () => {
    const { app, begin } = await prepare();
    const [redirected, shown] = [await begin(), await begin({ returnTo: null })];
    const callbacks = [await consent(redirected, member.id), await consent(shown, member.id)];
    const answers: [string, number, Response][] = [
      ['start', 303, await open(new Map(), (await begin()).startUrl)],
      ['unknown start', 404, await open(new Map(), `${server.url}/oauth/start/nobody`)],
      ['callback', 303, await open(redirected.jar, callbacks[0] ?? '')],
      ['result page', 200, await open(shown.jar, callbacks[1] ?? '')],
      ['refused callback', 400, await open(new Map(), callbacks[0] ?? '')],
      ['unsolicited', 200, await open(new Map(), `${app.redirectUri}?code=x`)],
      ['no such app', 404, await open(new Map(), `${server.url}/oauth/callback/nobody`)],
      ['another method', 405, await fetch(app.redirectUri, { method: 'POST', redirect: 'manual' })],
      ['no such path', 404, await open(new Map(), `${server.url}/oauth/nothing`)],
    ];
    for (const [name, status, { status: actual, headers }] of answers) {
      expect({
        name,
        status: actual,
        cache: headers.get('cache-control'),
        referrer: headers.get('referrer-policy'),
        sniffing: headers.get('x-content-type-options'),
      }).toEqual({ name, status, cache: 'no-store', referrer: 'no-referrer', sniffing: 'nosniff' });
      const policy = headers.get('content-security-policy');
      if (headers.get('content-type')?.startsWith('text/html') === true) {
        expect(policy).toMatch(/^default-src 'none'; .*frame-ancestors 'none'$/);
        expect(policy).not.toContain('unsafe');
      }
      expect(headers.get('access-control-allow-origin')).toBeNull();
    }
  });
});

describe('when the database fails', () => {
  test('the browser is told to try again, and then can', async () => {
    const { app, begin } = await prepare();
    const trip = await begin();
    const callback = await consent(trip, member.id);
    const other = await begin();
    const answers: Response[] = [];
    await server.db.query(sql`ALTER TABLE authorization_session RENAME TO authorization_session_away`);
    try {
      answers.push(await open(trip.jar, callback), await open(other.jar, other.startUrl));
    } finally {
      await server.db.query(sql`ALTER TABLE authorization_session_away RENAME TO authorization_session`);
    }
    for (const response of answers) {
      expect(response.status).toBe(503);
      expect(response.headers.get('cache-control')).toBe('no-store');
      expect(response.headers.get('referrer-policy')).toBe('no-referrer');
      expect(response.headers.get('content-security-policy')).toMatch(/^default-src 'none'; .*frame-ancestors 'none'$/);
      expect(response.headers.getSetCookie()).toEqual([]);
      const page = await response.text();
      expect(page).toContain('Please try again');
      expect(page).not.toContain('authorization_session');
    }
    const { connectCode } = await comeBack(trip, callback);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
    expect(tokenRequests(server, app)).toBe(1);
  });
});

describe('when the provider fails at the end', () => {
  const json = 'application/json';
  const faults = [
    [
      'an HTML page',
      { kind: 'body', status: 200, contentType: 'text/html', body: '<p>Sorry</p>' },
      'PROVIDER_UNAVAILABLE',
    ],
    [
      'HTML that claims to be JSON',
      { kind: 'body', status: 200, contentType: json, body: '<p>' },
      'PROVIDER_UNAVAILABLE',
    ],
    ['half an answer', { kind: 'truncate' }, 'PROVIDER_UNAVAILABLE'],
    ['10 MB', { kind: 'big', bytes: 10_000_000 }, 'PROVIDER_UNAVAILABLE'],
    [
      'no access token',
      {
        kind: 'body',
        status: 200,
        contentType: json,
        body: '{"token_type":"bearer","expires_in":3600,"refresh_token":"r"}',
      },
      'PROVIDER_UNAVAILABLE',
    ],
    [
      'no refresh token',
      {
        kind: 'body',
        status: 200,
        contentType: json,
        body: '{"token_type":"bearer","expires_in":3600,"access_token":"a"}',
      },
      'PROVIDER_UNAVAILABLE',
    ],
    ['an empty answer', { kind: 'body', status: 200, contentType: json, body: '' }, 'PROVIDER_UNAVAILABLE'],
    ['500', { kind: 'status', status: 500 }, 'PROVIDER_UNAVAILABLE'],
    ['503 after having done it', { kind: 'status', status: 503, when: 'after' }, 'PROVIDER_UNAVAILABLE'],
    ['429', { kind: 'status', status: 429, headers: { 'retry-after': '1' } }, 'PROVIDER_UNAVAILABLE'],
    [
      'a redirect',
      { kind: 'status', status: 307, headers: { location: 'http://127.0.0.1:9/' } },
      'PROVIDER_UNAVAILABLE',
    ],
    ['a cut before', { kind: 'drop', when: 'before' }, 'PROVIDER_UNAVAILABLE'],
    ['a cut after', { kind: 'drop', when: 'after' }, 'PROVIDER_UNAVAILABLE'],
    ['invalid_grant', { kind: 'status', status: 400, body: { error: 'invalid_grant' } }, 'CODE_REJECTED'],
    ['invalid_client', { kind: 'status', status: 400, body: { error: 'invalid_client' } }, 'CODE_REJECTED'],
  ] as const;

  test.each(faults)('%s fails the session after exactly one token request', async (_name, fault, failure) => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { trip, connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    server.sandbox.control.addFault({ route: 'token', clientId: app.clientId, fault });
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'FAILED', failure, grant: null });
    expect(await sessionOf(server, trip)).toEqual({ status: 'FAILED', failure, grant: null });
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ __typename: 'NotFoundError' });
    expect(tokenRequests(server, app)).toBe(1);
    expect(journalOf(server, app, 'users')).toEqual([]);
    expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  });

  test('a refused client secret opens one incident on the app', async () => {
    const { app, tenantId } = await prepare();
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const { connectCode } = await tripWithCode(server, 'beginAuthorization', input, member.id);
    server.sandbox.control.rotateSecret(app.clientId);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'FAILED', failure: 'CODE_REJECTED' });
    const [row] = await server.db.query<{ reason: string | null }>(sql`
      SELECT incident_reason AS reason FROM provider_app WHERE client_id = ${app.clientId}`);
    expect(row?.reason).toBe('APP_REJECTED');
    expect(tokenRequests(server, app)).toBe(1);
  });

  test('silence fails the session at the deadline', async () => {
    const [instance] = await startInstances(1, {
      LATCHKEY_PROVIDER_DEADLINE_SECONDS: '1',
      LATCHKEY_LEASE_SECONDS: '2',
    });
    if (instance === undefined) throw new Error('No instance was started.');
    for (const when of ['before', 'after'] as const) {
      const app = await registerApp(instance, 'USER_MANAGED');
      const tenantId = await createTenant(instance);
      const input = { tenantId, userId: 'user_1', appId: app.id };
      const { connectCode } = await tripWithCode(instance, 'beginAuthorization', input, member.id);
      instance.sandbox.control.addFault({
        route: 'token',
        clientId: app.clientId,
        fault: { kind: 'hang', when, ms: 60_000 },
      });
      const startedAt = performance.now();
      expect(await complete(instance, connectCode, 'user_1')).toMatchObject({
        status: 'FAILED',
        failure: 'PROVIDER_UNAVAILABLE',
      });
      expect(performance.now() - startedAt).toBeLessThan(5_000);
      expect(tokenRequests(instance, app)).toBe(1);
      expect(await storedOf(instance, tenantId)).toEqual(NOTHING_STORED);
    }
  });
});

describe('what a trip begins with', () => {
  test('a tenant that does not exist is not found', async () => {
    const { app } = await prepare();
    const input = { tenantId: 'org_nobody', userId: 'user_1', appId: app.id };
    expect(await beginAnswer(server, 'beginAuthorization', input)).toMatchObject({ __typename: 'NotFoundError' });
    expect(await beginAnswer(server, 'beginInstallation', input)).toMatchObject({ __typename: 'NotFoundError' });
  });

  test('an app of the wrong kind is refused, and the answer says what to use instead', async () => {
    const tenantId = await createTenant(server);
    const ids: Record<string, string> = {};
    for (const kind of ['USER_MANAGED', 'ADMIN_MANAGED', 'SERVER_TO_SERVER'] as const) {
      ids[kind] = (await registerApp(server, kind)).id;
    }
    const wrong = [
      ['beginAuthorization', 'ADMIN_MANAGED', 'beginInstallation'],
      ['beginAuthorization', 'SERVER_TO_SERVER', 'connectServerToServer'],
      ['beginInstallation', 'USER_MANAGED', 'beginAuthorization'],
      ['beginInstallation', 'SERVER_TO_SERVER', 'connectServerToServer'],
    ] as const;
    for (const [field, kind, instead] of wrong) {
      expect(await beginAnswer(server, field, { tenantId, userId: 'user_1', appId: ids[kind] })).toMatchObject({
        __typename: 'InvalidInputError',
        path: ['input', 'appId'],
        message: expect.stringContaining(instead),
      });
    }
  });

  test('an app that does not exist is not found', async () => {
    const tenantId = await createTenant(server);
    const nobody = Buffer.from('ProviderApp:00000000-0000-4000-8000-000000000000').toString('base64url');
    for (const appId of [nobody, Buffer.from('Tenant:x').toString('base64url'), 'nonsense', '']) {
      const answer = await beginAnswer(server, 'beginAuthorization', { tenantId, userId: 'user_1', appId });
      expect({ appId, type: answer['__typename'] }).toEqual({ appId, type: 'NotFoundError' });
    }
  });

  test('without a named app the only one of the kind is taken; none or several is an error', async () => {
    const [instance] = await startInstances(1);
    if (instance === undefined) throw new Error('No instance was started.');
    const tenantId = await createTenant(instance);
    const input = { tenantId, userId: 'user_1' };
    const refusal = { __typename: 'InvalidInputError', path: ['input', 'appId'] };
    await registerApp(instance, 'ADMIN_MANAGED');
    expect(await beginAnswer(instance, 'beginAuthorization', input)).toMatchObject(refusal);
    const first = await registerApp(instance, 'USER_MANAGED');
    const trip = await begin(instance, 'beginAuthorization', input);
    const started = await open(trip.jar, trip.startUrl);
    expect(new URL(started.headers.get('location') ?? '').searchParams.get('client_id')).toBe(first.clientId);
    await registerApp(instance, 'USER_MANAGED');
    expect(await beginAnswer(instance, 'beginAuthorization', input)).toMatchObject(refusal);
    expect(await beginAnswer(instance, 'beginInstallation', input)).toMatchObject({
      __typename: 'BeginInstallationSuccess',
    });
  });

  test('a user id that cannot be one is refused', async () => {
    const { app, tenantId } = await prepare();
    for (const userId of ['', ' ', 'a b', 'a\u0000', 'ü', 'x'.repeat(201)]) {
      expect(await beginAnswer(server, 'beginAuthorization', { tenantId, userId, appId: app.id })).toMatchObject({
        __typename: 'InvalidInputError',
        path: ['input', 'userId'],
      });
    }
  });

  test('a tenant has a ceiling of open trips, which lowers by itself and concerns nobody else', async () => {
    const [instance] = await startInstances(1, { LATCHKEY_MAX_OPEN_SESSIONS: '3' });
    if (instance === undefined) throw new Error('No instance was started.');
    const app = await registerApp(instance, 'USER_MANAGED');
    const [tenantId, otherTenantId] = [await createTenant(instance), await createTenant(instance)];
    const input = { tenantId, userId: 'user_1', appId: app.id };
    const trips = [];
    for (let count = 0; count < 3; count += 1) trips.push(await begin(instance, 'beginAuthorization', input));
    expect(await beginAnswer(instance, 'beginAuthorization', input)).toMatchObject({
      __typename: 'LimitExceededError',
      retryAfterSeconds: 600,
    });
    expect(await beginAnswer(instance, 'beginAuthorization', { ...input, tenantId: otherTenantId })).toMatchObject({
      __typename: 'BeginAuthorizationSuccess',
    });
    // None was evicted, and one that is over makes room.
    const [first, second] = trips;
    if (first === undefined || second === undefined) throw new Error('No trip was begun.');
    expect((await open(first.jar, first.startUrl)).status).toBe(303);
    await expire(instance, second);
    expect(await beginAnswer(instance, 'beginAuthorization', input)).toMatchObject({
      __typename: 'BeginAuthorizationSuccess',
    });
    expect(await beginAnswer(instance, 'beginAuthorization', input)).toMatchObject({
      __typename: 'LimitExceededError',
    });
  });
});
