import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterAll } from 'vitest';

/** A span as it came over OTLP/HTTP with JSON, its attributes as one object. */
export interface CollectedSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  name: string;
  /** 1 internal, 2 server, 3 client. */
  kind: number;
  attributes: Record<string, unknown>;
  events: string[];
  /** 0 unset, 2 error. */
  status: number;
  startNano: bigint;
  endNano: bigint;
}

interface Wire {
  resourceSpans: { resource: { attributes: Pair[] }; scopeSpans: { spans: WireSpan[] }[] }[];
}
interface Pair {
  key: string;
  value: Record<string, unknown>;
}
interface WireSpan extends Omit<CollectedSpan, 'attributes' | 'events' | 'status'> {
  attributes: Pair[];
  events: { name: string }[];
  status: { code?: number };
  startTimeUnixNano: string;
  endTimeUnixNano: string;
}

const objectOf = (pairs: readonly Pair[]) =>
  Object.fromEntries(pairs.map(({ key, value }) => [key, Object.values(value)[0]]));

export interface Collector {
  url: string;
  /** Everything that was sent, headers included, as it came. */
  bytes(): string;
  spans(): CollectedSpan[];
  resource(): Record<string, unknown>;
}

/**
 * Takes in traces as an OpenTelemetry collector does.
 *
 * @param answer how a request is answered, once it was read: 200 unless told.
 */
export async function startCollector(
  answer: (req: IncomingMessage, res: ServerResponse) => void = (_req, res) => void res.end('{}'),
): Promise<Collector> {
  const received: string[] = [];
  const bodies: Wire[] = [];
  const server = createServer((req, res) => {
    const chunks: Buffer[] = [];
    req.on('data', (chunk: Buffer) => void chunks.push(chunk));
    req.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      received.push(`${req.method} ${req.url}\n${req.rawHeaders.join('\n')}\n${body}`);
      if (req.url === '/v1/traces') bodies.push(JSON.parse(body) as Wire);
      answer(req, res);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  afterAll(() => {
    server.closeAllConnections();
    server.close();
  });
  const groups = () => bodies.flatMap(({ resourceSpans }) => resourceSpans);
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    bytes: () => received.join('\n'),
    resource: () => objectOf(groups()[0]?.resource.attributes ?? []),
    spans: () =>
      groups()
        .flatMap(({ scopeSpans }) => scopeSpans)
        .flatMap(({ spans }) => spans)
        .map(({ attributes, events, status, startTimeUnixNano, endTimeUnixNano, ...span }) => ({
          ...span,
          parentSpanId: span.parentSpanId,
          attributes: objectOf(attributes),
          events: events.map(({ name }) => name),
          status: status.code ?? 0,
          startNano: BigInt(startTimeUnixNano),
          endNano: BigInt(endTimeUnixNano),
        })),
  };
}
