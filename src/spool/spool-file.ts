/** One thing that must not be lost. The ids say what it is about. */
export interface SpoolEntry {
  kind: 'renewal' | 'import';
  tenantId: string;
  /** Of an import, which has no grant yet: an id of its own. */
  grantId: string;
  /** Version of the credential that the entry's tokens follow; 0 for an import. */
  version: number;
  /** Whatever the owner makes of it. */
  content: string;
}

const HEAD = Buffer.from('latchkey spool 2\n', 'latin1');

/** A line that names the format, then what was sealed. */
export const encodeFile = (sealed: Uint8Array): Buffer => Buffer.concat([HEAD, sealed]);

/** @returns what was sealed, whole or not; null if the file is not of this format. */
export const decodeFile = (file: Buffer): Uint8Array | null =>
  file.subarray(0, HEAD.length).equals(HEAD) ? file.subarray(HEAD.length) : null;

export const encodeEntries = (entries: readonly SpoolEntry[]): string => JSON.stringify(entries);

/** Only for what came out of a seal of ours: it is of this shape then. */
export const parseEntries = (text: string): SpoolEntry[] => JSON.parse(text) as SpoolEntry[];
