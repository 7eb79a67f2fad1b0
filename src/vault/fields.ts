export type Field = string | number;

const TEXT = 1;
const NUMBER = 2;
const HEAD_BYTES = 5;
const NUMBER_BYTES = 4;
/** A UTF-16 code unit takes three bytes of UTF-8 at most. */
const MAX_BYTES_PER_UNIT = 3;
const EMPTY = new Uint8Array();

/** Whether UTF-8 can carry the text: a lone surrogate would silently become U+FFFD. */
export function isWellFormed(text: string): boolean {
  return !/\p{Surrogate}/u.test(text);
}

/**
 * Encodes fields so that no two lists of fields give the same bytes: each is its type (1 byte), the length of its value
 * (u32, big-endian) and its value: UTF-8, or a u32.
 *
 * @param prefix copied as it is to the front. Its length must be the same wherever the bytes are compared.
 * @throws {RangeError} a number is not a u32, or a text is not well-formed Unicode.
 */
export function encodeFields(fields: readonly Field[], prefix: Uint8Array = EMPTY): Buffer {
  let capacity = prefix.length;
  for (const field of fields) {
    capacity += HEAD_BYTES + (typeof field === 'number' ? NUMBER_BYTES : field.length * MAX_BYTES_PER_UNIT);
  }
  const buffer = Buffer.allocUnsafe(capacity);
  buffer.set(prefix);
  let end = prefix.length;
  for (const field of fields)
    end = typeof field === 'number' ? writeNumber(buffer, field, end) : writeText(buffer, field, end);
  return buffer.subarray(0, end);
}

function writeNumber(buffer: Buffer, value: number, at: number): number {
  if (!Number.isInteger(value)) throw new RangeError('A field is not an integer');
  buffer[at] = NUMBER;
  buffer.writeUInt32BE(NUMBER_BYTES, at + 1);
  return buffer.writeUInt32BE(value, at + HEAD_BYTES);
}

function writeText(buffer: Buffer, text: string, at: number): number {
  if (!isWellFormed(text)) throw new RangeError('A field is not well-formed Unicode');
  const length = buffer.write(text, at + HEAD_BYTES);
  buffer[at] = TEXT;
  buffer.writeUInt32BE(length, at + 1);
  return at + HEAD_BYTES + length;
}
