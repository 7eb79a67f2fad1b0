import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { readConfig } from '../../src/config.js';
import type { Database } from '../../src/database/database.js';
import { startLatchkey } from '../../src/latchkey.js';
import { createLog } from '../../src/log.js';
import { TEST_ADMIN_KEY } from './server.js';

/** One root key, so that servers of this file may share a database. */
export const SHARED_ROOT_KEY = randomBytes(32).toString('base64');

/** A server that has its own feed, streams and sockets, and shares `db` with whoever else has it. */
export async function startSecondServer(
  db: Database,
  settings: Record<string, string> = {},
): Promise<{ url: string; logs: string[]; close(): Promise<void> }> {
  const dataDir = await mkdtemp(join(tmpdir(), 'latchkey-second-'));
  const logs: string[] = [];
  const config = readConfig({
    PORT: '0',
    LATCHKEY_DATA_DIR: dataDir,
    LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_SANDBOX: '0',
    LATCHKEY_ROLE: 'api',
    LATCHKEY_LOG_LEVEL: 'debug',
    LATCHKEY_EVENT_POLL_MS: '100',
    ZOOM_OAUTH_URL: 'http://127.0.0.1:1',
    ZOOM_API_URL: 'http://127.0.0.1:1',
    ...settings,
  });
  const log = createLog(config.logLevel, { write: (line) => void logs.push(line) });
  const latchkey = await startLatchkey(config, log, async () => ({ ...db, close: async () => undefined }));
  afterAll(async () => {
    await latchkey.close();
    await rm(dataDir, { recursive: true, force: true });
  });
  return { url: latchkey.publicUrl, logs, close: latchkey.close };
}
