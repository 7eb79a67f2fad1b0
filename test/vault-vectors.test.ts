import { createSecretKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decrypt, encrypt } from '../src/vault/aead.js';
import { hkdfSha256, hmacSha256 } from '../src/vault/hmac.js';
import { dataWithTag, gcmByHand, nonceWithCounter } from './support/gcm-by-hand.js';

type Case = Record<string, string>;

const hex = (text: string | undefined): Buffer => Buffer.from(text ?? '', 'hex');

/** The cases of a file of `python3-cryptography-vectors`, which `scripts/vectors.mjs` brings: each begins with `first`. */
function casesOf(file: string, first: string): Case[] {
  const cases: Case[] = [];
  for (const line of readFileSync(new URL(`../.reports/vectors/${file}`, import.meta.url), 'utf8').split(/\r?\n/)) {
    const [, name, value = ''] = /^(\w+)(?: *= *(.*))?$/.exec(line) ?? [];
    if (name === undefined) continue;
    if (name === first) cases.push({});
    const last = cases.at(-1);
    if (last !== undefined) last[name] = value;
  }
  return cases;
}

const open = ({ Key, IV, AAD, CT, Tag }: Case): string | null =>
  decrypt(hex(Key), hex(IV), hex(AAD), hex(CT), hex(Tag))?.toString('hex') ?? null;

describe('AES-256-GCM', () => {
  it('gives the ciphertext and tag of all 7 875 encryptions that NIST publishes', () => {
    const cases = casesOf('ciphers/AES/GCM/gcmEncryptExtIV256.rsp', 'Count');
    expect(cases).toHaveLength(7_875);
    const differing = cases.filter(({ Key, IV, AAD, PT, CT, Tag = '' }) => {
      const { ciphertext, tag } = encrypt(hex(Key), hex(IV), hex(AAD), hex(PT));
      // NIST cuts tags to seven lengths; ours are whole.
      return ciphertext.toString('hex') !== CT || tag.toString('hex', 0, Tag.length / 2) !== Tag;
    });
    expect(differing).toEqual([]);
  });

  it('opens and refuses as NIST says all 1 125 decryptions with a whole tag, and refuses all 6 750 with a cut one', () => {
    const cases = casesOf('ciphers/AES/GCM/gcmDecrypt256.rsp', 'Count');
    const whole = cases.filter(({ Tag }) => Tag?.length === 32);
    const cut = cases.filter(({ Tag }) => Tag?.length !== 32);
    expect([whole.length, cut.length]).toEqual([1_125, 6_750]);
    expect(whole.filter(({ FAIL }) => FAIL !== undefined).length).toBeGreaterThan(500);
    expect(whole.filter((known) => open(known) !== (known['PT'] ?? null))).toEqual([]);
    for (const known of cut) expect(() => open(known)).toThrow(TypeError);
  });

  const lengths = [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 64, 100, 255, 1_000];

  it.each([1, 2, 7, 8, 11, 12, 13, 15, 16, 17, 31, 32, 64, 128])(
    'is what SP 800-38D builds of AES, for a nonce of %i bytes and every length of text and associated data',
    (nonceLength) => {
      for (const [at, length] of lengths.entries()) {
        const [key, nonce, text] = [randomBytes(32), randomBytes(nonceLength), randomBytes(length)];
        const data = randomBytes(lengths.at(-at) ?? 0);
        const { ciphertext, tag } = encrypt(key, nonce, data, text);
        expect({ ciphertext, tag }).toEqual(gcmByHand(key, nonce, data, text));
        expect(decrypt(key, nonce, data, ciphertext, tag)).toEqual(text);
      }
    },
  );

  it.each(['00'.repeat(16), 'ff'.repeat(16), `${'00'.repeat(15)}01`, `80${'00'.repeat(15)}`, '00ff'.repeat(8)])(
    'takes a tag that looks special where it is the right one, and no neighbour of it: %s',
    (special) => {
      const [key, nonce, tag] = [randomBytes(32), randomBytes(12), hex(special)];
      const data = dataWithTag(key, nonce, tag);
      expect(encrypt(key, nonce, data, Buffer.alloc(0)).tag).toEqual(tag);
      expect(decrypt(key, nonce, data, Buffer.alloc(0), tag)).toEqual(Buffer.alloc(0));
      for (let bit = 0; bit < 128; bit += 1) {
        const other = Buffer.from(tag);
        other[bit >> 3]! ^= 1 << (bit & 7);
        expect(decrypt(key, nonce, data, Buffer.alloc(0), other)).toBeNull();
      }
    },
  );

  it.each(['ffffffff', 'fffffffe', '7fffffff', '00000000'])(
    'counts on in 32 bits and carries nothing into the nonce, from %s on',
    (low) => {
      const [key, text] = [randomBytes(32), randomBytes(100)];
      const nonce = nonceWithCounter(key, hex(`${'ff'.repeat(12)}${low}`));
      const { ciphertext, tag } = encrypt(key, nonce, Buffer.alloc(0), text);
      expect({ ciphertext, tag }).toEqual(gcmByHand(key, nonce, Buffer.alloc(0), text));
      expect(decrypt(key, nonce, Buffer.alloc(0), ciphertext, tag)).toEqual(text);
    },
  );

  it('takes no empty nonce', () => {
    const [key, none] = [randomBytes(32), Buffer.alloc(0)];
    expect(() => encrypt(key, none, none, none)).toThrow(TypeError);
    expect(() => decrypt(key, none, none, none, Buffer.alloc(16))).toThrow(TypeError);
  });
});

describe('HMAC-SHA256', () => {
  it('gives the six whole tags of RFC 4231, and another one for any other bit of the message or key', () => {
    const cases = casesOf('HMAC/rfc-4231-sha256.txt', 'Len');
    expect(cases).toHaveLength(6);
    for (const { Key, Msg, MD } of cases) {
      const [key, message] = [hex(Key), hex(Msg)];
      expect(hmacSha256(createSecretKey(key), message).toString('hex')).toBe(MD);
      for (const bytes of [key, message]) {
        for (let bit = 0; bit < bytes.length * 8; bit += 1) {
          bytes[bit >> 3]! ^= 1 << (bit & 7);
          expect(hmacSha256(createSecretKey(key), message).toString('hex')).not.toBe(MD);
          bytes[bit >> 3]! ^= 1 << (bit & 7);
        }
      }
    }
  });

  it('takes a text as its UTF-8', () => {
    const key = createSecretKey(randomBytes(32));
    expect(hmacSha256(key, 'é鍵🔑')).toEqual(hmacSha256(key, Buffer.from('é鍵🔑')));
  });
});

describe('HKDF-SHA256', () => {
  const cases = [...casesOf('KDF/rfc-5869-HKDF-SHA256.txt', 'IKM'), ...casesOf('KDF/hkdf-generated.txt', 'IKM')];

  it('gives the four published outputs, the longest of 1 200 bytes', () => {
    expect(cases.map(({ L }) => L)).toEqual(['42', '82', '42', '1200']);
    for (const { IKM, salt, info, L, OKM } of cases) {
      const output = hkdfSha256(createSecretKey(hex(IKM)), hex(salt), hex(info), Number(L));
      expect(output.toString('hex')).toBe(OKM);
    }
  });

  it('tells salt, key and info apart, and begins the same whatever the length', () => {
    for (const { IKM, salt, info, L } of cases) {
      const derive = (key: Buffer, others: Buffer, more: Buffer, length = Number(L)) =>
        hkdfSha256(createSecretKey(key), others, more, length).toString('hex');
      const whole = derive(hex(IKM), hex(salt), hex(info));
      expect(derive(hex(IKM), hex(salt), hex(info), 33)).toBe(whole.slice(0, 66));
      expect(derive(hex(IKM), hex(salt), Buffer.concat([hex(info), Buffer.alloc(1)]))).not.toBe(whole);
      expect(derive(Buffer.concat([hex(IKM), Buffer.alloc(1)]), hex(salt), hex(info))).not.toBe(whole);
      // HMAC pads its key with zeros: a salt that ends with some is the same as without, up to a block.
      expect(derive(hex(IKM), Buffer.concat([hex(salt), Buffer.alloc(1, 1)]), hex(info))).not.toBe(whole);
    }
  });
});
