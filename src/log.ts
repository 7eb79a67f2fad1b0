import { pino } from 'pino';

/**
 * What a log line may carry: ids, counts, enums and our own fixed words. A value that a browser, a webhook or Zoom
 * sent has no field here, so it cannot reach a log.
 */
export interface LogFields {
  appId?: string;
  attempt?: number;
  authorizationSessionId?: string;
  code?: string;
  count?: number;
  database?: string;
  durationMs?: number;
  errorName?: string;
  grantId?: string;
  healthEventId?: string;
  job?: string;
  operation?: string;
  port?: number;
  reason?: string;
  role?: string;
  route?: string;
  status?: number;
  tenantId?: string;
  url?: string;
  version?: string;
  webhookEndpointId?: string;
}

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  /** `error` adds its class name and stack; its message may hold foreign text and is left out of the line's fields. */
  error(message: string, fields?: LogFields, error?: unknown): void;
}

export type LogLevel = 'debug' | 'info' | 'warn' | 'error' | 'silent';

const FIELDS: ReadonlySet<string> = new Set<keyof LogFields>([
  'appId',
  'attempt',
  'authorizationSessionId',
  'code',
  'count',
  'database',
  'durationMs',
  'errorName',
  'grantId',
  'healthEventId',
  'job',
  'operation',
  'port',
  'reason',
  'role',
  'route',
  'status',
  'tenantId',
  'url',
  'version',
  'webhookEndpointId',
]);

function allowed(fields: LogFields | undefined): Record<string, unknown> {
  return Object.fromEntries(Object.entries(fields ?? {}).filter(([name]) => FIELDS.has(name)));
}

/** Frames of a stack without its first line, which repeats the message. */
function frames(error: unknown): string | undefined {
  if (!(error instanceof Error) || error.stack === undefined) return undefined;
  return error.stack
    .split('\n')
    .filter((line) => line.trimStart().startsWith('at '))
    .join('\n');
}

/** Writes one JSON object a line to `stream` (standard output unless told). */
export function createLog(level: LogLevel, stream?: { write(line: string): void }): Log {
  const sink = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream as never);
  return {
    debug: (message, fields) => sink.debug(allowed(fields), message),
    info: (message, fields) => sink.info(allowed(fields), message),
    warn: (message, fields) => sink.warn(allowed(fields), message),
    error: (message, fields, error) =>
      sink.error(
        {
          ...allowed(fields),
          ...(error instanceof Error ? { errorName: error.name, stack: frames(error) } : {}),
        },
        message,
      ),
  };
}
