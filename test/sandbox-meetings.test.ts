import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { App, User } from '../src/sandbox/model.js';
import { createSandbox, type Sandbox } from '../src/sandbox/sandbox.js';
import { createManualClock, type ManualClock } from './support/manual-clock.js';
import {
  connect,
  createReceiver,
  createUserApp,
  mintAccountToken,
  person,
  REDIRECT,
  tokensOf,
} from './support/sandbox-client.js';
import { until } from './support/until.js';

const MINUTE = 60_000;
const SCOPES = [
  'user:read:user',
  'user:read:zak',
  'user:read:token',
  'meeting:read:meeting',
  'meeting:read:list_meetings',
  'meeting:read:local_recording_token',
];

let clock: ManualClock;
let sandbox: Sandbox;
let cleanups: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  clock = createManualClock();
  sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock, canary: true });
  cleanups = [() => sandbox.close()];
});

afterEach(async () => {
  for (const cleanup of cleanups) await cleanup();
});

const userApp = (scopes = SCOPES, patch: object = {}): App =>
  createUserApp(sandbox, { scopes: scopes.map((scope) => ({ scope })), ...patch });

const serverApp = (scopes = [...SCOPES, 'user:read:list_users'].map((scope) => `${scope}:admin`)): App =>
  sandbox.control.createApp({ name: 'Reports', usage: 'SERVER_TO_SERVER', scopes: scopes.map((scope) => ({ scope })) });

const tokenOf = async (user: User, app = userApp()): Promise<string> => (await connect(sandbox, app, user)).accessToken;
const serverToken = async (app = serverApp()): Promise<string> =>
  tokensOf(await mintAccountToken(sandbox, app)).accessToken;

async function get(token: string, path: string): Promise<{ status: number; body: any; headers: Headers }> {
  const response = await fetch(`${sandbox.origin}/v2${path}`, { headers: { authorization: `Bearer ${token}` } });
  return { status: response.status, body: await response.json(), headers: response.headers };
}

const createMeetings = (host: User, count: number) =>
  Array.from({ length: count }, () => sandbox.control.createMeeting({ hostId: host.id }));

describe('lists', () => {
  test('come in pages of 30 unless asked, the last of which has an empty token', async () => {
    const ben = person(sandbox, 'Ben');
    const meetings = createMeetings(ben, 65);
    const token = await tokenOf(ben);
    const ids: number[] = [];
    let next = '';
    const sizes: number[] = [];
    do {
      const { status, body } = await get(token, `/users/me/meetings?next_page_token=${next}`);
      expect(status).toBe(200);
      expect(body).toMatchObject({ page_size: 30, page_count: 3, total_records: 65 });
      sizes.push(body.meetings.length);
      ids.push(...body.meetings.map(({ id }: { id: number }) => id));
      next = body.next_page_token;
    } while (next !== '');
    expect(sizes).toEqual([30, 30, 5]);
    expect(ids).toEqual(meetings.map(({ id }) => id));
  });

  test('a page token serves its own list and query, for 15 minutes', async () => {
    const [ben, cleo] = [person(sandbox, 'Ben'), person(sandbox, 'Cleo')];
    createMeetings(ben, 3);
    createMeetings(cleo, 3);
    const [token, other] = [await tokenOf(ben), await tokenOf(cleo)];
    const { next_page_token: next } = (await get(token, '/users/me/meetings?page_size=2')).body;
    const at = (who: string, size: number, page = next) =>
      get(who, `/users/me/meetings?page_size=${size}&next_page_token=${page}`);
    expect((await at(token, 2)).body.meetings).toHaveLength(1);
    for (const refused of [
      await at(other, 2),
      await at(token, 1),
      await at(token, 2, `${next}A`),
      await at(token, 2, 'x'),
    ]) {
      expect(refused).toMatchObject({ status: 400, body: { code: 300, errors: [{ field: 'next_page_token' }] } });
    }
    await clock.advance(15 * MINUTE);
    expect((await at(token, 2)).status).toBe(400);
  });

  test.each(['0', '301', '1.5', 'many'])('a page of %s is refused', async (size) => {
    const answer = await get(await serverToken(), `/users?page_size=${size}`);
    expect(answer).toMatchObject({ status: 400, body: { code: 300 } });
  });

  test('users are those of the account who are active', async () => {
    const token = await serverToken();
    const { body } = await get(token, '/users?status=active');
    const inAccount = (user: User) => user.accountId === person(sandbox, 'Ada').accountId;
    expect(body.users.map(({ id }: { id: string }) => id)).toEqual(
      sandbox.control
        .users()
        .filter(inAccount)
        .map(({ id }) => id),
    );
    expect(body.users[0].pmi).toBeGreaterThan(999_999_999);
    sandbox.control.removeUser(person(sandbox, 'Cleo').id);
    expect((await get(token, '/users')).body.total_records).toBe(2);
  });

  test('instant meetings are in no list, and can be read all the same', async () => {
    const ben = person(sandbox, 'Ben');
    const meeting = sandbox.control.createMeeting({ hostId: ben.id, type: 1 });
    const token = await tokenOf(ben);
    expect((await get(token, '/users/me/meetings')).body.meetings).toEqual([]);
    expect(await get(token, `/meetings/${meeting.id}`)).toMatchObject({ status: 200, body: { host_id: ben.id } });
  });
});

describe('scopes', () => {
  test.each([
    ['/users', ['user:read:list_users:admin']],
    ['/users/me/meetings', ['meeting:read:list_meetings', 'meeting:read:list_meetings:admin']],
    ['/users/me/zak', ['user:read:zak', 'user:read:zak:admin']],
    ['/users/me/token?type=zak', ['user:read:token', 'user:read:token:admin']],
    ['/meetings/81234567890', ['meeting:read:meeting', 'meeting:read:meeting:admin']],
    [
      '/meetings/81234567890/jointoken/local_recording',
      ['meeting:read:local_recording_token', 'meeting:read:local_recording_token:admin'],
    ],
  ])('%s without its scope is refused, and the scopes named', async (path, scopes) => {
    const token = await tokenOf(person(sandbox, 'Ben'), userApp(['user:read:user']));
    const message = `Invalid access token, does not contain scopes:[${scopes.join(', ')}].`;
    expect(await get(token, path)).toMatchObject({ status: 400, body: { code: 4711, message } });
  });

  test('the two ways to an access key need different scopes', async () => {
    const ben = person(sandbox, 'Ben');
    const [zak, token] = [
      await tokenOf(ben, userApp(['user:read:zak'])),
      await tokenOf(ben, userApp(['user:read:token'])),
    ];
    expect([(await get(zak, '/users/me/zak')).status, (await get(zak, '/users/me/token?type=zak')).status]).toEqual([
      200, 400,
    ]);
    expect([(await get(token, '/users/me/zak')).status, (await get(token, '/users/me/token?type=zak')).status]).toEqual(
      [400, 200],
    );
  });

  test("a user's token reaches that user's meetings alone, an account's those of the account", async () => {
    const [ben, cleo, gina] = [person(sandbox, 'Ben'), person(sandbox, 'Cleo'), person(sandbox, 'Gina')];
    const [own, other, foreign] = [ben, cleo, gina].map(
      (host) => sandbox.control.createMeeting({ hostId: host.id }).id,
    );
    const user = await tokenOf(ben);
    const statuses = async (token: string, path: (id: number) => string) => [
      (await get(token, path(own!))).status,
      (await get(token, path(other!))).status,
      (await get(token, path(foreign!))).status,
    ];
    const read = (id: number) => `/meetings/${id}`;
    const join = (id: number) => `/meetings/${id}/jointoken/local_recording`;
    expect(await statuses(user, read)).toEqual([200, 404, 404]);
    expect(await statuses(user, join)).toEqual([200, 404, 404]);
    expect((await get(user, `/users/${cleo.id}/meetings`)).status).toBe(403);
    const account = await serverToken();
    expect(await statuses(account, read)).toEqual([200, 200, 404]);
    expect(await statuses(account, join)).toEqual([200, 200, 404]);
    expect((await get(account, `/users/${cleo.id}/meetings`)).body.total_records).toBe(1);
    expect(await get(account, `/users/${gina.id}/meetings`)).toMatchObject({ status: 400, body: { code: 1010 } });
    expect(await get(account, '/users/nobody/meetings')).toMatchObject({ status: 404, body: { code: 1001 } });
  });
});

describe('tokens for meetings', () => {
  test('a join token for local recording is new each time and lasts 120 s', async () => {
    const ben = person(sandbox, 'Ben');
    const { id } = sandbox.control.createMeeting({ hostId: ben.id });
    const token = await tokenOf(ben);
    const path = `/meetings/${id}/jointoken/local_recording`;
    const [one, two] = [await get(token, path), await get(token, path)];
    expect(one.body).toEqual({ expire_in: 120, token: expect.stringMatching(/^\S+$/) });
    expect(one.body.token).not.toBe(two.body.token);
    sandbox.control.updateUser(ben.id, { localRecordingOff: true });
    expect(await get(token, path)).toMatchObject({ status: 400, body: { code: 3000 } });
    expect(await get(token, path.replace(String(id), '81234567890'))).toMatchObject({
      status: 404,
      body: { code: 3001 },
    });
    expect(await get(token, path.replace(String(id), 'abc'))).toMatchObject({ status: 400, body: { code: 300 } });
  });

  test('a personal meeting number is a meeting of its user', async () => {
    const ben = person(sandbox, 'Ben');
    const token = await tokenOf(ben);
    const { pmi } = (await get(token, '/users/me')).body;
    expect((await get(token, `/meetings/${pmi}`)).body).toMatchObject({ id: pmi, host_id: ben.id });
    sandbox.control.updateUser(ben.id, { pmi: 5_550_001_111 });
    expect((await get(token, `/meetings/${pmi}`)).status).toBe(404);
    expect((await get(token, '/meetings/5550001111/jointoken/local_recording')).status).toBe(200);
  });

  test.each([
    ['type=everything', 'type'],
    ['type=onbehalf', 'meeting_id'],
    ['type=onbehalf&meeting_id=abc', 'meeting_id'],
    ['type=zak&ttl=0', 'ttl'],
  ])('a user token with %s is refused', async (query, field) => {
    const token = await tokenOf(person(sandbox, 'Ben'));
    expect(await get(token, `/users/me/token?${query}`)).toMatchObject({
      status: 400,
      body: { code: 300, errors: [{ field }] },
    });
  });
});

describe('rate limits', () => {
  test('count the requests of an account over all apps, second by second, and name no time to wait', async () => {
    sandbox.control.setKnobs({ lightPerSecond: 3 });
    const [one, two] = [await tokenOf(person(sandbox, 'Ben')), await tokenOf(person(sandbox, 'Cleo'))];
    const elsewhere = await tokenOf(person(sandbox, 'Gina'));
    const remaining = [];
    for (const token of [one, two, one])
      remaining.push((await get(token, '/users/me')).headers.get('x-ratelimit-remaining'));
    expect(remaining).toEqual(['2', '1', '0']);
    const limited = await get(two, '/users/me');
    expect(limited).toMatchObject({ status: 429, body: { code: 429, message: expect.stringContaining('per-second') } });
    expect(limited.headers.get('retry-after')).toBeNull();
    expect(limited.headers.get('x-ratelimit-type')).toBe('QPS');
    expect((await get(elsewhere, '/users/me')).status).toBe(200);
    // Medium calls are counted apart.
    expect((await get(two, '/users/me/meetings')).status).toBe(200);
    await clock.advance(1_000);
    expect((await get(two, '/users/me')).status).toBe(200);
  });

  test('the limit of a day says when the next one begins', async () => {
    sandbox.control.setKnobs({ requestsPerDay: 1 });
    const token = await tokenOf(person(sandbox, 'Ben'));
    expect((await get(token, '/users/me')).headers.get('x-ratelimit-type')).toBe('Daily-limit');
    const limited = await get(token, '/users/me');
    expect(limited.status).toBe(429);
    const again = Date.parse(limited.headers.get('retry-after') ?? '');
    expect(again % 86_400_000).toBe(0);
    expect(again).toBeGreaterThan(clock.now().getTime());
  });

  test('headers about limits can be left out', async () => {
    sandbox.control.setKnobs({ rateLimitHeaders: false, lightPerSecond: 5 });
    const { headers } = await get(await tokenOf(person(sandbox, 'Ben')), '/users/me');
    expect([...headers.keys()].filter((name) => name.startsWith('x-ratelimit'))).toEqual([]);
  });
});

describe('webhooks', () => {
  async function listen() {
    const receiver = await createReceiver();
    cleanups.unshift(() => receiver.close());
    const events = () => receiver.received.map(({ body }) => JSON.parse(body));
    return { url: receiver.url, events };
  }

  test('tell what happens to the meetings of a user who authorized the app', async () => {
    const [ben, cleo] = [person(sandbox, 'Ben'), person(sandbox, 'Cleo')];
    const { url, events } = await listen();
    await connect(sandbox, userApp(SCOPES, { webhookUrl: url }), ben);
    sandbox.control.createMeeting({ hostId: cleo.id });
    const { id } = sandbox.control.createMeeting({ hostId: ben.id, topic: 'Old' });
    await until(() => events().length === 1);
    sandbox.control.updateMeeting(id, { topic: 'New' });
    await until(() => events().length === 2);
    sandbox.control.deleteMeeting(id, { operation: 'single' });
    await until(() => events().length === 3);
    sandbox.control.deleteMeeting(id);
    await until(() => events().length === 4);
    const [created, updated, single, deleted] = events();
    expect(created).toMatchObject({
      event: 'meeting.created',
      event_ts: clock.now().getTime(),
      payload: { account_id: ben.accountId, operator_id: ben.id, object: { id, host_id: ben.id, type: 2 } },
    });
    expect(updated.payload).toMatchObject({ object: { id, topic: 'New' }, old_object: { id, topic: 'Old' } });
    expect(updated.payload.object).not.toHaveProperty('host_id');
    expect([single, deleted].map(({ payload }) => payload.operation)).toEqual(['single', 'all']);
    expect(sandbox.control.meetings().map(({ hostId }) => hostId)).toEqual([cleo.id]);
  });

  test('tell an app of the account about everybody in it, and nobody elsewhere', async () => {
    const { url, events } = await listen();
    const scopes = SCOPES.map((scope) => ({ scope: `${scope}:admin` }));
    const app = sandbox.control.createApp({ name: 'All', usage: 'ADMIN_MANAGEMENT', scopes, redirectUris: [REDIRECT] });
    await connect(sandbox, app, person(sandbox, 'Ada'));
    sandbox.control.updateApp(app.clientId, { webhookUrl: url });
    sandbox.control.createMeeting({ hostId: person(sandbox, 'Gina').id });
    const former = (await get(await tokenOf(person(sandbox, 'Cleo')), '/users/me')).body.pmi;
    sandbox.control.updateUser(person(sandbox, 'Cleo').id, { pmi: 5_550_002_222 });
    await until(() => events().length === 1);
    expect(events()[0]).toMatchObject({
      event: 'user.updated',
      payload: {
        object: { id: person(sandbox, 'Cleo').id, pmi: 5_550_002_222 },
        old_object: { id: person(sandbox, 'Cleo').id, pmi: former },
      },
    });
    sandbox.control.updateUser(person(sandbox, 'Cleo').id, { pmi: 5_550_003_333, webhooks: false });
    sandbox.control.createMeeting({ hostId: person(sandbox, 'Ben').id });
    await until(() => events().length === 2);
    expect(events()[1].event).toBe('meeting.created');
  });

  test('meetings are made over the control API as well', async () => {
    const send = (method: 'POST' | 'PATCH', path: string, body: object) =>
      fetch(`${sandbox.origin}/_sandbox${path}`, {
        method,
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(body),
      });
    const hostId = person(sandbox, 'Ben').id;
    const meeting = (await (await send('POST', '/meetings', { hostId })).json()) as { id: number };
    expect((await send('PATCH', `/meetings/${meeting.id}`, { topic: 'New' })).status).toBe(200);
    expect((await send('PATCH', `/users/${hostId}`, { pmi: 5_550_004_444 })).status).toBe(200);
    expect((await send('PATCH', `/users/${hostId}`, { pmi: 12 })).status).toBe(400);
    expect((await send('POST', '/meetings', { hostId: 'nobody' })).status).toBe(404);
    expect((await send('POST', `/meetings/${meeting.id}/delete`, {})).status).toBe(200);
    expect((await send('POST', `/meetings/${meeting.id}/delete`, {})).status).toBe(404);
  });
});
