import { createServer as createTcpServer, type AddressInfo, type Socket } from 'node:net';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { createZoom } from '../src/zoom/zoom.js';
import { parseRetryAfter } from '../src/zoom/retry-after.js';
import { systemClock } from '../src/clock.js';
import {
  answer,
  answerJson,
  hangUp,
  keepSilent,
  startScriptedServer,
  type ScriptedServer,
  type Step,
} from './support/scripted-server.js';
import {
  accessToken,
  CANARY,
  client,
  codeGrant,
  expectNothingLeaked,
  failureOf,
  goodTokens,
  refreshToken,
  zoomAt,
} from './support/zoom-client.js';

let server: ScriptedServer;
const open: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  server = await startScriptedServer();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((resource) => resource.close()));
  server.requests.length = 0;
});
afterAll(() => server.close());

function zoomTo(origin: string, options: { deadlineMs?: number } = {}) {
  const zoom = zoomAt(origin, options);
  open.push(zoom);
  return zoom;
}

/** A bare TCP server; `onConnection` gets each socket. */
async function tcpServer(onConnection: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const tcp = createTcpServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    onConnection(socket);
  });
  await new Promise<void>((resolve) => tcp.listen(0, '127.0.0.1', resolve));
  open.push({
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        tcp.close(() => resolve());
      }),
  });
  return (tcp.address() as AddressInfo).port;
}

describe('redirects', () => {
  it.each([300, 301, 302, 303, 304, 307, 308])('%i leads to no second request, at any endpoint', async (status) => {
    const zoom = zoomTo(server.origin);
    const stranger = await startScriptedServer();
    open.push(stranger);
    const attempts = [
      () => zoom.exchangeCode(client, codeGrant),
      () => zoom.refresh(client, refreshToken),
      () => zoom.mintAccountToken(client, 'acc_1'),
      () => zoom.revoke(client, refreshToken),
      () => zoom.currentUser({ environment: 'COMMERCIAL', apiUrl: server.origin, accessToken }),
    ];
    for (const attempt of attempts) {
      server.script(answer(status, { location: `${stranger.origin}/${CANARY}` }));
      const error = await failureOf(attempt());
      expect(error).toMatchObject({ name: 'ZoomResponseInvalidError', rule: 'redirect' });
      expectNothingLeaked(error);
    }
    expect(server.requests).toHaveLength(attempts.length);
    expect(stranger.requests).toHaveLength(0);
  });
});

describe('how far a request came', () => {
  it('a refused port: not sent', async () => {
    const gone = await startScriptedServer();
    await gone.close();
    const error = await failureOf(zoomTo(gone.origin).refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent', retryAfterSeconds: null });
    expectNothingLeaked(error);
  });

  it('a host name that does not exist: not sent', async () => {
    const error = await failureOf(zoomTo('http://zoom.invalid').refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent' });
    expectNothingLeaked(error);
  });

  it('no TLS on the other side: not sent, and nothing arrives in the clear', async () => {
    let arrived = '';
    const port = await tcpServer((socket) =>
      socket.once('data', (chunk) => {
        arrived += chunk.toString('latin1');
        socket.end('HTTP/1.1 400 Bad Request\r\n\r\n');
      }),
    );
    const error = await failureOf(zoomTo(`https://127.0.0.1:${port}`).refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent' });
    expectNothingLeaked(error);
    expect(arrived).not.toContain('oauth');
    expect(arrived).not.toContain('ZCANARY');
  });

  it('a TLS handshake that never ends: not sent, within the deadline, and not sent later either', async () => {
    let arrived = '';
    const port = await tcpServer((socket) => socket.on('data', (chunk) => (arrived += chunk.toString('latin1'))));
    const startedAt = performance.now();
    const error = await failureOf(
      zoomTo(`https://127.0.0.1:${port}`, { deadlineMs: 200 }).refresh(client, refreshToken),
    );
    expect(performance.now() - startedAt).toBeLessThan(1_500);
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent' });
    expect(arrived).not.toContain('ZCANARY');
  });

  it('no free connection in a third of the deadline: not sent, and not sent later either', async () => {
    const zoom = zoomTo(server.origin, { deadlineMs: 1_500 });
    server.script(...Array.from({ length: 100 }, () => keepSilent));
    const holders = Array.from({ length: 100 }, () => failureOf(zoom.refresh(client, refreshToken)));
    const startedAt = performance.now();
    const error = await failureOf(zoom.mintAccountToken(client, 'the-one-that-waits'));
    expect(performance.now() - startedAt).toBeLessThan(1_400);
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent' });
    for (const holder of await Promise.all(holders)) expect(holder).toMatchObject({ stage: 'unanswered' });
    // Connections are free now, and closing waits for whatever the dispatcher still holds.
    await zoom.close();
    open.length = 0;
    expect(server.requests.map(({ body }) => body).filter((body) => body.includes('waits'))).toEqual([]);
    expect(server.requests).toHaveLength(100);
  });

  it('a connection broken after the request arrived: unanswered', async () => {
    server.script(hangUp);
    const error = await failureOf(zoomTo(server.origin).refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'unanswered' });
    expectNothingLeaked(error);
    expect(server.requests).toHaveLength(1);
  });

  it('no answer: unanswered, within the deadline, and asked once', async () => {
    server.script(keepSilent);
    const startedAt = performance.now();
    const error = await failureOf(zoomTo(server.origin, { deadlineMs: 1_000 }).exchangeCode(client, codeGrant));
    const tookMs = performance.now() - startedAt;
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'unanswered' });
    expectNothingLeaked(error);
    expect(tookMs).toBeGreaterThan(990);
    expect(tookMs).toBeLessThan(2_500);
    expect(server.requests).toHaveLength(1);
  });

  const partial = `{"access_token":"${CANARY}`;
  it.each<[string, Step]>([
    [
      'breaks off',
      (response, request) => {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': 500 });
        response.write(partial, () => request.socket.destroy());
      },
    ],
    [
      'stalls',
      (response) => {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': 500 });
        response.write(partial);
      },
    ],
    ['is no HTTP', (_response, request) => request.socket.end(`${CANARY}\r\n\r\n`)],
    [
      'is longer than its content-length',
      (_response, request) => request.socket.end(`HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n${partial}`),
    ],
  ])('an answer that %s: unanswered', async (_name, step) => {
    server.script(step);
    const error = await failureOf(zoomTo(server.origin, { deadlineMs: 1_200 }).refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomUnavailableError', stage: 'unanswered' });
    expectNothingLeaked(error);
    expect(server.requests).toHaveLength(1);
  });

  it('an endless answer is cut off, not collected', async () => {
    let written = 0;
    let closed = false;
    server.script((response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      response.on('close', () => (closed = true));
      const write = (): void => {
        while (!closed && written < 500_000_000) {
          written += 65_536;
          if (!response.write('x'.repeat(65_536))) {
            response.once('drain', write);
            return;
          }
        }
      };
      write();
    });
    const error = await failureOf(zoomTo(server.origin).refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomResponseInvalidError', rule: 'too long' });
    await expect.poll(() => closed).toBe(true);
    expect(written).toBeLessThan(50_000_000);
  });

  it('an early hint before the answer does not count as the answer', async () => {
    server.script((response) => {
      response.writeEarlyHints({ link: '</x>; rel=preload' });
      response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(goodTokens));
    });
    expect((await zoomTo(server.origin).refresh(client, refreshToken)).expiresInSeconds).toBe(3600);
  });

  it('after close: not sent, and close waits for the request under way', async () => {
    const zoom = zoomAt(server.origin);
    let release = (): void => {};
    server.script((response) => {
      release = () => response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(goodTokens));
    });
    const underWay = zoom.refresh(client, refreshToken);
    await expect.poll(() => server.requests.length).toBe(1);
    const closed = zoom.close();
    const late = await failureOf(zoom.refresh(client, refreshToken));
    expect(late).toMatchObject({ name: 'ZoomUnavailableError', stage: 'not-sent' });
    release();
    expect((await underWay).expiresInSeconds).toBe(3600);
    await closed;
    expect(server.requests).toHaveLength(1);
  });

  it('connections are kept for later requests', async () => {
    const ports = new Set<number | undefined>();
    const zoom = zoomTo(server.origin);
    for (let i = 0; i < 6; i += 1) {
      server.script((response, request) => {
        ports.add(request.socket.remotePort);
        answerJson(200, goodTokens)(response, request);
      });
      await zoom.refresh(client, refreshToken);
    }
    // The dispatcher may open a second one when a request follows in the very tick of an answer.
    expect(ports.size).toBeLessThanOrEqual(2);
  });

  it('a kept connection that the other side has closed costs no request', async () => {
    const zoom = zoomTo(server.origin);
    const tokens = answerJson(200, goodTokens);
    server.script((response, request) => {
      response.on('finish', () => setTimeout(() => request.socket.destroy(), 20));
      tokens(response, request);
    }, tokens);
    await zoom.refresh(client, refreshToken);
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect((await zoom.refresh(client, refreshToken)).expiresInSeconds).toBe(3600);
  });

  it('requests run side by side', async () => {
    const zoom = zoomTo(server.origin);
    const waiting: (() => void)[] = [];
    const step: Step = (response, request) => {
      waiting.push(() => answerJson(200, goodTokens)(response, request));
      if (waiting.length === 20) for (const release of waiting) release();
    };
    server.script(...Array.from({ length: 20 }, () => step));
    const sets = await Promise.all(Array.from({ length: 20 }, () => zoom.refresh(client, refreshToken)));
    expect(sets).toHaveLength(20);
  });
});

describe('Retry-After', () => {
  const now = new Date('2026-03-01T12:00:00.000Z');

  it.each<[string, string | string[] | undefined, number | null]>([
    ['seconds', '120', 120],
    ['none', '0', 0],
    ['white space around', ' 30 ', 30],
    ['more than an hour', '86400', 3600],
    ['more than any number', '9'.repeat(400), 3600],
    ['HTTP-date', 'Sun, 01 Mar 2026 12:01:30 GMT', 90],
    ['HTTP-date in the past', 'Sun, 01 Mar 2026 11:00:00 GMT', 0],
    ['HTTP-date far ahead', 'Mon, 02 Mar 2026 12:00:00 GMT', 3600],
    ['ISO date-time', '2026-03-01T12:00:45Z', 45],
    ['ISO date-time, rounded up', '2026-03-01T12:00:00.001Z', 1],
    ['ISO date-time with offset', '2026-03-01T13:10:00+01:00', 600],
    ['ISO date-time without zone', '2026-03-01T12:00:45', null],
    ['absent', undefined, null],
    ['empty', '', null],
    ['negative', '-5', null],
    ['fraction', '1.5', null],
    ['hexadecimal', '0x10', null],
    ['words', 'soon', null],
    ['impossible date', 'Sun, 99 Mar 2026 12:00:00 GMT', null],
    ['repeated', ['1', '2'], null],
  ])('%s', (_name, value, expected) => {
    expect(parseRetryAfter(value, now)).toBe(expected);
  });

  it('as a date counts from the clock', async () => {
    server.script(answer(429, { 'retry-after': 'Sun, 01 Mar 2026 12:01:30 GMT' }));
    const host = { oauthUrl: server.origin, apiUrl: server.origin };
    const zoom = createZoom({
      hosts: { COMMERCIAL: host, GOVERNMENT: host },
      clock: { ...systemClock, now: () => now },
    });
    open.push(zoom);
    const error = await failureOf(zoom.refresh(client, refreshToken));
    expect(error).toMatchObject({ name: 'ZoomRateLimitedError', retryAfterSeconds: 90 });
  });
});
