import { createCipheriv } from 'node:crypto';

/** The polynomial of GHASH, whose bits SP 800-38D numbers from the left. */
const REDUCTION = 0xe1n << 120n;
const BLOCK_BYTES = 16;

const numberOf = (block: Uint8Array): bigint => BigInt(`0x${Buffer.from(block).toString('hex')}`);
const blockOf = (value: bigint): Buffer => Buffer.from(value.toString(16).padStart(32, '0'), 'hex');

/** SP 800-38D, algorithm 1. */
function multiply(x: bigint, y: bigint): bigint {
  let product = 0n;
  for (let bit = 127n, power = y; bit >= 0n; bit -= 1n) {
    if ((x >> bit) & 1n) product ^= power;
    power = power & 1n ? (power >> 1n) ^ REDUCTION : power >> 1n;
  }
  return product;
}

/** What times `x` gives one: x to the power of 2^128 - 2. */
function inverse(x: bigint): bigint {
  let [result, power] = [1n << 127n, x];
  for (let bit = 1; bit < 128; bit += 1) {
    power = multiply(power, power);
    result = multiply(result, power);
  }
  return result;
}

function padded(bytes: Uint8Array): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((BLOCK_BYTES - (bytes.length % BLOCK_BYTES)) % BLOCK_BYTES)]);
}

function lengths(data: Uint8Array, text: Uint8Array): Buffer {
  return blockOf((BigInt(data.length * 8) << 64n) | BigInt(text.length * 8));
}

/** AES-256 of one block. */
function encryptBlock(key: Uint8Array, block: Uint8Array): Buffer {
  return createCipheriv('aes-256-ecb', key, null).setAutoPadding(false).update(block);
}

function ghash(h: bigint, bytes: Buffer): bigint {
  let hash = 0n;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    hash = multiply(hash ^ numberOf(bytes.subarray(at, at + BLOCK_BYTES)), h);
  }
  return hash;
}

const subkey = (key: Uint8Array) => numberOf(encryptBlock(key, Buffer.alloc(BLOCK_BYTES)));

function firstCounter(h: bigint, nonce: Uint8Array): bigint {
  if (nonce.length === 12) return (numberOf(nonce) << 32n) | 1n;
  return ghash(h, Buffer.concat([padded(nonce), lengths(Buffer.alloc(0), nonce)]));
}

/** SP 800-38D, algorithm 4, built of AES and nothing else. */
export function gcmByHand(
  key: Uint8Array,
  nonce: Uint8Array,
  data: Uint8Array,
  plaintext: Uint8Array,
): { ciphertext: Buffer; tag: Buffer } {
  const h = subkey(key);
  const first = firstCounter(h, nonce);
  const ciphertext = Buffer.from(plaintext);
  for (let at = 0; at < plaintext.length; at += BLOCK_BYTES) {
    const counter = ((first >> 32n) << 32n) | BigInt.asUintN(32, first + BigInt(at / BLOCK_BYTES + 1));
    const stream = encryptBlock(key, blockOf(counter));
    ciphertext
      .subarray(at, at + BLOCK_BYTES)
      .forEach((byte, offset) => (ciphertext[at + offset] = byte ^ stream[offset]!));
  }
  const hash = ghash(h, Buffer.concat([padded(data), padded(ciphertext), lengths(data, ciphertext)]));
  return { ciphertext, tag: blockOf(hash ^ numberOf(encryptBlock(key, blockOf(first)))) };
}

/** 16 bytes of associated data with which the empty text has just this tag. */
export function dataWithTag(key: Uint8Array, nonce: Uint8Array, tag: Uint8Array): Buffer {
  const h = subkey(key);
  const back = inverse(h);
  const hash = numberOf(tag) ^ numberOf(encryptBlock(key, blockOf(firstCounter(h, nonce))));
  return blockOf(multiply(multiply(hash, back) ^ numberOf(lengths(Buffer.alloc(BLOCK_BYTES), Buffer.alloc(0))), back));
}

/** 16 bytes of nonce with which the counter begins at this block. */
export function nonceWithCounter(key: Uint8Array, counter: Uint8Array): Buffer {
  const back = inverse(subkey(key));
  const length = numberOf(lengths(Buffer.alloc(0), Buffer.alloc(BLOCK_BYTES)));
  return blockOf(multiply(multiply(numberOf(counter), back) ^ length, back));
}
