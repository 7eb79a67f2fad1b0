import { DatabaseBusyError } from './connection-shares.js';

/** What Node says when a connection fails or cannot be made. */
const NETWORK = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTUNREACH',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'ETIMEDOUT',
]);

/**
 * SQLSTATEs of a server that cannot serve now: connection exceptions (08), no resources (53), shutdown and start (57P),
 * a statement that took too long (57014), and one that writes where only reading is allowed (25006).
 *
 * @see https://www.postgresql.org/docs/current/errcodes-appendix.html
 */
const SERVER = /^(08...|53...|57P..|57014|25006)$/;

/** Prisma's own: unreachable, timed out, closed, no connection in the pool free. */
const PRISMA = new Set(['P1001', 'P1002', 'P1008', 'P1017', 'P2024']);

/** The driver gives these no code. */
const UNCODED =
  /^(Query read timeout|Connection terminated|timeout exceeded when trying to connect|Client has encountered)/;

/** Whether the database could not be reached or would not serve, as opposed to a statement that is wrong. */
export function isOutage(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  if (error instanceof DatabaseBusyError) return true;
  const { code } = error as { code?: unknown };
  if (typeof code === 'string' && (NETWORK.has(code) || SERVER.test(code) || PRISMA.has(code))) return true;
  return UNCODED.test(error.message);
}
