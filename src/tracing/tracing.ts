import { randomUUID } from 'node:crypto';
import { ROOT_CONTEXT } from '@opentelemetry/api';
import { ExportResultCode, W3CTraceContextPropagator } from '@opentelemetry/core';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-http';
import { detectResources, envDetector, resourceFromAttributes } from '@opentelemetry/resources';
import { BasicTracerProvider, BatchSpanProcessor, type SpanExporter } from '@opentelemetry/sdk-trace-base';
import type { Log } from '../log.js';
import { createTracers } from './create-tracers.js';
import { createSpans } from './spans.js';
import type { Tracing } from './tracers.js';

/** Longest that the end of the process waits for a collector. */
const FLUSH_MS = 2_000;
/** A collector that is away is reported this often. */
const REPORT_MS = 60_000;

/** Says that spans could not be sent; the failure itself may quote the collector. */
function reported(exporter: SpanExporter, log: Log): SpanExporter {
  let lastMs = -Infinity;
  return {
    export: (spans, done) =>
      exporter.export(spans, (result) => {
        if (result.code === ExportResultCode.FAILED && performance.now() - lastMs > REPORT_MS) {
          lastMs = performance.now();
          log.warn('spans could not be sent to the collector', { count: spans.length });
        }
        done(result);
      }),
    shutdown: () => exporter.shutdown(),
  };
}

const READ_HEADERS = {
  get: (headers: NodeJS.Dict<string | string[]>, name: string) => headers[name],
  keys: (headers: NodeJS.Dict<string | string[]>) => Object.keys(headers),
};

/**
 * Sends spans to a collector over OTLP/HTTP, in the background: at most 2048 wait, and more than those are dropped.
 *
 * Headers, timeout, sampler, batches and resource are read from the standard `OTEL_` variables by the SDK.
 *
 * @param url of the collector's endpoint for traces.
 */
export function openTracing(
  { url }: { url: string },
  { version, role, log }: { version: string; role: string; log: Log },
): Tracing {
  const provider = new BasicTracerProvider({
    resource: resourceFromAttributes({
      'service.name': 'latchkey',
      'service.version': version,
      'service.instance.id': randomUUID(),
      'latchkey.role': role,
    }).merge(detectResources({ detectors: [envDetector] })),
    spanProcessors: [new BatchSpanProcessor(reported(new OTLPTraceExporter({ url }), log))],
  });
  const spans = createSpans(provider.getTracer('latchkey', version));
  const propagator = new W3CTraceContextPropagator();
  return {
    ...createTracers(spans, (headers) => propagator.extract(ROOT_CONTEXT, headers, READ_HEADERS)),
    close: async () => {
      spans.stop();
      let timer: NodeJS.Timeout | undefined;
      const patience = new Promise((resolve) => {
        timer = setTimeout(resolve, FLUSH_MS);
      });
      await Promise.race([provider.shutdown().catch(() => undefined), patience]);
      clearTimeout(timer);
    },
  };
}
