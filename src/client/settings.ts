import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** Which server the demo plays against, and as whom. */
export interface Settings {
  /** Where Latchkey answers, without a slash at the end. */
  url: string;
  adminKey: string;
  /** Where the server's Zoom sandbox answers, without a slash at the end. */
  sandboxUrl: string;
}

/** A setting is missing or unusable; the message says which, for the person at the terminal. */
export class SettingsError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'SettingsError';
  }
}

/**
 * Reads `LATCHKEY_URL`, `LATCHKEY_SANDBOX_URL` and `LATCHKEY_ADMIN_KEY`. Without the last it takes the key that a
 * development server keeps in `LATCHKEY_DATA_DIR`.
 *
 * @throws {SettingsError}
 */
export async function readSettings(env: Record<string, string | undefined>): Promise<Settings> {
  const url = readUrl('LATCHKEY_URL', env['LATCHKEY_URL'] || 'http://localhost:4000');
  const sandboxUrl = readUrl('LATCHKEY_SANDBOX_URL', env['LATCHKEY_SANDBOX_URL'] || 'http://127.0.0.1:4001');
  const adminKey = env['LATCHKEY_ADMIN_KEY'] || (await readKeyFile(env['LATCHKEY_DATA_DIR'] || './.latchkey'));
  return { url, adminKey, sandboxUrl };
}

function readUrl(name: string, value: string): string {
  if (!/^https?:\/\//i.test(value) || !URL.canParse(value)) {
    throw new SettingsError(`${name} must be an address such as http://localhost:4000.`);
  }
  return value.replace(/\/+$/, '');
}

async function readKeyFile(folder: string): Promise<string> {
  const path = join(folder, 'admin-key');
  try {
    return (await readFile(path, 'utf8')).trim();
  } catch {
    throw new SettingsError(
      `There is no admin key in ${path}. Start a server with "npm start", or set LATCHKEY_ADMIN_KEY or LATCHKEY_DATA_DIR.`,
    );
  }
}
