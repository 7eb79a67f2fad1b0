/** What Node says when the other side of a connection is gone. */
const CUT_OFF = new Set(['ECONNRESET', 'EPIPE']);

/** What the server says of a session that somebody ended: it shuts down, or an administrator ended it. */
const SESSION_ENDED = new Set(['57P01', '57P02']);

/** The driver gives these no code. */
const UNCODED = /^(Connection terminated|Client has encountered a connection error)/;

/** Whether a statement failed because its connection had ended: a connection of a pool may have done so unnoticed. */
function wasCutOff(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const { code } = error as { code?: unknown };
  if (typeof code === 'string') return CUT_OFF.has(code) || SESSION_ENDED.has(code);
  return UNCODED.test(error.message);
}

/**
 * Whether a statement may be sent again although nobody knows how far it came: it changes nothing, or, like the functions
 * that take old audit events away a batch at a time, as much by being done twice.
 */
export const isRead = (text: string): boolean => /^\s*SELECT\b/.test(text);

/** Resolves when what has arrived at all sockets was read, so that other connections which have ended are known, too. */
export const nextTurn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve));

/** Where one connection has ended all may have, and not each is known to have yet. */
const MAX_ATTEMPTS = 3;

/** Tries what was cut off again, on another connection. Only for what may be done twice. */
export async function onLiveConnection<T>(attempt: () => Promise<T>): Promise<T> {
  for (let attempts = 1; ; attempts += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (attempts === MAX_ATTEMPTS || !wasCutOff(error)) throw error;
      await nextTurn();
    }
  }
}
