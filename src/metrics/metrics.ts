import { createServer, type Server } from 'node:http';
import { countOccurrences } from './count-occurrences.js';
import { createInstruments, type Instruments, NO_INSTRUMENTS } from './instruments.js';
import { createMeters } from './meters.js';
import { createSampler, type Sources } from './sampler.js';

/** What a server that is watched has more than another. */
export interface Metrics {
  instruments: Instruments;
  /** Answers `GET /metrics` and nothing else; null where nobody watches. Answers 503 until `observe` was called. */
  server: Server | null;
  /** From here on the answer is complete. */
  observe(process: { version: string; role: string; database: string }, sources: Sources): void;
  /** Stops counting; the listener is closed by whoever opened it. */
  close(): void;
}

const WITHOUT: Metrics = {
  instruments: NO_INSTRUMENTS,
  server: null,
  observe: () => undefined,
  close: () => undefined,
};

/**
 * Figures for Prometheus, on a listener of their own: what it says is for operators, and whoever may reach the API need
 * not see it.
 *
 * @param enabled false: nothing is counted, and nothing costs anything.
 */
export function createMetrics({ enabled }: { enabled: boolean }): Metrics {
  if (!enabled) return WITHOUT;
  const meters = createMeters();
  const stopCounting = countOccurrences(meters);
  let sample: (() => Promise<void>) | null = null;

  async function answer(): Promise<string | null> {
    if (sample === null) return null;
    await sample();
    return meters.registry.metrics();
  }

  const server = createServer({ requestTimeout: 10_000, headersTimeout: 10_000 }, (req, res) => {
    const end = (status: number, text: string, type = 'text/plain; charset=utf-8') => {
      res.writeHead(status, { 'content-type': type, 'content-length': Buffer.byteLength(text) });
      res.end(text);
    };
    if (req.url !== '/metrics') return end(404, 'Not found.\n');
    if (req.method !== 'GET') return end(405, 'Method not allowed.\n');
    answer().then(
      (text) => (text === null ? end(503, 'Starting.\n') : end(200, text, meters.registry.contentType)),
      () => end(500, 'The figures could not be read.\n'),
    );
  });

  return {
    instruments: createInstruments(meters),
    server,
    observe: ({ version, role, database }, sources) => {
      meters.info.set({ version, role, database }, 1);
      sample = createSampler(meters, sources);
    },
    close: stopCounting,
  };
}
