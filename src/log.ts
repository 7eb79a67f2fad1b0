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
  /** Of the span that the line was written in, as OpenTelemetry names it in logs. */
  span_id?: string;
  tenantId?: string;
  trace_id?: string;
  url?: string;
  version?: string;
  webhookEndpointId?: string;
}

export interface Log {
  debug(message: string, fields?: LogFields): void;
  info(message: string, fields?: LogFields): void;
  warn(message: string, fields?: LogFields): void;
  /** `error` adds its class name, code and stack; its message may hold foreign text and is left out of the line's fields. */
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
  'span_id',
  'tenantId',
  'trace_id',
  'url',
  'version',
  'webhookEndpointId',
]);

/** Longer than anything that we write. */
const MAX_LENGTH = 200;

/** What has a field, and the form of what belongs there: a type says nothing to a value that was cast. */
function allowed(fields: LogFields | undefined): Record<string, unknown> {
  const isTold = ([name, value]: [string, unknown]) =>
    FIELDS.has(name) && (typeof value === 'number' || (typeof value === 'string' && value.length <= MAX_LENGTH));
  return Object.fromEntries(Object.entries(fields ?? {}).filter(isTold));
}

const FRAME = /^ +at .+(?::\d+:\d+\)?|\(native\)|<anonymous>\)?)$/;

/** Frames of a stack without the message in front of them, which may have lines that look like one. */
function frames({ stack = '', message }: Error): string {
  const end = message === '' ? 0 : stack.indexOf(message) + message.length;
  return stack
    .slice(Math.max(0, end))
    .split('\n')
    .filter((line) => FRAME.test(line))
    .join('\n');
}

/** Of an error its class, its code and where it came from. */
function describe(error: unknown): Record<string, unknown> {
  if (!(error instanceof Error)) return {};
  const { code } = error as { code?: unknown };
  const isCode = typeof code === 'string' && /^\w{1,40}$/.test(code);
  return { errorName: error.name.slice(0, MAX_LENGTH), ...(isCode ? { errorCode: code } : {}), stack: frames(error) };
}

/** Writes one JSON object a line to `stream` (standard output unless told). */
export function createLog(level: LogLevel, stream?: { write(line: string): void }): Log {
  const sink = pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, stream as never);
  return {
    debug: (message, fields) => sink.debug(allowed(fields), message),
    info: (message, fields) => sink.info(allowed(fields), message),
    warn: (message, fields) => sink.warn(allowed(fields), message),
    error: (message, fields, error) => sink.error({ ...allowed(fields), ...describe(error) }, message),
  };
}
