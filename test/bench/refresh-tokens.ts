import { randomBytes } from 'node:crypto';
import { TOKEN_LENGTH } from './seed.js';

const DIGITS = 10;
const FILLER = randomBytes(64 * 1_024).toString('base64url');
const BODY_LENGTH = TOKEN_LENGTH - DIGITS;

/** A token that tells its serial number, and otherwise looks like any. */
export function serialToken(serial: number): string {
  const from = (serial * 7_919) % (FILLER.length - BODY_LENGTH);
  return String(serial).padStart(DIGITS, '0') + FILLER.slice(from, from + BODY_LENGTH);
}

/** @returns NaN if it is none of ours. */
export const serialOf = (text: string, at: number): number => Number(text.slice(at, at + DIGITS));
