import { describe, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { type Ceiling, createRateLimiter } from '../src/domain/rate-limit.js';
import { createAddressOf } from '../src/http/address.js';
import { createLog } from '../src/log.js';
import { type Caller, createFrontendSession, createServerKey } from './support/principals.js';
import { startTestServer, type TestServer } from './support/server.js';
import { createTenant, PRODUCT } from './support/story.js';
import { openConnection } from './support/streams.js';

const server = await startTestServer({ LATCHKEY_RATE_LIMIT_TENANT: '4', LATCHKEY_RATE_LIMIT_FRONTEND_SESSION: '1' });
const log = createLog('silent');

const ASK = '{ viewer { kind } }';
/** Requests of ten seconds at one a second; the window may change meanwhile, but not twice. */
const WINDOW = 10;

const askOften = (caller: Pick<TestServer | Caller, 'graphql'>, count: number) =>
  Promise.all(Array.from({ length: count }, () => caller.graphql(ASK)));

describe('a ceiling', () => {
  test('answers what is above it with 429, the seconds to wait as header and in the error, and lets others in', async () => {
    const tenantId = await createTenant(server);
    const [session, other] = [
      await createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT),
      await createFrontendSession(server, { tenantId, allow: ['READ_CONNECTIONS'] }, PRODUCT),
    ];
    const answers = await askOften(session, 2 * WINDOW + 5);
    const refused = answers.filter(({ status }) => status === 429);
    expect(answers.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(WINDOW);
    expect(refused.length).toBeGreaterThanOrEqual(5);
    for (const { data, errors, headers } of refused) {
      expect(data).toBeUndefined();
      const retryAfterSeconds = Number(headers.get('retry-after'));
      expect(retryAfterSeconds).toBeGreaterThanOrEqual(1);
      expect(retryAfterSeconds).toBeLessThanOrEqual(10);
      expect(errors).toMatchObject([{ extensions: { code: 'RATE_LIMITED', retryAfterSeconds } }]);
    }
    expect((await other.graphql(ASK)).status).toBe(200);
    expect((await server.graphql(ASK)).status).toBe(200);
  });

  test('for a tenant holds for all who are restricted to it together', async () => {
    const tenantId = await createTenant(server);
    const keys = [
      await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId }),
      await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId }),
    ];
    const elsewhere = await createServerKey(server, {
      permissions: ['CONNECTIONS_READ'],
      tenantId: await createTenant(server),
    });
    const answers = (await Promise.all(keys.map((key) => askOften(key, 45)))).flat();
    const served = answers.filter(({ status }) => status === 200).length;
    expect(served).toBeGreaterThanOrEqual(40);
    expect(served).toBeLessThanOrEqual(80);
    expect((await elsewhere.graphql(ASK)).status).toBe(200);
  });

  test('holds for operations over WebSocket, whose socket stays open', async () => {
    const tenantId = await createTenant(server);
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
    const socket = await openConnection(server.url, key.token);
    const seen = new Set<string>();
    for (let index = 0; !seen.has('error') && index < 81; index += 1) {
      socket.send({ type: 'subscribe', id: String(index), payload: { query: ASK } });
      const message = await socket.next();
      if (message.type === 'error') {
        expect(message.payload).toMatchObject([
          { extensions: { code: 'RATE_LIMITED', retryAfterSeconds: expect.any(Number) } },
        ]);
      } else {
        expect(message.payload.data).toEqual({ viewer: { kind: 'SERVER_KEY' } });
        expect((await socket.next()).type).toBe('complete');
      }
      seen.add(message.type);
    }
    expect(seen).toEqual(new Set(['next', 'error']));
    socket.close();
  });
});

describe('a limiter', () => {
  const ceiling = (perSecond: number): Ceiling[] => [{ name: `test:${Math.random()}`, perSecond }];

  test('lets in again after the seconds that it told', async () => {
    const limiter = createRateLimiter({ db: server.db, clock: systemClock, log }, 1_000);
    const ceilings = ceiling(5);
    let refusal = null;
    for (let count = 0; refusal === null && count < 20; count += 1) refusal = await limiter.admit(ceilings, true);
    expect(refusal).toMatchObject({ isUnknown: false, retryAfterSeconds: 1 });
    await systemClock.sleep(1_000);
    expect(await limiter.admit(ceilings, true)).toBeNull();
    await limiter.close();
  });

  test('asks the database a few times for thousands of requests, and never lets in more than the ceiling alone', async () => {
    let statements = 0;
    const db = { query: ((statement) => ((statements += 1), server.db.query(statement))) as typeof server.db.query };
    const limiter = createRateLimiter({ db, clock: systemClock, log }, 3_600_000);
    const ceilings = ceiling(1);
    const answers = await Promise.all(Array.from({ length: 5_000 }, async () => limiter.admit(ceilings, true)));
    expect(answers.filter((answer) => answer === null)).toHaveLength(3_600);
    expect(statements).toBeLessThanOrEqual(12);
    await limiter.close();
  });

  test('whose count cannot be shared lets server keys in as far as it has counted itself, and nobody unnamed', async () => {
    let isDown = true;
    const query = ((statement) =>
      isDown ? Promise.reject(new Error('down')) : server.db.query(statement)) as typeof server.db.query;
    const limiter = createRateLimiter({ db: { query }, clock: systemClock, log }, 3_600_000);
    const own = [{ name: `test:${Math.random()}`, perSecond: 30 / 3_600 }];
    const answers = await Promise.all(Array.from({ length: 40 }, async () => limiter.admit(own, true)));
    expect(answers.filter((answer) => answer === null)).toHaveLength(30);
    expect(await limiter.admit(ceiling(1), false)).toEqual({ isUnknown: true, retryAfterSeconds: 1 });
    isDown = false;
    await systemClock.sleep(1_100);
    expect(await limiter.admit(ceiling(1), false)).toBeNull();
    await limiter.close();
  });
});

describe('where a request comes from', () => {
  const from = (address: string, forwarded?: string) => ({
    address,
    headers: forwarded === undefined ? {} : { 'x-forwarded-for': forwarded },
  });

  test('is the connection, whatever a header says, unless a trusted proxy says it', () => {
    expect(createAddressOf([])(from('127.0.0.1', '203.0.113.7'))).toBe('127.0.0.1');
    const addressOf = createAddressOf(['127.0.0.1', '10.0.0.0/8', 'fd00::/8']);
    expect(addressOf(from('198.51.100.9', '203.0.113.7'))).toBe('198.51.100.9');
    expect(addressOf(from('127.0.0.1', '203.0.113.7'))).toBe('203.0.113.7');
    expect(addressOf(from('::ffff:127.0.0.1', 'spoofed, 203.0.113.7, 10.1.2.3'))).toBe('203.0.113.7');
    expect(addressOf(from('fd00::1', '203.0.113.7, spoofed'))).toBe('fd00::1');
    expect(addressOf(from('127.0.0.1'))).toBe('127.0.0.1');
  });

  test('counts for pages that anybody may open, each address by itself', async () => {
    const pages = await startTestServer({ LATCHKEY_RATE_LIMIT_ADDRESS: '1', LATCHKEY_TRUSTED_PROXIES: '127.0.0.1' });
    const open = async (address: string) => {
      const url = `${pages.url}/oauth/start/00000000-0000-4000-8000-000000000000`;
      const response = await fetch(url, { headers: { 'x-forwarded-for': address } });
      return { status: response.status, retryAfter: response.headers.get('retry-after'), text: await response.text() };
    };
    const answers = await Promise.all(Array.from({ length: 2 * WINDOW + 5 }, () => open('203.0.113.7')));
    expect(new Set(answers.map(({ status }) => status))).toEqual(new Set([404, 429]));
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused.length).toBeGreaterThanOrEqual(5);
    for (const { retryAfter } of refused) expect(Number(retryAfter)).toBeGreaterThanOrEqual(1);
    expect((await open('203.0.113.8')).status).toBe(404);
  });
});
