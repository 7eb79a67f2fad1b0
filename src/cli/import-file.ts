import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { CliError, EXIT } from './output.js';

const text = (name: string) =>
  z.string(`${name} must be text`).min(1, `${name} is empty`).max(255, `${name} is too long`);
const token = (name: string) =>
  z.string(`${name} must be text`).regex(/^[\x21-\x7e]{1,8192}$/, `${name} is not a token of Zoom`);

const Line = z.strictObject(
  {
    tenantId: text('tenantId'),
    userId: text('userId').nullish(),
    appId: text('appId'),
    refreshToken: token('refreshToken'),
    accessToken: token('accessToken').nullish(),
  },
  {
    error: ({ code, keys }) => (code === 'unrecognized_keys' ? `${keys?.length ?? 0} unknown fields` : 'not an object'),
  },
);

/** One connection to import, as a line of the file names it. */
export interface ImportLine {
  /** From 1. */
  line: number;
  tenantId: string;
  userId: string | null;
  appId: string;
  refreshToken: string;
  accessToken: string | null;
  /** Of the whole line: tells in a journal which one it was, and gives no token away. */
  digest: string;
}

/** As many problems as are told before the rest is counted. */
const TOLD = 20;

/**
 * Reads and checks a whole file of JSON Lines before anything is done with it.
 *
 * @throws {CliError} with one sentence for each line that is wrong; none quotes what stands in it.
 */
export async function readImportFile(path: string): Promise<ImportLine[]> {
  const problems: string[] = [];
  const lines: ImportLine[] = [];
  const seen = new Map<string, number>();
  for await (const { number, content } of readLines(path)) {
    const parsed = parseLine(content);
    if (typeof parsed === 'string') {
      problems.push(`${path}:${number}: ${parsed}`);
      continue;
    }
    const { tenantId, userId = null, appId, refreshToken, accessToken = null } = parsed;
    const connection = JSON.stringify([tenantId, userId, appId]);
    const earlier = seen.get(connection);
    if (earlier !== undefined) problems.push(`${path}:${number}: the same connection as line ${earlier}`);
    seen.set(connection, number);
    const digest = createHash('sha256').update(content.trim()).digest('base64url');
    lines.push({ line: number, tenantId, userId, appId, refreshToken, accessToken, digest });
  }
  if (problems.length > 0) {
    const more = problems.length > TOLD ? [`… and ${problems.length - TOLD} more`] : [];
    throw new CliError([...problems.slice(0, TOLD), ...more, 'Nothing was imported.'].join('\n'), EXIT.usage);
  }
  return lines;
}

function parseLine(content: string): z.infer<typeof Line> | string {
  let value: unknown;
  try {
    value = JSON.parse(content);
  } catch {
    // What the parser says quotes the line.
    return 'not JSON';
  }
  const result = Line.safeParse(value);
  if (result.success) return result.data;
  return [...new Set(result.error.issues.map(({ message }) => message))].join(', ');
}

async function* readLines(path: string): AsyncGenerator<{ number: number; content: string }> {
  const input = createReadStream(path, 'utf8');
  let number = 0;
  try {
    for await (const content of createInterface({ input, crlfDelay: Infinity })) {
      number += 1;
      if (content.trim() !== '') yield { number, content };
    }
  } catch (error) {
    throw new CliError(`${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`, EXIT.usage);
  }
}
