import { open, readFile } from 'node:fs/promises';
import { CliError, EXIT } from './output.js';

/** How an attempt at a line ended. `refused`: its token is worth nothing here, and it is not tried again. */
export type LineOutcome = 'imported' | 'refused' | 'failed';

interface Entry {
  digest: string;
  state: 'begun' | LineOutcome;
  at: string;
}

export interface LastAttempt {
  state: Entry['state'];
  at: Date;
}

/** What became of the lines of an import file, in a file beside it; survives the death of the process at any moment. */
export interface ImportJournal {
  last(digest: string): LastAttempt | undefined;
  /** Durable when it resolves. */
  write(digest: string, state: Entry['state']): Promise<void>;
  close(): Promise<void>;
}

/** @throws {CliError} it cannot be read or written. */
export async function openImportJournal(path: string): Promise<ImportJournal> {
  try {
    const attempts = parse(await readFile(path, 'utf8').catch(missingAsEmpty));
    const file = await open(path, 'a', 0o600);
    // A process that was killed may have left half a line, which must not swallow the next.
    await file.appendFile('\n');
    return {
      last: (digest) => attempts.get(digest),
      write: async (digest, state) => {
        const at = new Date();
        await file.appendFile(`${JSON.stringify({ digest, state, at: at.toISOString() } satisfies Entry)}\n`);
        await file.datasync();
        attempts.set(digest, { state, at });
      },
      close: () => file.close(),
    };
  } catch (error) {
    throw new CliError(`The journal ${path} cannot be used: ${(error as NodeJS.ErrnoException).code}`, EXIT.usage);
  }
}

function parse(content: string): Map<string, LastAttempt> {
  const attempts = new Map<string, LastAttempt>();
  for (const line of content.split('\n')) {
    try {
      const { digest, state, at } = JSON.parse(line) as Entry;
      attempts.set(digest, { state, at: new Date(at) });
    } catch {
      // Blank, or cut off: what it was about to say did not happen yet, or is found out anew.
    }
  }
  return attempts;
}

function missingAsEmpty(error: NodeJS.ErrnoException): string {
  if (error.code !== 'ENOENT') throw error;
  return '';
}
