import { GraphQLError } from 'graphql';
import { PositionExpiredError } from '../feed/event-stream.js';
import { DEFAULT_PAGE, MAX_PAGE } from './page.js';
import { isUuid } from './node.js';

export interface PageArgs {
  first?: number | null | undefined;
  last?: number | null | undefined;
  after?: string | null | undefined;
  before?: string | null | undefined;
}

/** Whether an optional argument was given. An empty text was: it is a filter that nothing passes, or a wrong cursor. */
export const isGiven = <Value>(value: Value | null | undefined): value is Value =>
  value !== null && value !== undefined;

const refuse = (message: string) => new GraphQLError(message, { extensions: { code: 'BAD_USER_INPUT' } });

/** @throws BAD_USER_INPUT for a page size that is none, or larger than a page may be. */
export function checkPageSize({ first, last }: PageArgs): void {
  for (const size of [first, last]) {
    if (size !== null && size !== undefined && (size < 0 || size > MAX_PAGE)) {
      throw refuse(`A page has 0 to ${MAX_PAGE} items.`);
    }
  }
}

/** A cursor of the lists that are paged by row. */
const ROW_CURSOR = /^GPC:S:(.+)$/;

/** @throws BAD_USER_INPUT as `checkPageSize`, and for a cursor that no list has given out. */
export function checkPage(args: object): void {
  const page: PageArgs = args;
  checkPageSize(page);
  for (const cursor of [page.after, page.before]) {
    if (cursor === null || cursor === undefined) continue;
    const id = ROW_CURSOR.exec(Buffer.from(cursor, 'base64').toString('utf8'))?.[1];
    if (id === undefined || !isUuid(id)) throw refuse('This is not a cursor of this list.');
  }
}

/** The count that the Prisma plugin puts on a connection: at hand, or still to be asked for. */
export function totalCountOf(connection: { totalCount?: number | (() => number | Promise<number>) | undefined }) {
  const { totalCount } = connection;
  return typeof totalCount === 'function' ? totalCount() : (totalCount ?? 0);
}

/** The order of every list of rows; the id keeps apart what was made at the same moment. */
export const OLDEST_FIRST = [{ createdAt: 'asc' as const }, { id: 'asc' as const }];

export const TOTAL_COUNT = 'How many items the whole list has; counted only when asked for.';

const POSITION_CURSOR = /^e(\d{1,15})$/;

/** The cursor of a health event, from its place in the order over all tenants. */
export const cursorOf = (position: bigint | number): string => Buffer.from(`e${position}`).toString('base64url');

/** @throws BAD_USER_INPUT for a cursor that no event has. */
export function positionOf(cursor: string): number {
  const digits = POSITION_CURSOR.exec(Buffer.from(cursor, 'base64url').toString('utf8'))?.[1];
  if (digits === undefined) throw refuse('This is not the cursor of an event.');
  return Number(digits);
}

const AUDIT_CURSOR = /^a(\d{1,15})\.([0-9a-f-]{36})\.(\d{1,9})$/;

/** Where an event is in the order in which they were recorded. */
export interface AuditPlace {
  recordedAt: Date;
  chainId: string;
  sequence: number;
}

export const auditCursorOf = ({ recordedAt, chainId, sequence }: AuditPlace): string =>
  Buffer.from(`a${recordedAt.getTime()}.${chainId}.${sequence}`).toString('base64url');

/** @throws BAD_USER_INPUT for what is no cursor of audit events. */
export function auditPlaceOf(cursor: string): AuditPlace {
  const [, ms, chainId = '', sequence] = AUDIT_CURSOR.exec(Buffer.from(cursor, 'base64url').toString('utf8')) ?? [];
  if (ms === undefined || !isUuid(chainId)) throw refuse('This is not a cursor of an audit event.');
  return { recordedAt: new Date(Number(ms)), chainId, sequence: Number(sequence) };
}

const resyncRequired = () =>
  new GraphQLError(
    'The events behind this cursor are not kept any more. Read the present state, then subscribe anew.',
    {
      extensions: { code: 'RESYNC_REQUIRED' },
    },
  );

/** Says of a position that is too old what the caller has to do about it. */
export const explainExpired = (error: unknown): unknown =>
  error instanceof PositionExpiredError ? resyncRequired() : error;

const LIST_CURSOR = /^k(.{1,250})$/;
const listCursor = (key: string): string => Buffer.from(`k${key}`).toString('base64url');

function keyOf(cursor: string): string {
  const key = LIST_CURSOR.exec(Buffer.from(cursor, 'base64url').toString('utf8'))?.[1];
  if (key === undefined) throw refuse('This is not a cursor of this list.');
  return key;
}

/**
 * A page of a list that is at hand, in the order of its keys. A cursor stands between two keys, so it is good for any
 * filter of the list, and stays so when the list changes.
 *
 * @throws BAD_USER_INPUT as `checkPageSize`, and for a cursor that no list has given out.
 */
export function listPage<Item>(items: readonly Item[], args: PageArgs, key: (item: Item) => string) {
  checkPageSize(args);
  const after = isGiven(args.after) ? keyOf(args.after) : null;
  const before = isGiven(args.before) ? keyOf(args.before) : null;
  const start = after === null ? 0 : items.filter((item) => key(item) <= after).length;
  const end = before === null ? items.length : items.filter((item) => key(item) < before).length;
  const within = items.slice(start, end);
  const backwards = !isGiven(args.first) && isGiven(args.last);
  const size = (backwards ? args.last : args.first) ?? DEFAULT_PAGE;
  const from = backwards ? Math.max(0, within.length - size) : 0;
  const page = within.slice(from, from + size);
  const edges = page.map((node) => ({ cursor: listCursor(key(node)), node }));
  return {
    edges,
    totalCount: items.length,
    pageInfo: {
      hasPreviousPage: start + from > 0,
      hasNextPage: start + from + page.length < items.length,
      startCursor: edges.at(0)?.cursor ?? null,
      endCursor: edges.at(-1)?.cursor ?? null,
    },
  };
}
