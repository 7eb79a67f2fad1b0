import { ZoomResponseInvalidError } from './errors.js';

export type Members = Readonly<Record<string, unknown>>;

/** The answer's JSON object, or which rule its body broke. */
export type Body = { members: Members } | { fault: string };

/**
 * Reads a body as a JSON object, judging by what the headers say it is.
 *
 * A content type is believed when it denies JSON: an error page is not searched for error codes. Absent, `text/plain`,
 * `…/json` and `…+json` are all read, since the JSON itself is checked anyway.
 *
 * @param content null if it was longer than is read.
 */
export function readBody(headers: Record<string, string | string[] | undefined>, content: Uint8Array | null): Body {
  const encoding = headers['content-encoding'];
  if (encoding !== undefined && encoding !== 'identity') return { fault: 'compressed' };
  if (content === null) return { fault: 'too long' };
  if (!mayBeJson(headers['content-type'])) return { fault: 'content type is not JSON' };
  return parseObject(content);
}

function mayBeJson(contentType: string | string[] | undefined): boolean {
  if (contentType === undefined) return true;
  if (typeof contentType !== 'string') return false;
  return /^\s*(text\/plain|[\w.+-]+\/([\w.+-]+\+)?json)\s*(;|$)/i.test(contentType);
}

/** JSON in UTF-8 with one object at its top; a byte order mark is allowed. Never throws: a parser's message quotes. */
export function parseObject(content: Uint8Array): Body {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(content);
  } catch {
    // The decoder's error says no more than the fault does.
    return { fault: 'not UTF-8' };
  }
  if (text.trim() === '') return { fault: 'empty' };
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    // The parser's message quotes the text, so it is dropped.
    return { fault: 'not JSON' };
  }
  return isMembers(value) ? { members: value } : { fault: 'not a JSON object' };
}

export function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** @throws {ZoomResponseInvalidError} if the body is no JSON object. */
export function requireMembers(body: Body): Members {
  if ('fault' in body) throw new ZoomResponseInvalidError(body.fault);
  return body.members;
}

/** The body of a failure, which may be anything: no members then. */
export function membersOrNone(body: Body): Members {
  return 'fault' in body ? {} : body.members;
}

/** Zoom's own error number, under either of its two names, as number or as digits. Null if there is none. */
export function errorNumber(members: Members): number | null {
  const value = members['code'] ?? members['errorCode'];
  if (typeof value === 'number' && Number.isSafeInteger(value)) return value;
  return typeof value === 'string' && /^\d{1,6}$/.test(value) ? Number(value) : null;
}

/** Visible ASCII, at least one character: what may stand in a header, and what Zoom's tokens and ids consist of. */
export function isVisibleAscii(value: unknown): value is string {
  return typeof value === 'string' && /^[\x21-\x7e]+$/.test(value);
}
