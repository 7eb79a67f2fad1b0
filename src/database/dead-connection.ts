/** What Node says when the other side of a connection is gone. */
const CUT_OFF = new Set(['ECONNRESET', 'EPIPE']);

/** What the server says of a session that somebody ended: it shuts down, or an administrator ended it. */
const SESSION_ENDED = new Set(['57P01', '57P02']);

/** The driver gives these no code. */
const UNCODED = /^(Connection terminated|Client has encountered a connection error)/;

/** Whether a statement failed because its connection had ended: a connection of a pool may have done so unnoticed. */
export function wasCutOff(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  if (typeof code === 'string') return CUT_OFF.has(code) || SESSION_ENDED.has(code);
  return UNCODED.test(error.message);
}

/**
 * Whether a statement that failed so may be sent once more on another connection: only what changes nothing, because
 * nobody knows how far it came.
 */
export const mayRepeat = (error: unknown, text: string): boolean => wasCutOff(error) && /^\s*SELECT\b/.test(text);

/** Resolves when what has arrived at all sockets was read, so that other connections which have ended are known, too. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));
