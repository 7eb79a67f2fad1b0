import { createCipheriv, createDecipheriv, createSecretKey, hkdfSync, randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Secret } from '../src/secret.js';
import { decrypt, encrypt } from '../src/vault/aead.js';
import {
  EnvelopeError,
  inspectEnvelope,
  openEnvelope,
  ownerOf,
  prepareKey,
  sealEnvelope,
  type EnvelopeKey,
  type EnvelopeRefusal,
  type Place,
} from '../src/vault/envelope.js';
import { encodeFields, type Field } from '../src/vault/fields.js';
import { hkdfSha256 } from '../src/vault/hmac.js';

const HEADER_BYTES = 84;
const TAG_BYTES = 16;

const tenantId = randomUUID();
const place: Place = {
  tenantId,
  table: 'credential',
  column: 'sealed_access_token',
  recordId: randomUUID(),
  version: 7,
};
const key = newKey(tenantId);
const secret = new Secret('SECRET-access-token');

function newKey(owner: string | null, version = 1): EnvelopeKey {
  return prepareKey({ id: randomUUID(), version, owner: ownerOf(owner), key: createSecretKey(randomBytes(32)) });
}

function hex(text: string): Buffer {
  return Buffer.from(text.replace(/\s/g, ''), 'hex');
}

/** How an envelope was refused; fails the test where it opened or failed in another way. */
function refusal(open: () => Secret): EnvelopeRefusal {
  try {
    open();
  } catch (error) {
    expect(error).toBeInstanceOf(EnvelopeError);
    expect((error as EnvelopeError).message).toBe('The envelope does not open');
    return (error as EnvelopeError).refusal;
  }
  throw new Error('the envelope opened');
}

function changed(sealed: Uint8Array, change: (copy: Buffer) => void): Buffer {
  const copy = Buffer.from(sealed);
  change(copy);
  return copy;
}

describe('the building blocks', () => {
  const key256 = hex('feffe9928665731c6d6a8f9467308308 feffe9928665731c6d6a8f9467308308');
  const text = hex(`d9313225f88406e5a55909c5aff5269a 86a7a9531534f7da2e4c303d8a318a72
                    1c3c0c95956809532fcf0e2449a6b525 b16aedf5aa0de657ba637b391aafd255`);
  const sealedText = hex(`522dc1f099567d07f47f37a32a84427d 643a8cdcbfe5c0c97598a2bd2555d1aa
                          8cb08e48590dbb3da7b08b1056828838 c5f61e6393ba7a0abcc9f662898015ad`);
  // McGrew and Viega, The Galois/Counter Mode of Operation, appendix B, test cases 13 to 16.
  const gcm = [
    {
      key: hex('00'.repeat(32)),
      nonce: hex('00'.repeat(12)),
      plaintext: '',
      data: '',
      ciphertext: '',
      tag: '530f8afbc74536b9a963b4f1c4cb738b',
    },
    {
      key: hex('00'.repeat(32)),
      nonce: hex('00'.repeat(12)),
      plaintext: '00'.repeat(16),
      data: '',
      ciphertext: 'cea7403d4d606b6e074ec5d3baf39d18',
      tag: 'd0d1c8a799996bf0265b98b5d48ab919',
    },
    {
      key: key256,
      nonce: hex('cafebabefacedbaddecaf888'),
      plaintext: text.toString('hex'),
      data: '',
      ciphertext: sealedText.toString('hex'),
      tag: 'b094dac5d93471bdec1a502270e3cc6c',
    },
    {
      key: key256,
      nonce: hex('cafebabefacedbaddecaf888'),
      plaintext: text.subarray(0, 60).toString('hex'),
      data: 'feedfacedeadbeeffeedfacedeadbeefabaddad2',
      ciphertext: sealedText.subarray(0, 60).toString('hex'),
      tag: '76fc6ece0f4e1768cddf8853bb2d551b',
    },
  ];

  it.each(gcm)('AES-256-GCM gives the published tag $tag and opens it again', (vector) => {
    const { ciphertext, tag } = encrypt(vector.key, vector.nonce, hex(vector.data), hex(vector.plaintext));

    expect(ciphertext.toString('hex')).toBe(vector.ciphertext);
    expect(tag.toString('hex')).toBe(vector.tag);
    const opened = decrypt(createSecretKey(vector.key), vector.nonce, hex(vector.data), ciphertext, tag);
    expect(opened?.toString('hex')).toBe(vector.plaintext);
  });

  // RFC 5869, appendix A.1 to A.3.
  const hkdf = [
    {
      input: '0b'.repeat(22),
      salt: '000102030405060708090a0b0c',
      info: 'f0f1f2f3f4f5f6f7f8f9',
      output: '3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865',
    },
    {
      input: Buffer.from(Array.from({ length: 80 }, (_, at) => at)).toString('hex'),
      salt: Buffer.from(Array.from({ length: 80 }, (_, at) => 0x60 + at)).toString('hex'),
      info: Buffer.from(Array.from({ length: 80 }, (_, at) => 0xb0 + at)).toString('hex'),
      output: `b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c
               59045a99cac7827271cb41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87`,
    },
    {
      input: '0b'.repeat(22),
      salt: '',
      info: '',
      output: '8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8',
    },
  ];

  it.each(hkdf)('HKDF-SHA256 gives the published output for the salt "$salt"', ({ input, salt, info, output }) => {
    const expected = hex(output);
    const derived = hkdfSha256(createSecretKey(hex(input)), hex(salt), hex(info), expected.length);

    expect(derived.toString('hex')).toBe(expected.toString('hex'));
  });

  it('a tag cut to 12, 8 or 4 bytes is refused, though Node alone would take it', () => {
    const [nonce, data, messageKey] = [randomBytes(12), randomBytes(20), randomBytes(32)];
    const { ciphertext, tag } = encrypt(messageKey, nonce, data, Buffer.from('SECRET-text'));
    for (const length of [12, 8, 4]) {
      const naive = createDecipheriv('aes-256-gcm', messageKey, nonce);
      naive.setAAD(data);
      naive.setAuthTag(tag.subarray(0, length));
      expect(naive.update(ciphertext, undefined, 'utf8') + naive.final('utf8')).toBe('SECRET-text');

      expect(() => decrypt(messageKey, nonce, data, ciphertext, tag.subarray(0, length))).toThrow(TypeError);
    }
  });

  it('no byte of the plaintext comes back when the tag does not fit', () => {
    const [nonce, data, messageKey] = [randomBytes(12), randomBytes(20), randomBytes(32)];
    const { ciphertext, tag } = encrypt(messageKey, nonce, data, Buffer.from('SECRET-text'));

    expect(
      decrypt(
        messageKey,
        nonce,
        data,
        ciphertext,
        changed(tag, (copy) => (copy[15]! ^= 1)),
      ),
    ).toBeNull();
  });
});

describe('fields', () => {
  const field = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 12 }),
    fc.string({ unit: fc.constantFrom('a', '|', '\0', '\x01', '\x02', 'é', '鍵', '🔑'), maxLength: 8 }),
    fc.integer({ min: 0, max: 0xffff_ffff }),
  );
  const list = fc.array(field, { maxLength: 5 });
  const isSame = (a: Field[], b: Field[]) => a.length === b.length && a.every((value, at) => value === b[at]);

  it('two lists give the same bytes only if they are the same list', () => {
    fc.assert(
      fc.property(list, list, (a, b) => encodeFields(a).equals(encodeFields(b)) === isSame(a, b)),
      { numRuns: 2_000 },
    );
  });

  it('moving text across the border of two fields changes the bytes', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), fc.nat(), fc.nat(), (whole, at, other) => {
        const letters = [...whole];
        const cut = (index: number): [string, string] => [
          letters.slice(0, index).join(''),
          letters.slice(index).join(''),
        ];
        const [one, two] = [cut(at % (letters.length + 1)), cut(other % (letters.length + 1))];
        return encodeFields(one).equals(encodeFields(two)) === isSame(one, two);
      }),
    );
  });

  it('the bytes can be read back into the fields, and nothing is left over', () => {
    const decode = (bytes: Buffer): Field[] => {
      const fields: Field[] = [];
      for (let at = 0; at < bytes.length;) {
        const end = at + 5 + bytes.readUInt32BE(at + 1);
        fields.push(bytes[at] === 2 ? bytes.readUInt32BE(at + 5) : bytes.toString('utf8', at + 5, end));
        at = end;
      }
      return fields;
    };
    fc.assert(fc.property(list, (fields) => isSame(decode(encodeFields(fields)), fields)));
  });

  it.each(['\ud800', 'a\udc00', '\udc00\ud800', 'é\ud83d'])('text that UTF-8 cannot carry is refused (%j)', (text) => {
    expect(() => encodeFields([text])).toThrow(new RangeError('A field is not well-formed Unicode'));
  });

  it.each([-1, 1.5, 4_294_967_296, Number.NaN, Number.POSITIVE_INFINITY])('%d is refused as a number', (value) => {
    // Node's own words where it is a whole number.
    expect(() => encodeFields([value])).toThrow(
      Number.isInteger(value) ? RangeError : new RangeError('A field is not an integer'),
    );
  });
});

describe('an envelope', () => {
  it('opens to exactly what was sealed, whatever the secret and its place', () => {
    const text = fc.string({ unit: 'binary', maxLength: 60 });
    const version = fc.integer({ min: 0, max: 0xffff_ffff });
    fc.assert(
      fc.property(
        text,
        fc.record({ tenantId: fc.option(fc.uuid()), table: text, column: text, recordId: text, version }),
        version,
        (value, where, keyVersion) => {
          const own = newKey(where.tenantId, keyVersion);
          const sealed = sealEnvelope(own, where, new Secret(value));
          expect(inspectEnvelope(sealed)).toEqual({ keyId: own.id, keyVersion });
          expect(openEnvelope(own, where, sealed).reveal()).toBe(value);
        },
      ),
    );
  });

  it('opens from any view of its bytes', () => {
    const sealed = sealEnvelope(key, place, secret);
    const padded = new Uint8Array(sealed.length + 20);
    padded.set(sealed, 9);

    expect(openEnvelope(key, place, padded.subarray(9, 9 + sealed.length)).reveal()).toBe(secret.reveal());
  });

  it('has the documented layout and does not show the secret', () => {
    const sealed = Buffer.from(sealEnvelope(key, place, secret));

    expect(sealed.toString('latin1', 0, 2)).toBe('ZV');
    expect([...sealed.subarray(2, 4)]).toEqual([1, 1]);
    expect(sealed.toString('hex', 4, 20)).toBe(key.id.replaceAll('-', ''));
    expect(sealed.readUInt32BE(20)).toBe(key.version);
    expect(sealed).toHaveLength(HEADER_BYTES + secret.reveal().length + TAG_BYTES);
    expect(sealed.includes(secret.reveal().slice(0, 6))).toBe(false);
  });

  it('does not open when any one bit of it is flipped, and always says the same', () => {
    const sealed = sealEnvelope(key, place, secret);
    const seen = new Map<number, EnvelopeRefusal>();
    for (let bit = 0; bit < sealed.length * 8; bit += 1) {
      const flipped = changed(sealed, (copy) => (copy[bit >> 3]! ^= 1 << (bit & 7)));
      seen.set(
        bit >> 3,
        refusal(() => openEnvelope(key, place, flipped)),
      );
    }
    const at = (from: number, to: number) =>
      new Set([...seen].flatMap(([byte, kind]) => (byte >= from && byte < to ? [kind] : [])));
    expect(seen.size).toBe(sealed.length);
    expect(at(0, 3)).toEqual(new Set(['unknown-format']));
    expect(at(3, 4)).toEqual(new Set(['unknown-suite']));
    expect(at(4, 24)).toEqual(new Set(['not-authentic']));
    expect(at(24, 40)).toEqual(new Set(['wrong-key']));
    expect(at(40, 52)).toEqual(new Set(['not-authentic']));
    expect(at(52, 84)).toEqual(new Set(['wrong-key']));
    expect(at(84, sealed.length)).toEqual(new Set(['not-authentic']));
  });

  it('does not open when any one byte of it is replaced', () => {
    const sealed = sealEnvelope(key, place, secret);
    fc.assert(
      fc.property(fc.nat(sealed.length - 1), fc.integer({ min: 1, max: 255 }), (at, mask) => {
        refusal(() =>
          openEnvelope(
            key,
            place,
            changed(sealed, (copy) => (copy[at]! ^= mask)),
          ),
        );
      }),
      { numRuns: 1_000 },
    );
  });

  it('does not open when it is cut anywhere, or longer by a byte', () => {
    const sealed = sealEnvelope(key, place, secret);
    for (let length = 0; length < sealed.length; length += 1) {
      const kind = refusal(() => openEnvelope(key, place, sealed.subarray(0, length)));
      expect(kind).toBe(length < HEADER_BYTES + TAG_BYTES ? 'too-short' : 'not-authentic');
    }
    expect(refusal(() => openEnvelope(key, place, Buffer.concat([sealed, Buffer.alloc(1)])))).toBe('not-authentic');
  });

  const elsewhere: [string, Partial<Place>][] = [
    ['another tenant', { tenantId: randomUUID() }],
    ['the system', { tenantId: null }],
    ['another table', { table: 'provider_revocation' }],
    ['another column', { column: 'sealed_refresh_token' }],
    ['another row', { recordId: randomUUID() }],
    ['a newer version of the row', { version: 8 }],
    ['an older version of the row', { version: 6 }],
    ['a table and column whose names join to the same text', { table: 'credentials', column: 'ealed_access_token' }],
  ];

  it.each(elsewhere)('does not open in %s', (_name, difference) => {
    const sealed = sealEnvelope(key, place, secret);

    expect(refusal(() => openEnvelope(key, { ...place, ...difference }, sealed))).toBe('not-authentic');
  });

  it('does not open when any bit of its row id, table, column or version differs', () => {
    const sealed = sealEnvelope(key, place, secret);
    for (const part of ['tenantId', 'table', 'column', 'recordId'] as const) {
      const text = Buffer.from(place[part] ?? '');
      // The eighth bit would leave ASCII and with it well-formed text.
      for (let bit = 0; bit < text.length * 8; bit += 1) {
        if ((bit & 7) === 7) continue;
        const other = changed(text, (copy) => (copy[bit >> 3]! ^= 1 << (bit & 7))).toString();
        expect(refusal(() => openEnvelope(key, { ...place, [part]: other }, sealed))).toBe('not-authentic');
      }
    }
    for (let bit = 0; bit < 32; bit += 1) {
      const version = (place.version ^ (1 << bit)) >>> 0;
      expect(refusal(() => openEnvelope(key, { ...place, version }, sealed))).toBe('not-authentic');
    }
  });

  it("does not open with another tenant's key, nor with the same bytes known as another key", () => {
    const sealed = sealEnvelope(key, place, secret);
    const other = newKey(tenantId);

    expect(refusal(() => openEnvelope(other, place, sealed))).toBe('wrong-key');
    expect(refusal(() => openEnvelope(prepareKey({ ...key, id: other.id }), place, sealed))).toBe('wrong-key');
    expect(refusal(() => openEnvelope(prepareKey({ ...key, owner: randomUUID() }), place, sealed))).toBe('wrong-key');
  });

  it('made under one key and given the commitment of another opens under neither', () => {
    const other = newKey(tenantId);
    const forged = Buffer.from(sealEnvelope(other, place, secret));
    const genuine = hkdfSync('sha256', key.key, forged.subarray(24, 40), key.derivationInfo, 64);
    forged.set(new Uint8Array(genuine, 32), 52);

    expect(refusal(() => openEnvelope(other, place, forged))).toBe('wrong-key');
    expect(refusal(() => openEnvelope(key, place, forged))).toBe('not-authentic');
  });

  it.each([0, 2, 255])('of unknown format or suite %d is refused before any key is used', (unknown) => {
    const sealed = sealEnvelope(key, place, secret);
    const format = changed(sealed, (copy) => (copy[2] = unknown));
    const suite = changed(sealed, (copy) => (copy[3] = unknown));

    expect(refusal(() => openEnvelope(key, place, format))).toBe('unknown-format');
    expect(refusal(() => openEnvelope(key, place, suite))).toBe('unknown-suite');
    expect(() => inspectEnvelope(format)).toThrow(EnvelopeError);
    expect(() => inspectEnvelope(suite)).toThrow(EnvelopeError);
  });

  it('never repeats a salt or a nonce', { timeout: 60_000 }, () => {
    const salts = new Set<string>();
    const nonces = new Set<string>();
    const count = 100_000;
    for (let made = 0; made < count; made += 1) {
      const sealed = Buffer.from(sealEnvelope(key, place, secret));
      salts.add(sealed.toString('latin1', 24, 40));
      nonces.add(sealed.toString('latin1', 40, 52));
    }
    expect([salts.size, nonces.size]).toEqual([count, count]);
  });

  it('is not made of a secret that would not come back the same', () => {
    expect(() => sealEnvelope(key, place, new Secret('SECRET-\ud800'))).toThrow(
      new RangeError('The secret is not well-formed Unicode'),
    );
  });

  it('is not made for a tenant that is named like the system key', () => {
    expect(() => ownerOf('system')).toThrow(new RangeError('No tenant may have the id of the system key'));
    expect(ownerOf(null)).toBe('system');
  });
});

interface Golden {
  values: {
    name: string;
    key: { id: string; version: number; owner: string; hex: string };
    place: Place;
    secret: string;
    sealedHex: string;
  }[];
}

describe('format 1', () => {
  const golden = JSON.parse(readFileSync(new URL('fixtures/vault-format-1.json', import.meta.url), 'utf8')) as Golden;

  it.each(golden.values)('opens what was sealed when it was new: $name', ({ key: known, place: where, ...value }) => {
    const sealed = hex(value.sealedHex);
    const own = prepareKey({ ...known, key: createSecretKey(hex(known.hex)) });

    expect(inspectEnvelope(sealed)).toEqual({ keyId: known.id, keyVersion: known.version });
    expect(openEnvelope(own, where, sealed).reveal()).toBe(value.secret);
  });

  it.each(golden.values)(
    'is what its description says, step by step: $name',
    ({ key: known, place: where, ...value }) => {
      const sealed = hex(value.sealedHex);
      const info = encodeFields(['latchkey vault message key', 1, known.owner, known.id]);
      const derived = Buffer.from(hkdfSync('sha256', hex(known.hex), sealed.subarray(24, 40), info, 64));
      const cipher = createCipheriv('aes-256-gcm', derived.subarray(0, 32), sealed.subarray(40, 52));
      const { table, recordId, column, version } = where;
      const bound = encodeFields([
        'latchkey vault secret',
        where.tenantId ?? 'system',
        table,
        recordId,
        column,
        version,
      ]);
      cipher.setAAD(Buffer.concat([sealed.subarray(0, 84), bound]));
      const ciphertext = Buffer.concat([cipher.update(value.secret, 'utf8'), cipher.final()]);

      expect(derived.subarray(32).equals(sealed.subarray(52, 84))).toBe(true);
      expect(Buffer.concat([ciphertext, cipher.getAuthTag()]).equals(sealed.subarray(84))).toBe(true);
    },
  );
});
