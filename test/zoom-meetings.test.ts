import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import type { Zoom } from '../src/zoom/zoom.js';
import { answerJson, startScriptedServer, type ScriptedServer } from './support/scripted-server.js';
import { accessToken, CANARY, expectNothingLeaked, failureOf, zoomAt } from './support/zoom-client.js';

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

const caller = () => ({ environment: 'COMMERCIAL' as const, apiUrl: server.origin, accessToken });
const list = (pageToken: string | null = null) => zoom.meetings.listMeetings(caller(), { userId: 'me', pageToken });
const join = () => zoom.meetings.localRecordingToken(caller(), '81234567890');

test('a page of meetings is read for numbers and hosts alone', async () => {
  const meetings = [
    { id: 81234567890, host_id: 'u_1', topic: CANARY },
    { id: '81234567891', host_id: 'u_2' },
    { id: 12, host_id: 'u_1' },
    { id: 81234567892 },
    { id: 81234567893, host_id: 7 },
    null,
    'text',
  ];
  server.script(answerJson(200, { meetings, next_page_token: 'p2' }));
  expect(await list()).toEqual({
    items: [
      { meetingId: '81234567890', hostUserId: 'u_1' },
      { meetingId: '81234567891', hostUserId: 'u_2' },
    ],
    nextPageToken: 'p2',
    rateLimit: null,
  });
  const { path, headers } = server.requests[0]!;
  expect(path).toBe('/v2/users/me/meetings?type=scheduled&page_size=300');
  expect(headers.authorization).toBe(`Bearer ${accessToken.reveal()}`);
});

test.each(['', null, undefined])('a next page of %j is none', async (next) => {
  server.script(answerJson(200, { meetings: [], next_page_token: next }));
  expect(await list('p1')).toMatchObject({ items: [], nextPageToken: null });
  expect(server.requests[0]?.path).toContain('&next_page_token=p1');
});

test.each([
  ['no list', {}],
  ['a list of another kind', { meetings: {} }],
  ['a page token of another type', { meetings: [], next_page_token: 7 }],
  ['a page token that is endless', { meetings: [], next_page_token: 'x'.repeat(2_000) }],
  ['a page that leads back to itself', { meetings: [], next_page_token: 'p1' }],
])('an answer with %s is not understood', async (_what, body) => {
  server.script(answerJson(200, body));
  expect((await failureOf(list('p1'))).name).toBe('ZoomResponseInvalidError');
});

test('a full page is read although it is longer than other answers may be', async () => {
  const agenda = 'x'.repeat(250);
  const meetings = Array.from({ length: 300 }, (_, index) => ({ id: 81_000_000_000 + index, host_id: 'u_1', agenda }));
  server.script(answerJson(200, { meetings, next_page_token: '' }));
  expect((await list()).items).toHaveLength(300);
});

test.each([
  [
    { 'x-ratelimit-type': 'QPS', 'x-ratelimit-limit': '20', 'x-ratelimit-remaining': '3' },
    { per: 'second', limit: 20, remaining: 3 },
  ],
  [
    { 'x-ratelimit-type': 'Daily-limit', 'x-ratelimit-remaining': 'x' },
    { per: 'day', limit: null, remaining: null },
  ],
  [{ 'x-ratelimit-type': 'other', 'x-ratelimit-limit': '20' }, null],
])('of the headers %j is read what is known', async (headers, rateLimit) => {
  server.script(answerJson(200, { meetings: [] }, headers));
  expect((await list()).rateLimit).toEqual(rateLimit);
});

test('users who have not accepted yet are passed over', async () => {
  const users = [{ id: 'u_1', pmi: 5551234567 }, { email: 'pending@acme.example' }, { id: 'u_2' }];
  server.script(answerJson(200, { users, next_page_token: '' }));
  expect((await zoom.meetings.listUsers(caller(), null)).items).toEqual([
    { userId: 'u_1', personalMeetingId: '5551234567' },
    { userId: 'u_2', personalMeetingId: null },
  ]);
});

test.each([
  [404, { code: 3001, message: CANARY }, { name: 'ZoomMeetingUnknownError' }],
  [404, { code: 300, message: CANARY }, { name: 'ZoomMeetingUnknownError' }],
  [400, { code: 300, message: CANARY }, { name: 'ZoomMeetingUnknownError' }],
  [200, { code: 3001, message: CANARY }, { name: 'ZoomMeetingUnknownError' }],
  [400, { code: 3000, message: CANARY }, { name: 'ZoomRequestRefusedError', status: 400, code: 3000 }],
  [200, { code: 3161, message: CANARY }, { name: 'ZoomRequestRefusedError', code: 3161 }],
  [404, { code: 1001, message: CANARY }, { name: 'ZoomRequestRefusedError', code: 1001 }],
  [403, { message: CANARY }, { name: 'ZoomRequestRefusedError', code: null }],
  [400, { code: 4711, message: CANARY }, { name: 'ZoomScopeMissingError' }],
  [401, { code: 124, message: CANARY }, { name: 'ZoomAccessTokenRejectedError' }],
  [429, { code: 429, message: CANARY }, { name: 'ZoomRateLimitedError' }],
  [503, { message: CANARY }, { name: 'ZoomUnavailableError', stage: 'answered' }],
  [200, { expire_in: 120, token: '' }, { name: 'ZoomResponseInvalidError' }],
  [200, { expire_in: 120, token: 'two words' }, { name: 'ZoomResponseInvalidError' }],
  [200, { expire_in: 120, token: 'x'.repeat(9_000) }, { name: 'ZoomResponseInvalidError' }],
])('a join token that is answered %i %j fails as what it means', async (status, body, expected) => {
  server.script(answerJson(status, body));
  const error = await failureOf(join());
  expect(error).toMatchObject(expected);
  expectNothingLeaked(error);
});

test.each([
  [{ expire_in: 60 }, 60],
  [{ expire_in: 90.7 }, 90],
  [{ expire_in: -1 }, 120],
  [{ expire_in: '60' }, 120],
  [{}, 120],
])('a join token with %j lasts %i seconds', async (more, seconds) => {
  server.script(answerJson(200, { token: 't', ...more }));
  expect((await join()).expiresInSeconds).toBe(seconds);
});

test('an address of a stranger gets no token', async () => {
  server.script(answerJson(200, { token: 't' }));
  await zoom.meetings.ownZakToken({ ...caller(), apiUrl: 'https://api.zoom.us.evil.example' });
  expect(server.requests).toHaveLength(1);
});

test('what a path is made of cannot leave its place', async () => {
  server.script(answerJson(200, { token: 't' }));
  await zoom.meetings.userToken(caller(), { userId: '../me?x=/', type: 'onbehalf', meetingId: '8&type=zak' });
  expect(server.requests[0]?.path).toBe('/v2/users/..%2Fme%3Fx%3D%2F/token?type=onbehalf&meeting_id=8%26type%3Dzak');
});
