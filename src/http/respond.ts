import type { IncomingMessage, ServerResponse } from 'node:http';

/** What every answer carries. */
export const BASE_HEADERS = {
  'cache-control': 'no-store',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
} as const;

/** Ends a response with a body that nothing may keep. */
export function respond(
  res: ServerResponse,
  status: number,
  body: { type: string; text: string } | null,
  headers: Record<string, string | string[]> = {},
): void {
  const content = body === null ? {} : { 'content-type': body.type, 'content-length': Buffer.byteLength(body.text) };
  res.writeHead(status, { ...BASE_HEADERS, ...content, ...headers });
  res.end(body?.text);
}

export function respondJson(
  res: ServerResponse,
  status: number,
  value: unknown,
  headers: Record<string, string | string[]> = {},
): void {
  respond(res, status, { type: 'application/json; charset=utf-8', text: JSON.stringify(value) }, headers);
}

export const notFound = (res: ServerResponse): void => respondJson(res, 404, { error: 'Not found.' });

export const methodNotAllowed = (res: ServerResponse, allow: string): void =>
  respondJson(res, 405, { error: 'Method not allowed.' }, { allow });

/**
 * Reads a request's body as it came.
 *
 * @returns null when it is longer than `limit` bytes; the rest is then not read, and the connection must be closed.
 */
export function readBody(req: IncomingMessage, limit: number): Promise<Buffer | null> {
  return new Promise((resolve, reject) => {
    if (Number(req.headers['content-length'] ?? 0) > limit) return resolve(null);
    const chunks: Buffer[] = [];
    let length = 0;
    req.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length <= limit) return void chunks.push(chunk);
      req.pause();
      resolve(null);
    });
    req.once('end', () => resolve(chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)));
    req.once('error', reject);
    // A client that goes away in the middle sends no end.
    req.once('aborted', () => reject(new Error('The request was cut off.')));
  });
}
