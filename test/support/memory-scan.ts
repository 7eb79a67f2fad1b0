import { closeSync, openSync, readFileSync, readSync } from 'node:fs';

const CHUNK_BYTES = 4 * 1024 * 1024;
const MASK = 0x5a;
/** What is looked up as it is; too little to be the secret. */
const PREFIX_BYTES = 4;

/** Bytes to look for, kept so that they do not stand in memory because of it. */
export interface Needle {
  readonly masked: Uint8Array;
}

/** Takes the bytes over into a needle, and overwrites them. */
export function needleOf(bytes: Uint8Array): Needle {
  const masked = new Uint8Array(bytes.length);
  for (let at = 0; at < bytes.length; at += 1) masked[at] = bytes[at]! ^ MASK;
  bytes.fill(0);
  return { masked };
}

/**
 * How often the bytes stand in the memory of this process, also in what is free and not yet used again. Linux alone
 * shows a process its memory.
 */
export function countInMemory(needle: Needle): number {
  const memory = openSync('/proc/self/mem', 'r');
  const chunk = Buffer.allocUnsafeSlow(CHUNK_BYTES);
  let found = 0;
  try {
    for (const { start, end } of writableRegions()) {
      for (let at = start; at < end; at += CHUNK_BYTES - needle.masked.length) {
        const length = readAt(memory, chunk, at, Math.min(CHUNK_BYTES, end - at));
        for (const offset of matches(chunk.subarray(0, length), needle)) {
          chunk.fill(0);
          // What was a copy in the chunk itself is gone now.
          readAt(memory, chunk, at + offset, needle.masked.length);
          if (matches(chunk.subarray(0, needle.masked.length), needle).length > 0) found += 1;
          readAt(memory, chunk, at, length);
        }
        chunk.fill(0);
      }
    }
  } finally {
    closeSync(memory);
  }
  return found;
}

function writableRegions(): { start: number; end: number }[] {
  return readFileSync('/proc/self/maps', 'latin1')
    .split('\n')
    .flatMap((line) => {
      const [, start, end, rights] = /^([0-9a-f]+)-([0-9a-f]+) (\S+)/.exec(line) ?? [];
      if (start === undefined || end === undefined || !rights?.startsWith('rw')) return [];
      return [{ start: Number.parseInt(start, 16), end: Number.parseInt(end, 16) }];
    });
}

function readAt(memory: number, into: Buffer, at: number, length: number): number {
  try {
    return readSync(memory, into, 0, length, at);
  } catch {
    // Unmapped meanwhile, or a page that the system keeps to itself.
    return 0;
  }
}

function matches(bytes: Buffer, { masked }: Needle): number[] {
  const prefix = Buffer.alloc(PREFIX_BYTES);
  for (let at = 0; at < PREFIX_BYTES; at += 1) prefix[at] = masked[at]! ^ MASK;
  const found: number[] = [];
  for (let at = bytes.indexOf(prefix); at !== -1; at = bytes.indexOf(prefix, at + 1)) {
    if (at + masked.length <= bytes.length && masked.every((byte, offset) => bytes[at + offset] === (byte ^ MASK))) {
      found.push(at);
    }
  }
  return found;
}
