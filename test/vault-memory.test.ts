import { createSecretKey, randomBytes, randomInt, randomUUID } from 'node:crypto';
import { describe, expect, it } from 'vitest';
import { Secret } from '../src/secret.js';
import { openEnvelope, prepareKey, sealEnvelope, EnvelopeError, type Place } from '../src/vault/envelope.js';
import { hkdfSha256 } from '../src/vault/hmac.js';
import { createLocalRootKeys, parseRootKeys } from '../src/vault/root-key.js';
import { countInMemory, needleOf, type Needle } from './support/memory-scan.js';

const tenantId = randomUUID();
const place: Place = { tenantId, table: 'a', column: 'b', recordId: 'c', version: 1 };
const newKey = () =>
  prepareKey({ id: randomUUID(), version: 1, owner: tenantId, key: createSecretKey(randomBytes(32)) });

/** Text whose form in UTF-8 is not the one that a JavaScript string has in memory. */
function newSecret(): { secret: Secret; needle: Needle } {
  const units = Array.from({ length: 20 }, () => 0x4e00 + randomInt(0x5000));
  const utf8 = units.flatMap((unit) => [0xe0 | (unit >> 12), 0x80 | ((unit >> 6) & 0x3f), 0x80 | (unit & 0x3f)]);
  return { secret: new Secret(String.fromCharCode(...units)), needle: needleOf(Uint8Array.from(utf8)) };
}

const messageKeyOf = (key: ReturnType<typeof newKey>, sealed: Uint8Array) =>
  needleOf(hkdfSha256(key.key, sealed.subarray(24, 40), key.derivationInfo, 32));

describe('the memory of the process', () => {
  it('is searched as a whole: what lies in it is found', () => {
    const bytes = randomBytes(32);
    const needle = needleOf(Uint8Array.from(bytes));
    expect(countInMemory(needle)).toBeGreaterThan(0);
    bytes.fill(0);
    expect(countInMemory(needle)).toBe(0);
  });

  it('holds neither the encoded secret nor the message key once an envelope is sealed', () => {
    const [key, { secret, needle }] = [newKey(), newSecret()];
    const sealed = sealEnvelope(key, place, secret);
    expect(countInMemory(needle)).toBe(0);
    expect(countInMemory(messageKeyOf(key, sealed))).toBe(0);
  });

  it('holds neither once it is opened', () => {
    const [key, { secret, needle }] = [newKey(), newSecret()];
    const sealed = sealEnvelope(key, place, secret);
    const opened = openEnvelope(key, place, sealed);
    expect(countInMemory(needle)).toBe(0);
    expect(countInMemory(messageKeyOf(key, sealed))).toBe(0);
    expect(opened.reveal()).toBe(secret.reveal());
  });

  it('holds neither once it is refused', () => {
    const [key, { secret, needle }] = [newKey(), newSecret()];
    const sealed = Buffer.from(sealEnvelope(key, place, secret));
    sealed[sealed.length - 1]! ^= 1;
    expect(() => openEnvelope(key, place, sealed)).toThrow(EnvelopeError);
    expect(countInMemory(needle)).toBe(0);
    expect(countInMemory(messageKeyOf(key, sealed))).toBe(0);
  });
  it('holds a root key, and the key derived from it, once each: where they are used', async () => {
    const bytes = randomBytes(32);
    const setting = bytes.toString('base64');
    const needle = needleOf(bytes);
    const [key] = parseRootKeys(setting, { production: true });
    expect(countInMemory(needle)).toBe(1);
    if (key === undefined) throw new Error('There is no key.');
    const rootKeys = createLocalRootKeys([key]);
    const derived = needleOf(hkdfSha256(key, Buffer.alloc(0), 'latchkey root key wrap', 32));
    expect([countInMemory(needle), countInMemory(derived)]).toEqual([1, 1]);
    expect(await rootKeys.describe()).toHaveLength(1);
  });

  it('holds no root key that was refused', () => {
    const bytes = Buffer.alloc(32, randomBytes(16));
    const setting = bytes.toString('base64');
    const needle = needleOf(bytes);
    expect(() => parseRootKeys(setting, { production: true })).toThrow('is not random');
    expect(countInMemory(needle)).toBe(0);
  });
});
