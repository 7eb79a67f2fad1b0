import type { IncomingHttpHeaders, IncomingMessage } from 'node:http';

/** A request after its body has been read. */
export interface SandboxRequest {
  method: string;
  /** As sent, before the `?`, not decoded. */
  path: string;
  query: URLSearchParams;
  headers: IncomingHttpHeaders;
  body: string;
  remoteAddress: string | undefined;
}

/** What a handler wants to be sent, and the word the ledger records for it. */
export interface Reply {
  status: number;
  headers: Record<string, string>;
  body: string;
  /** Says what happened in a fixed word, such as `rotated` or `invalid_grant`. */
  outcome: string;
  /** Runs once the reply has left, or failed to leave. */
  after?: () => void;
}

/** Ends a request early with a ready reply. */
export class Refusal extends Error {
  readonly reply: Reply;

  constructor(reply: Reply) {
    super(reply.outcome);
    this.name = 'Refusal';
    this.reply = reply;
  }
}

const NO_STORE = { 'cache-control': 'no-store' };

export const json = (status: number, value: unknown, outcome: string): Reply => ({
  status,
  headers: { 'content-type': 'application/json;charset=UTF-8', ...NO_STORE },
  body: JSON.stringify(value),
  outcome,
});

export const redirect = (location: string, outcome: string, status = 302): Reply => ({
  status,
  headers: { location, ...NO_STORE },
  body: '',
  outcome,
});

/** Longest request body that is read, in bytes. Zoom's is not documented; no honest request here comes near. */
export const BODY_LIMIT = 64 * 1024;

/** @throws {Refusal} 413 when the body exceeds `BODY_LIMIT`. */
export async function readRequest(incoming: IncomingMessage): Promise<SandboxRequest> {
  const chunks: Buffer[] = [];
  let size = 0;
  // An early end must leave the connection open for the refusal.
  for await (const chunk of incoming.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
    size += chunk.length;
    if (size > BODY_LIMIT) {
      const reply = json(413, { error: 'The request body is too large.' }, 'body-too-large');
      throw new Refusal({ ...reply, headers: { ...reply.headers, connection: 'close' } });
    }
    chunks.push(chunk);
  }
  const target = incoming.url ?? '/';
  const mark = target.indexOf('?');
  return {
    method: incoming.method ?? 'GET',
    path: mark < 0 ? target : target.slice(0, mark),
    query: new URLSearchParams(mark < 0 ? '' : target.slice(mark + 1)),
    headers: incoming.headers,
    body: Buffer.concat(chunks).toString('utf8'),
    remoteAddress: incoming.socket.remoteAddress,
  };
}

const isForm = (request: SandboxRequest): boolean =>
  /^application\/x-www-form-urlencoded\s*(;|$)/i.test(request.headers['content-type'] ?? '');

/** The form fields of the body; empty for any other content type. */
export const formOf = (request: SandboxRequest): URLSearchParams =>
  new URLSearchParams(isForm(request) ? request.body : '');

/** Parameters from query and form together, as Zoom's token endpoint takes them. */
export const paramsOf = (request: SandboxRequest): URLSearchParams =>
  new URLSearchParams([...request.query, ...formOf(request)]);

/** Name of a parameter that occurs more than once, which RFC 6749 §3.1 forbids, or null. */
export function repeatedParam(params: URLSearchParams): string | null {
  for (const name of params.keys()) if (params.getAll(name).length > 1) return name;
  return null;
}

/** Values of the `{name}` parts of `pattern` when it fits the whole path, else null. */
export function matchPath(pattern: string, path: string): Record<string, string> | null {
  const wanted = pattern.split('/');
  const given = path.split('/');
  if (wanted.length !== given.length) return null;
  const values: Record<string, string> = {};
  for (const [index, part] of wanted.entries()) {
    const value = given[index]!;
    if (part.startsWith('{')) {
      const decoded = decodePart(value);
      if (decoded === null || decoded === '') return null;
      values[part.slice(1, -1)] = decoded;
    } else if (part !== value) return null;
  }
  return values;
}

function decodePart(part: string): string | null {
  try {
    return decodeURIComponent(part);
  } catch {
    // A malformed escape names no resource.
    return null;
  }
}
