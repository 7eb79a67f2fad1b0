import { z } from 'zod';

/** One thing that must not be lost. The ids say what it is about; everything else is inside the seal. */
export interface SpoolEntry {
  /** Absent: a renewal of a credential. */
  kind?: 'import' | undefined;
  tenantId: string;
  /** The grant; of an import, which has none yet, an id of its own. */
  grantId: string;
  /** Version of the credential that the entry's tokens follow; 0 for an import. */
  version: number;
  sealed: Uint8Array;
}

const HEAD = 'latchkey spool 1';

const line = z.strictObject({
  kind: z.literal('import').optional(),
  tenantId: z.uuid(),
  grantId: z.uuid(),
  version: z.int().min(0),
  sealed: z.base64().transform((text) => new Uint8Array(Buffer.from(text, 'base64'))),
});

/** The first line names the format, the last one says that the file is whole; between them a line of JSON each. */
export function encodeEntries(entries: readonly SpoolEntry[]): string {
  const lines = entries.map(({ kind, tenantId, grantId, version, sealed }) =>
    JSON.stringify({ kind, tenantId, grantId, version, sealed: Buffer.from(sealed).toString('base64') }),
  );
  return [HEAD, ...lines, `end ${entries.length}`, ''].join('\n');
}

/** @returns null if the text is not a whole file of this format. */
export function parseEntries(text: string): SpoolEntry[] | null {
  const lines = text.split('\n');
  const [head, ...rest] = lines;
  if (head !== HEAD || rest.pop() !== '' || rest.pop() !== `end ${rest.length}`) return null;
  const entries: SpoolEntry[] = [];
  for (const text of rest) {
    const parsed = line.safeParse(parseJson(text));
    if (!parsed.success) return null;
    entries.push(parsed.data);
  }
  return entries;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // The parser's message quotes the text, so it is dropped; what comes out fits no entry.
    return undefined;
  }
}
