import { createHmac, createSecretKey, randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { decrypt, encrypt } from '../src/vault/aead.js';
import { hkdfSha256 } from '../src/vault/hmac.js';

interface Case {
  key: string;
  nonce: string;
  data: string;
  plaintext: string | null;
  ciphertext: string;
  tag: string;
}

const nist = JSON.parse(readFileSync(new URL('fixtures/nist-aes-256-gcm.json', import.meta.url), 'utf8')) as {
  encrypt: (Case & { plaintext: string })[];
  decrypt: Case[];
};
const hex = (text: string): Buffer => Buffer.from(text, 'hex');

const open = ({ key, nonce, data, ciphertext, tag }: Case): string | null =>
  decrypt(createSecretKey(hex(key)), hex(nonce), hex(data), hex(ciphertext), hex(tag))?.toString('hex') ?? null;

describe('AES-256-GCM', () => {
  it('gives the ciphertext and tag that NIST publishes, for every length of text and associated data', () => {
    expect(nist.encrypt.length).toBeGreaterThan(40);
    for (const known of nist.encrypt) {
      const { ciphertext, tag } = encrypt(hex(known.key), hex(known.nonce), hex(known.data), hex(known.plaintext));
      expect([ciphertext.toString('hex'), tag.toString('hex')]).toEqual([known.ciphertext, known.tag]);
    }
  });

  it('opens what NIST says must open, and refuses what must be refused', () => {
    const refused = nist.decrypt.filter(({ plaintext }) => plaintext === null);
    expect(refused.length).toBeGreaterThan(20);
    for (const known of nist.decrypt) expect(open(known)).toBe(known.plaintext);
  });

  it('refuses every changed tag: any one bit, any two, all bits, all zeros and all ones', () => {
    const [known] = nist.encrypt.slice(-1);
    if (known === undefined) throw new Error('There is no case.');
    const right = hex(known.tag);
    const tags = [Buffer.alloc(16), Buffer.alloc(16, 0xff), right.map((byte) => byte ^ 0xff), right.toReversed()];
    for (let bit = 0; bit < 128; bit += 1) {
      const flipped = Buffer.from(right);
      flipped[bit >> 3]! ^= 1 << (bit & 7);
      tags.push(flipped);
      const twice = Buffer.from(flipped);
      twice[(bit >> 3) ^ 8]! ^= 0x80;
      tags.push(twice);
    }
    for (const tag of tags) expect(open({ ...known, tag: Buffer.from(tag).toString('hex') })).toBeNull();
    expect(open(known)).toBe(known.plaintext);
  });

  it('binds text and associated data apart: nothing moves from one to the other', () => {
    const known = { key: '11'.repeat(32), nonce: '22'.repeat(12), data: 'aabb', plaintext: 'ccdd' };
    const { ciphertext, tag } = encrypt(hex(known.key), hex(known.nonce), hex(known.data), hex(known.plaintext));
    const sealed = { ...known, ciphertext: ciphertext.toString('hex'), tag: tag.toString('hex') };
    expect(open(sealed)).toBe('ccdd');
    for (const data of ['', 'aa', 'aabb00', 'bbaa', 'aabbccdd']) expect(open({ ...sealed, data })).toBeNull();
    for (const changed of ['', sealed.ciphertext.slice(2), `${sealed.ciphertext}00`]) {
      expect(open({ ...sealed, ciphertext: changed })).toBeNull();
    }
    expect(open({ ...sealed, data: `aabb${sealed.ciphertext}`, ciphertext: '' })).toBeNull();
  });

  it.each([0, 1, 15, 16, 17, 31, 32, 33, 255, 256, 257, 4_095, 65_537])(
    'gives back a text of %i bytes, with as many of associated data, to the byte',
    (length) => {
      const [key, nonce, text, data] = [randomBytes(32), randomBytes(12), randomBytes(length), randomBytes(length)];
      const { ciphertext, tag } = encrypt(key, nonce, data, text);
      expect(ciphertext.length).toBe(length);
      expect(decrypt(key, nonce, data, ciphertext, tag)?.equals(text)).toBe(true);
      if (length > 0) expect(ciphertext.equals(text)).toBe(false);
    },
  );

  it.each([0, 16, 24, 31, 33, 64])('takes no key of %i bytes', (length) => {
    expect(() => encrypt(randomBytes(length), randomBytes(12), Buffer.alloc(0), Buffer.alloc(1))).toThrow();
  });

  it.each([0, 4, 8, 12, 13, 14, 15, 17, 32])('takes no tag of %i bytes', (length) => {
    const [known] = nist.encrypt;
    if (known === undefined) throw new Error('There is no case.');
    const tag = Buffer.concat([hex(known.tag), Buffer.alloc(16)]).subarray(0, length);
    expect(() => open({ ...known, tag: tag.toString('hex') })).toThrow(TypeError);
  });
});

/** RFC 5869, section 2, from HMAC alone. */
function hkdfByHand(key: Buffer, salt: Buffer, info: Buffer, length: number): Buffer {
  const extracted = createHmac('sha256', salt.length === 0 ? Buffer.alloc(32) : salt)
    .update(key)
    .digest();
  let block = Buffer.alloc(0);
  const blocks: Buffer[] = [];
  for (let at = 1; blocks.length * 32 < length; at += 1) {
    block = createHmac('sha256', extracted)
      .update(Buffer.concat([block, info, Buffer.from([at])]))
      .digest();
    blocks.push(block);
  }
  return Buffer.concat(blocks).subarray(0, length);
}

describe('HKDF-SHA256', () => {
  it('is what RFC 5869 builds of HMAC, for the lengths that envelopes use and those around them', () => {
    for (const length of [1, 31, 32, 33, 63, 64, 65, 255]) {
      for (const saltLength of [0, 1, 16, 32, 64, 65]) {
        const [key, salt, info] = [randomBytes(32), randomBytes(saltLength), randomBytes(length)];
        const derived = hkdfSha256(createSecretKey(key), salt, info, length);
        expect(derived.equals(hkdfByHand(key, salt, info, length))).toBe(true);
      }
    }
  });

  it('gives no more than 255 blocks, and not a byte too few', () => {
    const [key, salt, info] = [randomBytes(32), randomBytes(16), randomBytes(9)];
    const longest = hkdfSha256(createSecretKey(key), salt, info, 255 * 32);
    expect(longest.equals(hkdfByHand(key, salt, info, 255 * 32))).toBe(true);
    expect(() => hkdfSha256(createSecretKey(key), salt, info, 255 * 32 + 1)).toThrow();
  });
});
