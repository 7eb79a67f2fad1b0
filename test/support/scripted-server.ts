import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** One request as it arrived, whole. */
export interface RecordedRequest {
  method: string;
  /** Path and query. */
  path: string;
  headers: IncomingHttpHeaders;
  body: string;
}

/** What to do with one request, once its body has been read. */
export type Step = (response: ServerResponse, request: IncomingMessage) => void;

/** A real HTTP server on a loopback port that does what it is told, once per request, and keeps a journal. */
export interface ScriptedServer {
  /** `http://127.0.0.1:{port}` */
  readonly origin: string;
  readonly requests: RecordedRequest[];
  /** Appends steps, one per request to come. A request without a step is journalled and answered 500. */
  script(...steps: Step[]): void;
  close(): Promise<void>;
}

export async function startScriptedServer(): Promise<ScriptedServer> {
  const steps: Step[] = [];
  const requests: RecordedRequest[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      requests.push({
        method: request.method ?? '',
        path: request.url ?? '',
        headers: request.headers,
        body: Buffer.concat(chunks).toString('utf8'),
      });
      const step = steps.shift() ?? answer(500, {}, 'no step left');
      step(response, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    requests,
    script: (...more) => {
      steps.push(...more);
    },
    close: () =>
      new Promise((resolve, reject) => {
        server.close((error) => (error ? reject(error) : resolve()));
        server.closeAllConnections();
      }),
  };
}

export function answer(
  status: number,
  headers: Record<string, string | string[]>,
  body: string | Uint8Array = '',
): Step {
  return (response) => {
    response.writeHead(status, headers).end(body);
  };
}

export function answerJson(status: number, value: unknown, headers: Record<string, string> = {}): Step {
  return answer(status, { 'content-type': 'application/json;charset=UTF-8', ...headers }, JSON.stringify(value));
}

/** The connection breaks before any answer. */
export const hangUp: Step = (_response, request) => {
  request.socket.destroy();
};

/** No answer, ever. */
export const keepSilent: Step = () => {};
