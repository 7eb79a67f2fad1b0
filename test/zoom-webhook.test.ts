import { createHmac } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Secret } from '../src/secret.js';
import { codeChallengeOf, createCodeVerifier } from '../src/zoom/pkce.js';
import { answerUrlValidation, parseWebhook, verifyWebhook } from '../src/zoom/webhook.js';
import { readEvent } from '../src/zoom/webhook-event.js';

const now = new Date('2026-03-01T12:00:00.000Z');
const nowSeconds = now.getTime() / 1_000;
const secret = new Secret('webhook-secret');
const former = new Secret('former-webhook-secret');

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

/** Signs as Zoom does. */
function sign(rawBody: Uint8Array, timestamp: string, key = secret.reveal()): string {
  return `v0=${createHmac('sha256', key).update(`v0:${timestamp}:`).update(rawBody).digest('hex')}`;
}

function verdict(
  rawBody: Uint8Array,
  { timestamp = String(nowSeconds), signature = sign(rawBody, timestamp), secrets = [secret] } = {},
) {
  return verifyWebhook({ rawBody, signature, timestamp, secrets, now }).result;
}

describe('webhook signature', () => {
  it.each([
    ['compact JSON', '{"event":"user.updated","payload":{}}'],
    ['pretty JSON', '{\n  "event": "user.updated",\n  "payload": {}\n}\n'],
    ['escaped slashes', '{"event":"a\\/b"}'],
    ['text beyond ASCII', '{"topic":"Grüße 🎉 会議"}'],
    ['no JSON at all', 'not json'],
    ['nothing', ''],
  ])('verifies over the bytes as sent: %s', (_name, body) => {
    expect(verdict(bytes(body))).toBe('ok');
  });

  it('verifies bytes that are no text', () => {
    expect(verdict(new Uint8Array([0xff, 0x00, 0xc3, 0x28]))).toBe('ok');
  });

  it.each([
    ['a changed byte', '{"a":1,"b":2}', '{"a":1,"b":3}'],
    ['other order', '{"a":1,"b":2}', '{"b":2,"a":1}'],
    ['other white space', '{"a":1}', '{"a": 1}'],
    ['a byte more', '{"a":1}', '{"a":1}\n'],
    ['a byte less', '{"a":1}', '{"a":1'],
    ['the same text in another normal form', 'é', 'e\u0301'],
  ])('does not verify %s', (_name, signed, received) => {
    const signature = sign(bytes(signed), String(nowSeconds));
    expect(verdict(bytes(received), { signature })).toBe('bad-signature');
  });

  it('verifies the exact bytes and no others', () => {
    fc.assert(
      fc.property(fc.uint8Array(), fc.uint8Array(), (signed, received) => {
        const signature = sign(signed, String(nowSeconds));
        const same = Buffer.compare(signed, received) === 0;
        expect(verdict(received, { signature })).toBe(same ? 'ok' : 'bad-signature');
        expect(verdict(signed, { signature })).toBe('ok');
      }),
    );
  });

  it('does not verify with any byte of the body flipped', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1 }), fc.nat(), fc.integer({ min: 1, max: 255 }), (body, at, mask) => {
        const changed = Uint8Array.from(body);
        const index = at % body.length;
        changed[index] = (changed[index] ?? 0) ^ mask;
        expect(verdict(changed, { signature: sign(body, String(nowSeconds)) })).toBe('bad-signature');
      }),
    );
  });

  it('does not verify for another timestamp, nor for one that moves bytes between timestamp and body', () => {
    const signature = sign(bytes('5:{}'), '17');
    expect(verdict(bytes('{}'), { signature, timestamp: '17:5' })).toBe('bad-signature');
    expect(verdict(bytes('{}'), { signature: sign(bytes('{}'), '1') })).toBe('bad-signature');
  });

  it('accepts two secrets while they rotate, says which one signed, and refuses the removed one', () => {
    const body = bytes('{}');
    const timestamp = String(nowSeconds);
    for (const signer of [secret, former]) {
      const signature = sign(body, timestamp, signer.reveal());
      const both = verifyWebhook({ rawBody: body, signature, timestamp, secrets: [secret, former], now });
      expect(both).toEqual({ result: 'ok', secret: signer });
      expect(both.result === 'ok' && both.secret).toBe(signer);
    }
    expect(verdict(body, { signature: sign(body, timestamp, former.reveal()) })).toBe('bad-signature');
  });

  it('is refused without a secret, and an empty one is none', () => {
    const body = bytes('{}');
    expect(verdict(body, { secrets: [] })).toBe('bad-signature');
    const signature = sign(body, String(nowSeconds), '');
    expect(verdict(body, { signature, secrets: [new Secret('')] })).toBe('bad-signature');
  });

  const good = sign(bytes('{}'), String(nowSeconds));
  it.each<[string, string | string[] | null | undefined]>([
    ['absent', undefined],
    ['null', null],
    ['empty', ''],
    ['without version', good.slice(3)],
    ['of another version', good.replace('v0', 'v1')],
    ['cut', good.slice(0, -2)],
    ['longer', `${good}00`],
    ['with a line break after it', `${good}\n`],
    ['in capitals', good.toUpperCase()],
    ['with a letter beyond hex', good.replace(/.$/, 'g')],
    ['joined from two headers', `${good}, ${good}`],
    ['repeated', [good, good]],
    ['repeated once', [good]],
  ])('is refused when the signature header is %s', (_name, signature) => {
    const timestamp = String(nowSeconds);
    expect(verifyWebhook({ rawBody: bytes('{}'), signature, timestamp, secrets: [secret], now })).toEqual({
      result: 'bad-signature',
    });
  });

  it.each<[string, string | string[] | null | undefined]>([
    ['absent', undefined],
    ['null', null],
    ['empty', ''],
    ['no number', 'now'],
    ['a fraction', `${nowSeconds}.0`],
    ['negative', `-${nowSeconds}`],
    ['exponential', '1e9'],
    ['padded', ` ${nowSeconds}`],
    ['joined from two headers', `${nowSeconds}, ${nowSeconds}`],
    ['repeated', [String(nowSeconds)]],
    ['endless', '1'.repeat(400)],
  ])('is refused when the timestamp header is %s, even signed as such', (_name, timestamp) => {
    const signature = sign(bytes('{}'), String(timestamp));
    expect(verifyWebhook({ rawBody: bytes('{}'), signature, timestamp, secrets: [secret], now })).toEqual({
      result: 'bad-signature',
    });
  });
});

describe('webhook timestamp', () => {
  it.each([
    [-301, 'stale-timestamp'],
    [-300, 'ok'],
    [0, 'ok'],
    [300, 'ok'],
    [301, 'stale-timestamp'],
  ])('%i s from now: %s', (offset, expected) => {
    expect(verdict(bytes('{}'), { timestamp: String(nowSeconds + offset) })).toBe(expected);
    expect(verdict(bytes('{}'), { timestamp: String((nowSeconds + offset) * 1_000) })).toBe(expected);
  });

  it('is judged stale only when the signature is right', () => {
    const timestamp = String(nowSeconds - 301);
    expect(verdict(bytes('{}'), { timestamp, signature: sign(bytes('[]'), timestamp) })).toBe('bad-signature');
  });

  it('may be further away when the tolerance says so', () => {
    const timestamp = String(nowSeconds - 5_400);
    const signature = sign(bytes('{}'), timestamp);
    const request = { rawBody: bytes('{}'), signature, timestamp, secrets: [secret], now };
    expect(verifyWebhook({ ...request, toleranceSeconds: 5_400 }).result).toBe('ok');
    expect(verifyWebhook({ ...request, toleranceSeconds: 5_399 }).result).toBe('stale-timestamp');
  });
});

describe('URL validation', () => {
  it('is answered with the HMAC of the token', () => {
    expect(answerUrlValidation('qgg8vlvZRS6UYooatFL8Aw', secret)).toEqual({
      plainToken: 'qgg8vlvZRS6UYooatFL8Aw',
      encryptedToken: createHmac('sha256', 'webhook-secret').update('qgg8vlvZRS6UYooatFL8Aw').digest('hex'),
    });
  });

  it('does not sign a forged event that is offered as a token', () => {
    const forged = `{"event":"app_deauthorized","payload":{"account_id":"victim"}}`;
    expect(answerUrlValidation(`v0:${nowSeconds}:${forged}`, secret)).toBeNull();
  });

  it.each([
    ['absent', undefined],
    ['a number', 12345678],
    ['an array', ['qgg8vlvZRS6UYooatFL8Aw']],
    ['short', 'abcdefg'],
    ['long', 'a'.repeat(129)],
    ['with a colon', 'v0:1:x__'],
    ['with a line break after it', 'qgg8vlvZRS6UYooatFL8Aw\n'],
    ['with a dot', 'qgg8vlvZ.S6UYooatFL8Aw'],
  ])('is not answered when the token is %s', (_name, token) => {
    expect(answerUrlValidation(token, secret)).toBeNull();
  });

  it('never answers with what would pass as a signature', () => {
    fc.assert(
      fc.property(fc.nat(), fc.string(), (timestamp, body) => {
        expect(answerUrlValidation(`v0:${timestamp}:${body}`, secret)).toBeNull();
      }),
    );
  });
});

describe('webhook bodies', () => {
  const parse = (value: unknown) => parseWebhook(bytes(JSON.stringify(value)));

  it.each<[string, Record<string, unknown>, string | null]>([
    ['at the top', { event_ts: 1740439732278, payload: {} }, '2025-02-24T23:28:52.278Z'],
    ['in the payload', { payload: { event_ts: 1740439732278 } }, '2025-02-24T23:28:52.278Z'],
    ['in the payload as text', { payload: { event_ts: '2024-09-08 15:58:40' } }, '2024-09-08T15:58:40.000Z'],
    ['at the top as text', { event_ts: '2024-09-08T15:58:40Z', payload: {} }, '2024-09-08T15:58:40.000Z'],
    ['at both places', { event_ts: 1000, payload: { event_ts: 2000 } }, '1970-01-01T00:00:01.000Z'],
    ['unreadable at the top', { event_ts: 'x', payload: { event_ts: 2000 } }, '1970-01-01T00:00:02.000Z'],
    ['nowhere', { payload: {} }, null],
    ['unreadable', { event_ts: {}, payload: { event_ts: 'yesterday' } }, null],
    ['zero', { event_ts: 0, payload: {} }, null],
    ['out of range', { event_ts: 1e300, payload: {} }, null],
    ['an impossible date', { payload: { event_ts: '2024-13-08 15:58:40' } }, null],
  ])('tell their time: %s', (_name, members, expected) => {
    const event = parse({ event: 'user.updated', ...members });
    expect(event?.event).toBe('user.updated');
    expect(event?.eventTs?.toISOString() ?? null).toBe(expected);
  });

  it.each<[string, Uint8Array]>([
    ['nothing', bytes('')],
    ['broken JSON', bytes('{"event":"x","payload":{}')],
    ['not UTF-8', Uint8Array.from([...bytes('{"event":"x'), 0xff, ...bytes('","payload":{}}')])],
    ['an array', bytes('[]')],
    ['null', bytes('null')],
    ['no event', bytes('{"payload":{}}')],
    ['an empty event', bytes('{"event":"","payload":{}}')],
    ['an event of another type', bytes('{"event":{},"payload":{}}')],
    ['no payload', bytes('{"event":"x"}')],
    ['a payload of another type', bytes('{"event":"x","payload":[]}')],
    ['JSON nested without end', bytes('['.repeat(200_000))],
  ])('that are not understood are null, not thrown: %s', (_name, body) => {
    expect(parseWebhook(body)).toBeNull();
  });

  it('never throw, whatever they are', () => {
    const NAMES = ['app_deauthorized', 'user.updated', 'user.deleted', 'meeting.created', 'meeting.updated'];
    const payload = fc.dictionary(
      fc.constantFrom('account_id', 'user_id', 'client_id', 'object', 'event_ts', 'deauthorization_time', 'scope'),
      fc.oneof(fc.jsonValue(), fc.dictionary(fc.constantFrom('id', 'pmi', 'email', 'host_id'), fc.jsonValue())),
    );
    const envelope = fc.record({ event: fc.constantFrom(...NAMES), event_ts: fc.jsonValue(), payload });
    const bodies = [fc.uint8Array(), fc.json().map(bytes), envelope.map((value) => bytes(JSON.stringify(value)))];
    fc.assert(
      fc.property(fc.oneof(...bodies), (body) => {
        const parsed = parseWebhook(body);
        if (parsed !== null) readEvent(parsed);
      }),
    );
  });

  const read = (event: string, payload: Record<string, unknown>, event_ts?: unknown) => {
    const parsed = parse({ event, event_ts, payload });
    return parsed && readEvent(parsed);
  };
  const AT = new Date('2026-02-24T23:28:52.278Z');

  const deauthorization = {
    account_id: 'a_1',
    user_id: 'u_1',
    signature: '827edc3452044f0bc86bdd5684afb7d1e6becfa1a767f24df1b287853cf73000',
    deauthorization_time: '2019-06-17T13:52:28.632Z',
    client_id: 'c_1',
  };

  it('of a deauthorization say who, which app and when', () => {
    expect(read('app_deauthorized', deauthorization, AT.getTime())).toEqual({
      name: 'app_deauthorized',
      accountId: 'a_1',
      userId: 'u_1',
      clientId: 'c_1',
      at: new Date('2019-06-17T13:52:28.632Z'),
    });
    for (const deauthorization_time of [undefined, 'x', '0000-01-01T00:00:00Z']) {
      const untimed = { ...deauthorization, deauthorization_time };
      expect(read('app_deauthorized', untimed)).toMatchObject({ at: null });
      expect(read('app_deauthorized', untimed, AT.getTime())).toMatchObject({ at: AT });
    }
  });

  it('without one of the ids are no deauthorization', () => {
    for (const id of ['account_id', 'user_id', 'client_id']) {
      for (const value of [undefined, '', 7, [], 'a b', 'a\0b', 'x'.repeat(129)])
        expect(read('app_deauthorized', { ...deauthorization, [id]: value })).toBeNull();
    }
  });

  it('of a changed user say what changed, and nothing that is not acted on', () => {
    const object = {
      id: 'u_1',
      email: ' ada@new.example ',
      display_name: 'Ada L.',
      pmi: 1234567890,
      phone_number: '1',
    };
    const payload = { account_id: 'a_1', operator: 'boss@x.example', object, old_object: { email: 'ada@old.example' } };
    expect(read('user.updated', payload, AT.getTime())).toEqual({
      name: 'user.updated',
      accountId: 'a_1',
      userId: 'u_1',
      email: 'ada@new.example',
      displayName: 'Ada L.',
      personalMeetingId: '1234567890',
      at: AT,
    });
    expect(read('user.updated', { account_id: 'a_1', object: { id: 'u_1' }, time_stamp: AT.getTime() })).toEqual({
      name: 'user.updated',
      accountId: 'a_1',
      userId: 'u_1',
      at: AT,
    });
  });

  it('of a renamed user give the whole name or none', () => {
    const nameOf = (names: Record<string, unknown>) => {
      const event = read('user.updated', { account_id: 'a_1', object: { id: 'u_1', ...names } });
      return event?.name === 'user.updated' ? event.displayName : null;
    };
    expect(nameOf({ first_name: 'Ada', last_name: 'Lovelace' })).toBe('Ada Lovelace');
    expect(nameOf({ first_name: 'Ada', last_name: 'Lovelace', display_name: 'Countess' })).toBe('Countess');
    expect(nameOf({ first_name: 'Ada' })).toBeUndefined();
    expect(nameOf({ last_name: 'Lovelace' })).toBeUndefined();
    expect(nameOf({ display_name: 'x'.repeat(321) })).toBeUndefined();
  });

  it.each(['user.deactivated', 'user.deleted'])('of a user that is gone say who and when: %s', (name) => {
    const payload = {
      account_id: 'a_1',
      operator: 'b@x.example',
      object: { id: 'u_1', email: 'a@x.example', type: 1 },
    };
    expect(read(name, payload, AT.getTime())).toEqual({ name, accountId: 'a_1', userId: 'u_1', at: AT });
    expect(read(name, { account_id: 'a_1', object: {} })).toBeNull();
    expect(read(name, { account_id: 'a_1' })).toBeNull();
    expect(read(name, { object: { id: 'u_1' } })).toBeNull();
  });

  it('of a meeting say which and whose, where that is told', () => {
    const object = {
      uuid: 'x==',
      id: 98765432101,
      host_id: 'u_1',
      topic: 'Secret',
      join_url: 'https://x',
      pmi: '123 456 7890',
    };
    const whole = { account_id: 'a_1', operator: 'b@x.example', operation: 'all', object };
    const expected = {
      name: 'meeting.created',
      accountId: 'a_1',
      meetingId: '98765432101',
      uuid: 'x==',
      hostId: 'u_1',
      personalMeetingId: '1234567890',
      isOccurrence: false,
      at: AT,
    };
    expect(read('meeting.created', whole, AT.getTime())).toEqual(expected);
    const updated = { account_id: 'a_1', scope: 'single', time_stamp: AT.getTime(), object: { id: '98765432101' } };
    expect(read('meeting.updated', updated)).toEqual({
      ...expected,
      name: 'meeting.updated',
      uuid: null,
      hostId: null,
      personalMeetingId: null,
      isOccurrence: true,
    });
    expect(read('meeting.deleted', { ...whole, operation: 'single' })).toMatchObject({ isOccurrence: true, at: null });
    for (const id of [undefined, 0, -1, 1.5, 'x', '', null, [1]])
      expect(read('meeting.deleted', { account_id: 'a_1', object: { id } })).toBeNull();
  });

  it('of any other name are no event that is acted on', () => {
    for (const name of ['app_deauthorized ', 'APP_DEAUTHORIZED', 'user.created', 'meeting.started', 'constructor'])
      expect(read(name, { ...deauthorization, object: { id: 'u_1' } })).toBeNull();
  });
});

describe('PKCE', () => {
  it('derives the challenge of RFC 7636 appendix B', () => {
    const verifier = new Secret('dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk');
    expect(codeChallengeOf(verifier)).toBe('E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM');
  });

  it('makes verifiers of 43 unreserved characters, each a new one', () => {
    const verifiers = Array.from({ length: 1_000 }, () => createCodeVerifier().reveal());
    expect(verifiers.every((verifier) => /^[A-Za-z0-9_-]{43}$/.test(verifier))).toBe(true);
    expect(new Set(verifiers).size).toBe(1_000);
  });
});
