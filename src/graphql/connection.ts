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
function checkPageSize({ first, last }: PageArgs): void {
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

/**
 * What a list of rows is asked for: which and in what order.
 *
 * @throws BAD_USER_INPUT as `checkPage`.
 */
export function rowsOf<const Query extends object>(args: object, query: Query): Query {
  checkPage(args);
  return query;
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

/** How many a page holds at most, and from which end of the list. @throws BAD_USER_INPUT as `checkPageSize`. */
function extentOf(args: PageArgs): { size: number; backwards: boolean } {
  checkPageSize(args);
  const backwards = !isGiven(args.first) && isGiven(args.last);
  return { size: (backwards ? args.last : args.first) ?? DEFAULT_PAGE, backwards };
}

/** Edges with their cursors, and what is beyond them. */
function pageOf<Node>(
  nodes: readonly Node[],
  cursor: (node: Node) => string,
  beyond: { hasNextPage: boolean; hasPreviousPage: boolean },
) {
  const edges = nodes.map((node) => ({ cursor: cursor(node), node }));
  const ends = { startCursor: edges.at(0)?.cursor ?? null, endCursor: edges.at(-1)?.cursor ?? null };
  return { edges, pageInfo: { ...beyond, ...ends } };
}

/** The rows that a page is made of. */
export interface Wanted {
  order: 'asc' | 'desc';
  take: number;
}

/**
 * A page of a list whose cursors are its own, in the order that they have. Whether there is more on the side that a cursor
 * shuts off is not looked for: it is where the caller comes from.
 *
 * @param read gives the rows between the cursors, so many at most, from the first one on (`asc`) or the last one back.
 * @throws BAD_USER_INPUT as `checkPageSize`, and whatever `read` does.
 */
export async function cursorPage<Row>(
  args: PageArgs,
  read: (wanted: Wanted) => Promise<Row[]>,
  cursor: (row: Row) => string,
) {
  const { size, backwards } = extentOf(args);
  const rows = await read({ order: backwards ? 'desc' : 'asc', take: size + 1 });
  const page = rows.slice(0, size);
  if (backwards) page.reverse();
  const more = rows.length > size;
  return pageOf(page, cursor, {
    hasNextPage: backwards ? isGiven(args.before) : more,
    hasPreviousPage: backwards ? more : isGiven(args.after),
  });
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
  const { size, backwards } = extentOf(args);
  const after = isGiven(args.after) ? keyOf(args.after) : null;
  const before = isGiven(args.before) ? keyOf(args.before) : null;
  const start = after === null ? 0 : items.filter((item) => key(item) <= after).length;
  const end = before === null ? items.length : items.filter((item) => key(item) < before).length;
  const within = items.slice(start, end);
  const from = backwards ? Math.max(0, within.length - size) : 0;
  const page = within.slice(from, from + size);
  const beyond = {
    hasPreviousPage: start + from > 0,
    hasNextPage: start + from + page.length < items.length,
  };
  return { ...pageOf(page, (item) => listCursor(key(item)), beyond), totalCount: items.length };
}
