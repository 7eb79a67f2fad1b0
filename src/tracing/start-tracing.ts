import type { Log } from '../log.js';
import { NOT_TRACED, type Tracing } from './tracers.js';

/**
 * What is needed for tracing is loaded only where somebody traces.
 *
 * @param traces where spans are sent; null: nowhere, and nothing costs anything.
 */
export async function startTracing(
  traces: { url: string } | null,
  process: { version: string; role: string; log: Log },
): Promise<Tracing> {
  if (traces === null) return NOT_TRACED;
  const { openTracing } = await import('./tracing.js');
  return openTracing(traces, process);
}
