import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { checkReturnAddress, withOutcome } from '../src/domain/return-address.js';
import { InvalidInputError } from '../src/errors.js';
import { beginAnswer } from './support/consent-trip.js';
import { startTestServer } from './support/server.js';
import { begin, consent, createTenant, open, registerApp, sandboxUser } from './support/story.js';

const ORIGIN = 'https://app.example';
const ALLOWED = [ORIGIN, 'http://localhost:3000', 'https://xn--80ak6aa92e.example:8443'];

/** Addresses that some parser or other reads as one at the allowed origin, or that no browser should be sent to. */
const REFUSED = [
  '',
  ' ',
  '/',
  '/done',
  'done',
  '?x=1',
  '//evil',
  '//app.example',
  '\\\\evil',
  '/\\evil',
  'https:evil',
  'https:/evil',
  'https:app.example',
  'https:/app.example',
  'https:///app.example',
  'https:\\\\app.example',
  'https://app.example.evil',
  'https://app.example@evil',
  'https://app.example:443@evil',
  'https://evil@app.example',
  'https://user:secret@app.example',
  'https://:@app.example.evil',
  'https://evil#@app.example',
  'https://evil?@app.example',
  'https://evil/@app.example',
  'https://evil\\@app.example',
  'https://app.example\\@evil',
  'https://app.example\\.evil',
  'https://app.example:444',
  'http://app.example',
  'http://app.example:443',
  'https://app.example.',
  'https://app.example./done',
  'https://sub.app.example',
  'https://app.exampl',
  'https://*.example',
  'javascript:alert(1)',
  'javascript://app.example/%0aalert(1)',
  'data:text/html,<script>alert(1)</script>',
  'blob:https://app.example/x',
  'filesystem:https://app.example/x',
  'file:///etc/passwd',
  'ftp://app.example',
  'ws://app.example',
  'about:blank',
  'view-source:https://app.example',
  'https://app.example%00.evil',
  'https://app.example/%00',
  'https://app.example\u0000.evil',
  'https://app.example%2eevil',
  'https://app.example%40evil',
  'https://\u0430pp.example',
  'https://app.example\u2024evil',
  'https://\u{1D41A}pp.example\u00ad.evil',
  'ht\ttps://app.example',
  'https:\t//app.example',
  'https://app\t.example',
  'https://app.example\t',
  'https://app.example/\r\nset-cookie: a=b',
  'https://app.example\n.evil',
  ' https://app.example',
  'https://app.example ',
  '\u00a0https://app.example',
  '\ufeffhttps://app.example',
  'https://app.example/..;/',
  'https://app.example/../x',
  'https://app.example/a/..',
  'https://app.example/%2e%2e/x',
  'https://app.example/%2E%2E/x',
  'https://[::1]',
  'https://127.0.0.1',
  'http://localhost',
  'http://localhost:3001',
  'https://localhost:3000',
  `https://app.example/${'a'.repeat(65_536)}`,
  `https://app.example/?${'\u00fc'.repeat(2_000)}`,
];

const TAKEN: [given: string, address: string][] = [
  ['https://app.example', 'https://app.example/'],
  ['https://APP.example', 'https://app.example/'],
  ['HTTPS://app.example/Done', 'https://app.example/Done'],
  ['https://app.example:443/done', 'https://app.example/done'],
  ['https://app.example/done?tab=zoom&x=a%20b#part', 'https://app.example/done?tab=zoom&x=a%20b#part'],
  ['https://app.example/@evil', 'https://app.example/@evil'],
  ['https://app.example/?next=https://evil', 'https://app.example/?next=https://evil'],
  // An ideographic full stop is a dot to every browser, and what is used is the address with the dot.
  ['https://app\u3002example/', 'https://app.example/'],
  ['http://localhost:3000/x', 'http://localhost:3000/x'],
  ['https://xn--80ak6aa92e.example:8443/x', 'https://xn--80ak6aa92e.example:8443/x'],
];

/** What addresses are made of, and what makes parsers disagree about them. */
const PIECES = [
  'https:',
  'http:',
  'javascript:',
  '//',
  '/',
  '\\',
  '@',
  ':',
  '#',
  '?',
  '.',
  '..',
  ';',
  '%00',
  '%2e',
  '%40',
  '\t',
  'app.example',
  'APP.EXAMPLE',
  'evil',
  'localhost',
  ':3000',
  ':443',
  '\u0430pp.example',
  '\n',
  ' ',
  '&connectCode=x',
  'https://app.example',
  'http://localhost:3000',
  '\u0000',
  '\ud800',
  '[::1]',
  '\u3002',
  '\u00ad',
];

describe('where a browser may be sent', () => {
  test.each(REFUSED.map((value) => [JSON.stringify(value).slice(0, 60), value]))('not to %s', (_name, value) => {
    expect(() => checkReturnAddress(value, ALLOWED)).toThrow(InvalidInputError);
  });

  test.each(TAKEN)('%s is taken and means %s', (given, address) => {
    expect(checkReturnAddress(given, ALLOWED)).toBe(address);
  });

  test('where a tenant has no origins, nowhere', () => {
    for (const [given] of TAKEN) expect(() => checkReturnAddress(given, [])).toThrow(InvalidInputError);
  });

  test('whatever is given, an accepted address is at an allowed origin, before and after its outcome is added', () => {
    const pieces = fc.constantFrom(...PIECES);
    const anything = fc.oneof(
      { weight: 5, arbitrary: fc.array(pieces, { maxLength: 9 }).map((list) => list.join('')) },
      { weight: 3, arbitrary: fc.array(pieces, { maxLength: 6 }).map((list) => `${ORIGIN}${list.join('')}`) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary', maxLength: 60 }).map((text) => `${ORIGIN}/${text}`) },
      { weight: 1, arbitrary: fc.webUrl({ withFragments: true, withQueryParameters: true }) },
      { weight: 1, arbitrary: fc.string({ unit: 'binary' }) },
    );
    let accepted = 0;
    fc.assert(
      fc.property(anything, (value) => {
        let address: string;
        try {
          address = checkReturnAddress(value, ALLOWED);
        } catch (error) {
          expect(error).toBeInstanceOf(InvalidInputError);
          return;
        }
        accepted += 1;
        for (const result of [
          address,
          withOutcome(address, 'connectCode', 'c'),
          withOutcome(address, 'connectError', 'E'),
        ]) {
          const url = new URL(result);
          expect(ALLOWED).toContain(url.origin);
          expect(result.startsWith(`${url.origin}/`)).toBe(true);
          expect([url.username, url.password]).toEqual(['', '']);
          // Printable ASCII: it can stand in a header as it is.
          expect(result).toMatch(/^[\x21-\x7e]+$/);
        }
      }),
      { numRuns: 5_000 },
    );
    // The property means something only if much gets through.
    expect(accepted).toBeGreaterThan(200);
  });
});

describe('the outcome at the return address', () => {
  test('replaces what was there under its names, keeps the rest and stays before the fragment', () => {
    const address = `${ORIGIN}/done?tab=zoom&connectError=old&connectCode=old&connectCode=older#part`;
    expect(withOutcome(address, 'connectCode', 'new')).toBe(`${ORIGIN}/done?tab=zoom&connectCode=new#part`);
    expect(withOutcome(`${ORIGIN}/`, 'connectError', 'DENIED_BY_USER')).toBe(`${ORIGIN}/?connectError=DENIED_BY_USER`);
  });
});

describe('over the API', async () => {
  const server = await startTestServer();

  test('an address that is refused names the argument, and no trip begins', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const adminApp = await registerApp(server, 'ADMIN_MANAGED');
    const tenantId = await createTenant(server, ALLOWED);
    for (const returnTo of REFUSED) {
      const input = { tenantId, userId: 'user_1', appId: app.id, returnTo };
      const answer = await beginAnswer(server, 'beginAuthorization', input);
      expect({ returnTo, ...answer }).toMatchObject({
        returnTo,
        __typename: 'InvalidInputError',
        path: ['input', 'returnTo'],
      });
    }
    const input = { tenantId, userId: 'user_1', appId: adminApp.id, returnTo: 'https://app.example.evil' };
    expect(await beginAnswer(server, 'beginInstallation', input)).toMatchObject({ path: ['input', 'returnTo'] });
    expect(await server.db.prisma.authorizationSession.count({ where: { tenant: { externalId: tenantId } } })).toBe(0);
  });

  test("another tenant's origin does not count", async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const [tenantId] = [await createTenant(server, [ORIGIN]), await createTenant(server, ['https://other.example'])];
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: 'https://other.example/' };
    expect(await beginAnswer(server, 'beginAuthorization', input)).toMatchObject({ path: ['input', 'returnTo'] });
  });

  test('the browser is sent by 303 to the address as it was understood', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server, [ORIGIN]);
    const input = { tenantId, userId: 'user_1', appId: app.id, returnTo: 'https://APP.example:443/Done?a=1#b' };
    const trip = await begin(server, 'beginAuthorization', input);
    const response = await open(trip.jar, await consent(trip, sandboxUser(server, 'Member').id));
    expect(response.status).toBe(303);
    expect(response.headers.get('location')).toMatch(
      /^https:\/\/app\.example\/Done\?a=1&connectCode=[A-Za-z0-9_-]{43}#b$/,
    );
  });
});
