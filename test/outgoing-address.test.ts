import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll, describe, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { AddressNotAllowedError, createAddressGuard } from '../src/outgoing/address-guard.js';
import { readRetryAfter } from '../src/outgoing/retry-after.js';
import { createWebhookSender } from '../src/outgoing/webhook-sender.js';
import { startReceiver } from './support/webhook-receiver.js';

const guard = createAddressGuard([]);

const PUBLIC = ['1.1.1.1', '8.8.8.8', '93.184.215.14', '2606:4700::1111', '2a00:1450:4001:800::200e'];
const NOT_PUBLIC = [
  ['loopback', '127.0.0.1', '127.255.255.254', '::1'],
  ['this host', '0.0.0.0', '0.1.2.3', '::'],
  ['private networks', '10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.1.1', 'fc00::1', 'fd12:3456::1'],
  ['link-local and metadata services', '169.254.169.254', '169.254.170.2', 'fe80::1', 'fd00:ec2::254'],
  ['shared address space and its metadata service', '100.64.0.1', '100.100.100.200', '100.127.255.255'],
  ['the platform address of Azure', '168.63.129.16', '::ffff:168.63.129.16'],
  ['protocol assignments and Oracle metadata', '192.0.0.1', '192.0.0.192'],
  [
    'documentation and benchmarks',
    '192.0.2.1',
    '198.51.100.1',
    '203.0.113.1',
    '198.18.0.1',
    '2001:db8::1',
    '2001:2::1',
  ],
  ['multicast, broadcast and reserved', '224.0.0.1', '255.255.255.255', '240.0.0.1', 'ff02::1'],
  ['site-local', 'fec0::1'],
  ['IPv4 within IPv6', '::ffff:127.0.0.1', '::ffff:7f00:1', '::ffff:10.0.0.1', '::127.0.0.1', '::ffff:0:127.0.0.1'],
  ['IPv4 behind a translator or tunnel', '64:ff9b::7f00:1', '64:ff9b:1::a00:1', '2002:7f00:1::', '2001::1'],
] as const;

describe('the guard of addresses', () => {
  test('lets public ones through', () => {
    expect(PUBLIC.filter((address) => !guard.permits(address))).toEqual([]);
  });

  test.each(NOT_PUBLIC.map(([name, ...addresses]) => [name, addresses] as const))('refuses %s', (_name, addresses) => {
    expect(addresses.filter((address) => guard.permits(address))).toEqual([]);
  });

  test('refuses what is no number of an address', () => {
    expect(['', 'localhost', '127.1', '0x7f000001', '1.1.1.1 ', '[::1]'].filter(guard.permits)).toEqual([]);
  });

  test('lets through exactly the ranges that are allowed', () => {
    const open = createAddressGuard(['10.1.0.0/16', 'fd00:1::/32', '168.63.129.16/32']);
    for (const address of ['10.1.2.3', '::ffff:10.1.2.3', 'fd00:1::5', '168.63.129.16'])
      expect([address, open.permits(address)]).toEqual([address, true]);
    for (const address of ['10.2.0.1', 'fd00:2::1', '127.0.0.1', '169.254.169.254'])
      expect([address, open.permits(address)]).toEqual([address, false]);
  });

  const lookUp = (addresses: readonly string[], options: { all?: boolean }) =>
    new Promise((resolve, reject) => {
      const found = addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));
      createAddressGuard([], (_hostname, callback) => callback(null, found)).lookup(
        'backend.example',
        options,
        (error, address, family) => (error === null ? resolve([address, family]) : reject(error)),
      );
    });

  test('gives only permitted addresses of a name on to be connected to', async () => {
    const mixed = ['127.0.0.1', '8.8.8.8', 'fd00::1', '2606:4700::1111'];
    expect(await lookUp(mixed, {})).toEqual(['8.8.8.8', 4]);
    expect(await lookUp(mixed, { all: true })).toEqual([
      [
        { address: '8.8.8.8', family: 4 },
        { address: '2606:4700::1111', family: 6 },
      ],
      undefined,
    ]);
    await expect(lookUp(['127.0.0.1', '169.254.169.254'], { all: true })).rejects.toThrow(AddressNotAllowedError);
    await expect(lookUp([], {})).rejects.toThrow(AddressNotAllowedError);
  });
});

describe('the sender', () => {
  const options = { clock: systemClock, allowPrivate: [], httpsOnly: false };
  const strict = createWebhookSender(options);
  const open = createWebhookSender({ ...options, allowPrivate: ['127.0.0.0/8', '::1/128'], deadlineMs: 300 });
  afterAll(() => Promise.all([strict.close(), open.close()]));
  const message = { headers: { 'content-type': 'application/json' }, body: '{}' };

  test('connects to no private address, whatever way it is written or named', async () => {
    const receiver = await startReceiver();
    const { port } = new URL(receiver.url);
    const hosts = [
      '127.0.0.1',
      'localhost',
      '127.1',
      '2130706433',
      '0x7f.1',
      '0177.0.0.1',
      '[::1]',
      '[::ffff:127.0.0.1]',
    ];
    for (const host of [...hosts, '0.0.0.0', 'LOCALHOST', '127.0.0.1.']) {
      const outcome = await strict.send(new URL(`http://${host}:${port}/`), message);
      expect([host, outcome]).toEqual([host, { kind: 'address-not-allowed' }]);
    }
    expect(receiver.received).toEqual([]);
    // A control: where loopback is allowed, the same names lead there.
    expect(await open.send(new URL(`http://localhost:${port}/`), message)).toMatchObject({ httpStatus: 204 });
  });

  test('sends over https alone where that is asked for', async () => {
    const secure = createWebhookSender({ ...options, allowPrivate: ['127.0.0.0/8'], httpsOnly: true });
    const receiver = await startReceiver();
    expect(secure.refusalOf(new URL(receiver.url))).toBe('INSECURE');
    expect(await secure.send(new URL(receiver.url), message)).toEqual({ kind: 'address-not-allowed' });
    expect(secure.refusalOf(new URL('https://backend.example/hooks'))).toBeNull();
    // It speaks no TLS.
    const overTls = new URL(receiver.url.replace('http:', 'https:'));
    expect(await secure.send(overTls, message)).toEqual({ kind: 'connection-failed' });
    expect(receiver.received).toEqual([]);
    await secure.close();
  });

  test.each(['ftp://backend.example/', 'file:///etc/passwd', 'javascript:alert(1)', 'ws://backend.example/'])(
    'sends nothing to %s',
    (url) => expect(open.refusalOf(new URL(url))).toBe('INSECURE'),
  );

  test('follows no redirect', async () => {
    const receiver = await startReceiver();
    receiver.answer = () => ({ status: 307, headers: { location: '/elsewhere' } });
    expect(await open.send(new URL(receiver.url), message)).toMatchObject({ kind: 'answered', httpStatus: 307 });
    expect(receiver.received.map(({ path }) => path)).toEqual(['/hooks']);
  });

  test('waits for an answer as long as its deadline, and no longer', async () => {
    const receiver = await startReceiver();
    receiver.answer = () => new Promise(() => undefined);
    const sinceMs = performance.now();
    expect(await open.send(new URL(receiver.url), message)).toEqual({ kind: 'timed-out' });
    expect(performance.now() - sinceMs).toBeLessThan(1_000);
  });

  test('takes the head of an answer for the answer, and reads no endless body', async () => {
    let written = 0;
    const server = createServer((_request, response) => {
      response.writeHead(200);
      const write = () => {
        while (!response.destroyed && response.write(Buffer.alloc(65_536))) written += 65_536;
      };
      response.on('drain', write);
      write();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    expect(await open.send(new URL(`http://127.0.0.1:${port}/`), message)).toMatchObject({ httpStatus: 200 });
    await new Promise((resolve) => server.close(resolve));
    expect(written).toBeLessThan(32 * 1024 * 1024);
  });

  test('tells a connection that is refused or breaks from an answer', async () => {
    const receiver = await startReceiver();
    receiver.answer = (_received, request) => {
      request.socket.destroy();
      return { status: 200 };
    };
    expect(await open.send(new URL(receiver.url), message)).toEqual({ kind: 'connection-failed' });
    await receiver.close();
    expect(await open.send(new URL(receiver.url), message)).toEqual({ kind: 'connection-failed' });
  });
});

test('Retry-After is read as seconds or as a date, and cut to the longest wait', () => {
  const now = new Date('2026-11-26T12:00:00Z');
  const read = (value: string | string[] | undefined) => readRetryAfter(value, { now, maxSeconds: 3_600 });
  expect(['0', ' 120 ', '999999', '999999999999999'].map(read)).toEqual([0, 120, 3_600, 3_600]);
  expect(read('Thu, 26 Nov 2026 12:01:00 GMT')).toBe(60);
  expect(read('Thu, 26 Nov 2026 11:00:00 GMT')).toBe(0);
  expect(
    [undefined, ['1', '2'], '', '-1', '1.5', 'soon', '2026-11-26', 'Thu, 99 Nov 2026 99:00:00 GMT'].map(read),
  ).toEqual(Array.from({ length: 8 }, () => null));
});
