import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';

/** How long running requests may take after the listener has closed. */
const DRAIN_MS = 10_000;
const IDLE_SWEEP_MS = 100;

/** How long a client may take to send a request, so that a slow one holds no connection for nothing. */
const LIMITS = {
  headersTimeout: 10_000,
  requestTimeout: 30_000,
  keepAliveTimeout: 65_000,
  /** How often connections are looked at; Node's own half a minute would make the limits as much longer. */
  connectionsCheckingInterval: 2_000,
  maxHeaderSize: 16_384,
};

/** A server for the internet. @param limits others, in milliseconds and bytes. */
export const createHttpServer = (limits: Partial<typeof LIMITS> = {}): Server => createServer({ ...LIMITS, ...limits });

/** The address is taken, or may not be used. */
export class ListenError extends Error {
  constructor(host: string, port: number, code: string | undefined, settings = 'HOST and PORT') {
    const reason =
      code === 'EADDRINUSE' ? 'it is in use by another program' : `the system answers ${code ?? 'an error'}`;
    super(`Cannot listen on ${host}:${port}: ${reason}. Set ${settings} to something else.`);
    this.name = 'ListenError';
  }
}

/** @returns the port, which is another than the given one where that was 0. */
export function listen(server: Server, host: string, port: number, settings?: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(new ListenError(host, port, error.code, settings)));
    server.listen(port, host, () => resolve((server.address() as AddressInfo).port));
  });
}

/** Stops listening and waits for the running requests; what is not done by then is cut off. */
export async function closeServer(server: Server): Promise<void> {
  if (!server.listening) return;
  // After the connections that wait were accepted: the system resets those that are not when it closes a listener.
  await new Promise(setImmediate);
  const closed = new Promise<void>((resolve) => server.close(() => resolve()));
  server.closeIdleConnections();
  // A connection that falls idle from now on is not wanted either.
  const idle = setInterval(() => server.closeIdleConnections(), IDLE_SWEEP_MS);
  const cut = setTimeout(() => server.closeAllConnections(), DRAIN_MS);
  await closed;
  clearInterval(idle);
  clearTimeout(cut);
}
