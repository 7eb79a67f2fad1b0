import type { ServerResponse } from 'node:http';
import type { Clock } from '../clock.js';
import type { Fault } from './faults.js';
import type { Reply } from './http.js';

/** The connection a reply goes out on, with the clock that its waits run on. */
export interface Exchange {
  response: ServerResponse;
  clock: Clock;
  /** Aborts when the sandbox closes, which ends every wait. */
  signal: AbortSignal;
}

/** What a fault answers instead of performing the request, or null when the request is to be performed. */
export function replyInstead(fault: Fault | null): Reply | null {
  const plain = (status: number, contentType: string, body: string): Reply => ({
    status,
    headers: { 'content-type': contentType },
    body,
    outcome: 'fault',
  });
  switch (fault?.kind) {
    case 'status':
      return fault.when === 'before' ? withStatus(fault) : null;
    case 'body':
      return plain(fault.status, fault.contentType, fault.body);
    case 'big':
      return plain(200, 'application/json', `{"padding":"${'x'.repeat(fault.bytes - 14)}"}`);
    default:
      return null;
  }
}

function withStatus({ status, body, headers }: Extract<Fault, { kind: 'status' }>): Reply {
  const isText = typeof body === 'string';
  return {
    status,
    headers: { 'content-type': isText ? 'text/html; charset=utf-8' : 'application/json', ...headers },
    body: isText ? body : body === undefined ? '' : JSON.stringify(body),
    outcome: 'fault',
  };
}

/** Sends the reply of a performed request in the way its fault wants. Never rejects; a vanished client is no error. */
export async function send(
  { response, clock, signal }: Exchange,
  performed: Reply,
  fault: Fault | null,
): Promise<void> {
  if (fault?.kind === 'drop') {
    response.destroy();
    return;
  }
  if (fault?.kind === 'hang' && fault.when === 'after') await clock.sleep(fault.ms, signal);
  if (response.destroyed) return;
  const reply = fault?.kind === 'status' && fault.when === 'after' ? withStatus(fault) : performed;
  const bytes = Buffer.from(reply.body);
  response.writeHead(reply.status, { ...reply.headers, 'content-length': bytes.length });
  if (fault?.kind === 'truncate') {
    response.write(bytes.subarray(0, Math.floor(bytes.length / 2)), () => response.destroy());
    return;
  }
  if (fault?.kind === 'slow') {
    response.flushHeaders();
    for (let at = 0; at < bytes.length && !response.destroyed && !signal.aborted; at += fault.bytesPerSecond) {
      if (at > 0) await clock.sleep(1000, signal);
      response.write(bytes.subarray(at, at + fault.bytesPerSecond));
    }
  }
  if (fault?.kind === 'slow') response.end();
  else response.end(bytes);
}
