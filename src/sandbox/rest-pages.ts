import { createHmac, timingSafeEqual } from 'node:crypto';
import { json, Refusal, type SandboxRequest } from './http.js';
import { nowMs, type World } from './world.js';

const DEFAULT_PAGE_SIZE = 30;
const MAX_PAGE_SIZE = 300;
/** Zoom forgets a page after 15 minutes. */
const PAGE_TOKEN_MS = 15 * 60_000;

const refuse = (field: string, message: string) =>
  new Refusal(json(400, { code: 300, message: 'Validation Failed.', errors: [{ field, message }] }, 'invalid-page'));

const signed = (world: World, text: string): Buffer =>
  createHmac('sha256', Buffer.from(world.state.signingKey, 'base64')).update(`page ${text}`).digest();

/** `{offset}.{expiry}.{what it belongs to}`: it continues the list and the query it was given for, and no other. */
function pageToken(world: World, list: string, offset: number): string {
  const text = `${offset}.${nowMs(world) + PAGE_TOKEN_MS}`;
  return `${Buffer.from(text).toString('base64url')}.${signed(world, `${text}.${list}`).toString('base64url')}`;
}

/** @throws {Refusal} 400: it was not given for this list, or is too old. */
function offsetOf(world: World, list: string, token: string): number {
  const [head = '', mac = ''] = token.split('.');
  const text = Buffer.from(head, 'base64url').toString('utf8');
  const given = Buffer.from(mac, 'base64url');
  const expected = signed(world, `${text}.${list}`);
  const [offset, expiresAt] = text.split('.').map(Number);
  const isOurs = given.length === expected.length && timingSafeEqual(given, expected);
  if (!isOurs || offset === undefined || expiresAt === undefined || expiresAt <= nowMs(world)) {
    throw refuse('next_page_token', 'The next page token is either invalid or has expired.');
  }
  return offset;
}

/**
 * One page of a list, by `page_size` and `next_page_token`, with what Zoom says about pages.
 *
 * @param list names the list and who asks: a token of one does not continue another.
 */
export function pageOf<Item>(
  world: World,
  request: SandboxRequest,
  list: string,
  items: readonly Item[],
): { items: Item[]; page: Record<string, unknown> } {
  const asked = request.query.get('page_size');
  const size = asked === null ? DEFAULT_PAGE_SIZE : Number(asked);
  if (!Number.isSafeInteger(size) || size < 1 || size > MAX_PAGE_SIZE) {
    throw refuse('page_size', `The value must be from 1 to ${MAX_PAGE_SIZE}.`);
  }
  const query = new URLSearchParams(request.query);
  query.delete('next_page_token');
  query.sort();
  const name = `${list}?${query}`;
  const token = request.query.get('next_page_token') ?? '';
  const offset = token === '' ? 0 : offsetOf(world, name, token);
  const end = offset + size;
  return {
    items: items.slice(offset, end),
    page: {
      next_page_token: end < items.length ? pageToken(world, name, end) : '',
      page_count: Math.ceil(items.length / size),
      page_size: size,
      total_records: items.length,
    },
  };
}
