import { readFile, writeFile } from 'node:fs/promises';
import { z } from 'zod';
import { CliError, EXIT, type ExitCode, type Output } from './output.js';

/** What Nango's API answers for one connection, with its tokens; only what is needed of it. */
const Connection = z.object({
  connection_id: z.string(),
  provider_config_key: z.string(),
  credentials: z.object({ access_token: z.string().optional(), refresh_token: z.string() }),
  tags: z.record(z.string(), z.unknown()).nullish(),
  end_user: z
    .object({ id: z.string().nullish(), organization: z.object({ id: z.string().nullish() }).nullish() })
    .nullish(),
});

export interface ConvertOptions {
  /** `integration=appId`: which of our apps an integration of Nango's is. */
  app: string[];
  /** Integrations whose connections are installations, without a user. */
  installation: string[];
  /** The tenant of connections that name no organisation. */
  tenant?: string;
  output: string;
}

/**
 * Turns connections as `GET /connections/{id}?refresh_token=true` of Nango's API answers them into an import file: a JSON
 * array, an object with `connections`, or one a line.
 *
 * @returns `partial` where connections were left out.
 */
export async function convertNango(output: Output, path: string, options: ConvertOptions): Promise<ExitCode> {
  const apps = new Map(options.app.map(readPair));
  const connections = parse(path, await readFile(path, 'utf8').catch(() => unreadable(path)));
  const left: { connection: number; reason: string }[] = [];
  const lines: string[] = [];
  for (const [index, value] of connections.entries()) {
    const line = convert(value, apps, options);
    if (typeof line === 'string') left.push({ connection: index + 1, reason: line });
    else lines.push(`${JSON.stringify(line)}\n`);
  }
  // Refused where the file is there: it may hold tokens that are nowhere else.
  await writeFile(options.output, lines.join(''), { mode: 0o600, flag: 'wx' }).catch((error: NodeJS.ErrnoException) => {
    throw new CliError(`${options.output} cannot be written: ${error.code}`, EXIT.usage);
  });
  for (const { connection, reason } of left) output.complain(`connection ${connection} was left out: ${reason}`);
  output.result(
    { converted: lines.length, left, output: options.output },
    () => `${lines.length} connections in ${options.output}, ${left.length} left out`,
  );
  return left.length === 0 ? EXIT.done : EXIT.partial;
}

function convert(value: unknown, apps: ReadonlyMap<string, string>, { installation, tenant }: ConvertOptions) {
  const parsed = Connection.safeParse(value);
  if (!parsed.success) {
    return `${parsed.error.issues[0]?.path.join('.') || 'it'} is missing or of another form; was it read with refresh_token=true?`;
  }
  const { provider_config_key: integration, credentials, tags, end_user: endUser } = parsed.data;
  const appId = apps.get(integration);
  if (appId === undefined) return `no --app names its integration`;
  const tenantId = asText(tags?.['organization_id']) ?? endUser?.organization?.id ?? tenant;
  if (tenantId === undefined) return 'it names no organisation; give --tenant';
  const userId = installation.includes(integration)
    ? null
    : (asText(tags?.['end_user_id']) ?? endUser?.id ?? undefined);
  if (userId === undefined) return 'it names no end user';
  const { access_token: accessToken, refresh_token: refreshToken } = credentials;
  return { tenantId, userId, appId, refreshToken, ...(accessToken === undefined ? {} : { accessToken }) };
}

const asText = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

function readPair(pair: string): [string, string] {
  const at = pair.indexOf('=');
  if (at < 1) throw new CliError('--app is given as integration=appId.', EXIT.usage);
  return [pair.slice(0, at), pair.slice(at + 1)];
}

function unreadable(path: string): never {
  throw new CliError(`${path} cannot be read.`, EXIT.usage);
}

function parse(path: string, content: string): unknown[] {
  const whole = tryParse(content);
  if (Array.isArray(whole)) return whole;
  if (whole !== undefined) {
    const { connections } = whole as { connections?: unknown };
    return Array.isArray(connections) ? connections : [whole];
  }
  const lines = content.split('\n').entries();
  return [...lines].flatMap(([index, line]) => {
    if (line.trim() === '') return [];
    const value = tryParse(line);
    if (value === undefined) throw new CliError(`${path}:${index + 1}: not JSON`, EXIT.usage);
    return [value];
  });
}

/** What the parser says of a failure quotes the text, which holds tokens. */
function tryParse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
