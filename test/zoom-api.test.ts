import fc from 'fast-check';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../src/clock.js';
import { Secret } from '../src/secret.js';
import { createEndpoints } from '../src/zoom/hosts.js';
import { createZoom, type Zoom } from '../src/zoom/zoom.js';
import { answer, answerJson, startScriptedServer, type ScriptedServer, type Step } from './support/scripted-server.js';
import {
  accessToken,
  CANARY,
  client,
  expectNothingLeaked,
  failureOf,
  goodTokens,
  refreshToken,
  zoomAt,
} from './support/zoom-client.js';

let server: ScriptedServer;
let zoom: Zoom & { close(): Promise<void> };

beforeAll(async () => {
  server = await startScriptedServer();
  zoom = zoomAt(server.origin);
});
beforeEach(() => {
  server.requests.length = 0;
});
afterAll(async () => {
  await zoom.close();
  await server.close();
});

const askUser = (apiUrl = server.origin) => zoom.currentUser({ environment: 'COMMERCIAL', apiUrl, accessToken });

const user = {
  id: 'u_1',
  account_id: 'a_1',
  email: 'ada@example.com',
  display_name: 'Ada Lovelace',
  first_name: 'Ada',
  last_name: 'Lovelace',
};

describe('current user', () => {
  it('is asked for with the token in the header alone', async () => {
    server.script(answerJson(200, user));
    expect(await askUser()).toEqual({
      userId: 'u_1',
      accountId: 'a_1',
      email: 'ada@example.com',
      displayName: 'Ada Lovelace',
      personalMeetingId: null,
    });
    expect(server.requests[0]).toMatchObject({ method: 'GET', path: '/v2/users/me', body: '' });
    expect(server.requests[0]?.headers.authorization).toBe(`Bearer ${accessToken.reveal()}`);
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['a personal meeting number', { pmi: 5_551_234_567 }, { personalMeetingId: '5551234567' }],
    ['one that is text', { pmi: '5551234567' }, { personalMeetingId: '5551234567' }],
    ['one that is none', { pmi: '555-1234' }, { personalMeetingId: null }],
    ['no e-mail', { email: undefined }, { email: null }],
    ['an e-mail of another type', { email: 7 }, { email: null }],
    ['an empty e-mail', { email: '' }, { email: null }],
    ['no display name', { display_name: undefined }, { displayName: 'Ada Lovelace' }],
    ['only a last name', { display_name: '', first_name: '' }, { displayName: 'Lovelace' }],
    ['no name at all', { display_name: null, first_name: null, last_name: 1 }, { displayName: null }],
  ])('is read with %s', async (_name, changes, expected) => {
    server.script(answerJson(200, { ...user, ...changes }));
    expect(await askUser()).toMatchObject({ userId: 'u_1', ...expected });
  });

  it.each<[string, Step, Record<string, unknown>]>([
    ['401', answerJson(401, { code: 124, message: CANARY }), { name: 'ZoomAccessTokenRejectedError' }],
    ['401 page', answer(401, { 'content-type': 'text/html' }, CANARY), { name: 'ZoomAccessTokenRejectedError' }],
    ['400 code 4711', answerJson(400, { code: 4711, message: CANARY }), { name: 'ZoomScopeMissingError' }],
    ['403 code 4711', answerJson(403, { code: 4711 }), { name: 'ZoomScopeMissingError' }],
    ['404 code 1001', answerJson(404, { code: 1001 }), { name: 'ZoomGrantInvalidError', rejection: 'USER_REMOVED' }],
    [
      '404 page',
      answer(404, { 'content-type': 'text/html' }, CANARY),
      { name: 'ZoomRequestRefusedError', status: 404 },
    ],
    ['400 code 1001', answerJson(400, { code: 1001 }), { name: 'ZoomRequestRefusedError', status: 400 }],
    ['400 code 124', answerJson(400, { code: 124, message: CANARY }), { name: 'ZoomRequestRefusedError', status: 400 }],
    ['429', answer(429, { 'retry-after': '2' }), { name: 'ZoomRateLimitedError', retryAfterSeconds: 2 }],
    ['503', answer(503, {}), { name: 'ZoomUnavailableError', stage: 'answered' }],
    [
      'hang up',
      (_response, request) => request.socket.destroy(),
      { name: 'ZoomUnavailableError', stage: 'unanswered' },
    ],
    ['200 page', answer(200, { 'content-type': 'text/html' }, CANARY), { rule: 'content type is not JSON' }],
    ['200 error', answerJson(200, { code: 300, message: CANARY }), { rule: 'id is missing or malformed' }],
    ['no account', answerJson(200, { ...user, account_id: undefined }), { rule: 'account_id is missing or malformed' }],
    ['id a number', answerJson(200, { ...user, id: 7 }), { rule: 'id is missing or malformed' }],
    ['id empty', answerJson(200, { ...user, id: '' }), { rule: 'id is missing or malformed' }],
  ])('%s has its one meaning and leaks nothing', async (_name, step, expected) => {
    server.script(step);
    const error = await failureOf(askUser());
    expect(error).toMatchObject(expected);
    expectNothingLeaked(error);
    expect(server.requests).toHaveLength(1);
  });

  it('a token that cannot stand in a header is not sent', async () => {
    const request = { environment: 'COMMERCIAL', apiUrl: server.origin } as const;
    for (const token of ['', `${CANARY}\r\nx: y`, `${CANARY} é`]) {
      const error = await failureOf(zoom.currentUser({ ...request, accessToken: new Secret(token) }));
      expect(error.name).toBe('ZoomAccessTokenRejectedError');
      expectNothingLeaked(error);
    }
    expect(server.requests).toHaveLength(0);
  });
});

const endpoints = createEndpoints({
  COMMERCIAL: { oauthUrl: 'https://zoom.us', apiUrl: 'https://api.zoom.us/v2' },
  GOVERNMENT: { oauthUrl: 'http://127.0.0.1:4010', apiUrl: 'http://127.0.0.1:4011/base/v2/' },
});

/** Everything here has to be passed over: none of it is an allowed origin, written as one. */
const strangers: unknown[] = [
  undefined,
  null,
  7,
  {},
  ['https://api-eu.zoom.us'],
  '',
  'api-eu.zoom.us',
  '//api-eu.zoom.us',
  'https:api-eu.zoom.us',
  'https:/api-eu.zoom.us',
  'https:\\\\api-eu.zoom.us',
  'http://api.zoom.us',
  'http://api-eu.zoom.us',
  'ws://api-eu.zoom.us',
  'ftp://api-eu.zoom.us',
  'javascript:alert(1)',
  'data:text/plain,https://api-eu.zoom.us',
  'https://api.zoom.us.evil.example',
  'https://api-eu.zoom.us.evil.example',
  'https://api.zoom.us@evil.example',
  'https://api-eu.zoom.us@evil.example',
  'https://user@api-eu.zoom.us',
  'https://user:secret@api-eu.zoom.us',
  'https://evil.example#@api-eu.zoom.us',
  'https://evil.example?https://api-eu.zoom.us',
  'https://evil.example/https://api-eu.zoom.us',
  'https://evilapi-eu.zoom.us',
  'https://evil.api-eu.zoom.us',
  'https://api-eu.zoom.us.',
  'https://api-eu.evilzoom.us',
  'https://api-eu.zoom.us:443',
  'https://api-eu.zoom.us:8443',
  'https://api-eu.zoom.us/v2',
  'https://api-eu.zoom.us//',
  'https://api-eu.zoom.us/?',
  'https://api-eu.zoom.us#',
  ' https://api-eu.zoom.us',
  'https://api-eu.zoom.us\n',
  'https://api-eu.zoom.us\u0000',
  'https://api-eu.zo\tom.us',
  'https://API-EU.zoom.us',
  'HTTPS://api-eu.zoom.us',
  'https://api-e.zoom.us',
  'https://api-euro.zoom.us',
  'https://api-e1.zoom.us',
  'https://api-eu-us.zoom.us',
  'https://marketplace.zoom.us',
  'https://api.zoom.com',
  'https://api-eu%2ezoom.us',
  'https://api‐eu.zoom.us',
  'https://аpi-eu.zoom.us',
  'http://127.0.0.1:4012',
  'https://127.0.0.1:4011',
  'http://127.0.0.1',
  'http://127.0.0.1:4011/base/v2',
  'http://localhost:4011',
];

describe('the REST host that an answer names', () => {
  it.each([
    ['https://api-eu.zoom.us', 'https://api-eu.zoom.us'],
    ['https://api-ca.zoom.us/', 'https://api-ca.zoom.us'],
    ['https://api.zoom.us', 'https://api.zoom.us'],
    ['https://api.zoomgov.com', 'https://api.zoomgov.com'],
    ['https://api-gov.zoomgov.com', 'https://api-gov.zoomgov.com'],
    ['https://zoom.us', 'https://zoom.us'],
    ['http://127.0.0.1:4010', 'http://127.0.0.1:4010'],
    ['http://127.0.0.1:4011/', 'http://127.0.0.1:4011'],
  ])('%s is followed', (candidate, origin) => {
    expect(endpoints.apiOrigin('COMMERCIAL', candidate)).toBe(origin);
  });

  it.each(strangers.map((candidate) => [candidate]))('%j is passed over', (candidate) => {
    expect(endpoints.apiOrigin('COMMERCIAL', candidate)).toBe('https://api.zoom.us');
    expect(endpoints.apiOrigin('GOVERNMENT', candidate)).toBe('http://127.0.0.1:4011');
  });

  it('is never any but an allowed one, whatever is named', () => {
    const allowed = new Set([
      'https://zoom.us',
      'https://api.zoom.us',
      'http://127.0.0.1:4010',
      'http://127.0.0.1:4011',
    ]);
    fc.assert(
      fc.property(
        fc.oneof(fc.anything(), fc.string({ unit: 'binary' }), fc.webUrl({ withFragments: true })),
        (candidate) => {
          expect(allowed).toContain(endpoints.apiOrigin('COMMERCIAL', candidate));
        },
      ),
      { numRuns: 1_000 },
    );
  });

  it('is part of the token set, or else the configured one is', async () => {
    server.script(
      answerJson(200, { ...goodTokens, api_url: 'https://api-eu.zoom.us' }),
      answerJson(200, { ...goodTokens, api_url: `https://api.zoom.us@${CANARY}.example` }),
      answerJson(200, { ...goodTokens, api_url: undefined }),
      answerJson(200, { ...goodTokens, api_url: server.origin }),
    );
    const named: string[] = [];
    for (let i = 0; i < 4; i += 1) named.push((await zoom.refresh(client, refreshToken)).apiUrl);
    expect(named).toEqual(['https://api-eu.zoom.us', server.origin, server.origin, server.origin]);
  });
});

describe('REST addresses', () => {
  it.each([
    ['COMMERCIAL', 'https://api.zoom.us', 'https://api.zoom.us/v2/users/me'],
    ['COMMERCIAL', 'https://api-eu.zoom.us', 'https://api-eu.zoom.us/v2/users/me'],
    ['COMMERCIAL', 'https://evil.example', 'https://api.zoom.us/v2/users/me'],
    ['GOVERNMENT', 'http://127.0.0.1:4011', 'http://127.0.0.1:4011/base/v2/users/me'],
    ['GOVERNMENT', 'http://127.0.0.1:4010', 'http://127.0.0.1:4010/v2/users/me'],
    ['GOVERNMENT', '', 'http://127.0.0.1:4011/base/v2/users/me'],
  ] as const)('%s with %j: %s', (environment, apiUrl, expected) => {
    expect(endpoints.api(environment, apiUrl, '/users/me').href).toBe(expected);
  });

  it('a stored address that is not allowed gets no token', async () => {
    const stranger = await startScriptedServer();
    server.script(answerJson(200, user));
    await askUser(stranger.origin);
    expect(server.requests).toHaveLength(1);
    expect(stranger.requests).toHaveLength(0);
    await stranger.close();
  });

  it('each environment has its own hosts', async () => {
    const government = await startScriptedServer();
    const both = createZoom({
      hosts: {
        COMMERCIAL: { oauthUrl: server.origin, apiUrl: `${server.origin}/v2` },
        GOVERNMENT: { oauthUrl: `${government.origin}/`, apiUrl: `${government.origin}/v2` },
      },
      clock: systemClock,
    });
    government.script(answerJson(200, { ...goodTokens, api_url: undefined }), answerJson(200, user));
    const { apiUrl } = await both.refresh({ ...client, environment: 'GOVERNMENT' }, refreshToken);
    expect(apiUrl).toBe(government.origin);
    await both.currentUser({ environment: 'GOVERNMENT', apiUrl, accessToken });
    expect(government.requests.map(({ path }) => path)).toEqual(['/oauth/token', '/v2/users/me']);
    expect(server.requests).toHaveLength(0);
    await both.close();
    await government.close();
  });

  it('a host that is not a URL stops the start', () => {
    const host = { oauthUrl: 'zoom.us', apiUrl: 'https://api.zoom.us/v2' };
    expect(() => createZoom({ hosts: { COMMERCIAL: host, GOVERNMENT: host }, clock: systemClock })).toThrow(TypeError);
  });
});

describe('the first call that an account token may make', () => {
  it.each([
    [['user:read:list_users:admin'], '/v2/users?page_size=1'],
    [['account:read:settings:admin'], '/v2/accounts/me/settings'],
    [['meeting:read:admin'], '/v2/users/me/meetings?page_size=1'],
    [['recording:read:admin', 'group:read:admin'], '/v2/users/me/recordings?page_size=1'],
    [['phone:read:admin', 'group:read:list_groups:admin'], '/v2/groups?page_size=1'],
  ])('with %j is %s', async (scopes, path) => {
    server.script(answerJson(200, {}));
    const request = { environment: 'COMMERCIAL' as const, apiUrl: server.origin, accessToken, scopes };
    expect(await zoom.readAccount(request)).toBe(true);
    expect(server.requests.map(({ method, path: asked }) => [method, asked])).toEqual([['GET', path]]);
  });

  it('is none where no scope allows a known one', async () => {
    const request = { environment: 'COMMERCIAL' as const, apiUrl: server.origin, accessToken };
    expect(await zoom.readAccount({ ...request, scopes: [] })).toBe(false);
    expect(await zoom.readAccount({ ...request, scopes: ['phone:read:admin'] })).toBe(false);
    expect(server.requests).toEqual([]);
  });
});
