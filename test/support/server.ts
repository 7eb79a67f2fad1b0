import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { readConfig } from '../../src/config.js';
import type { Database } from '../../src/database/database.js';
import { startLatchkey } from '../../src/latchkey.js';
import { createLog } from '../../src/log.js';
import { createSandbox, type Sandbox } from '../../src/sandbox/sandbox.js';
import { findCanaries } from './canary.js';
import { openTestDatabase } from './database.js';

/** A GraphQL answer as it came over HTTP. */
export interface Answer {
  status: number;
  headers: Headers;
  data: any;
  errors: { message: string; extensions: { code: string }; path?: string[] }[] | undefined;
}

export interface TestServer {
  /** Also the public URL. */
  url: string;
  adminKey: string;
  sandbox: Sandbox;
  db: Database;
  /** Runs one operation over HTTP with the admin key. */
  graphql(query: string, variables?: Record<string, unknown>, headers?: Record<string, string>): Promise<Answer>;
  /** The data of an operation; fails the test on errors. */
  data(query: string, variables?: Record<string, unknown>): Promise<any>;
  /** What was logged so far, a line each. */
  logs: string[];
  close(): Promise<void>;
}

export interface WatchedServer extends TestServer {
  /** Where its figures are; null unless LATCHKEY_METRICS_PORT is set. */
  metricsUrl: string | null;
}

export const TEST_ADMIN_KEY = 'test-admin-key-of-at-least-32-characters';

/**
 * Starts the whole server in this process, on a free port, with a database of the project's kind and a sandbox of its
 * own whose secrets are marked. When the test file ends it is closed, and no marked secret may be found in its log,
 * its database, or any answer but those that hand tokens out.
 *
 * @param otherSecrets what may not be found either, told when the test file ends.
 */
export async function startTestServer(
  settings: Record<string, string> = {},
  otherSecrets: () => readonly string[] = () => [],
): Promise<WatchedServer> {
  const dataDir = await mkdtemp(join(tmpdir(), 'latchkey-server-'));
  const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
  const db = await openTestDatabase();
  const logs: string[] = [];
  const config = readConfig({
    PORT: '0',
    LATCHKEY_DATA_DIR: dataDir,
    LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
    LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
    LATCHKEY_SANDBOX: '0',
    LATCHKEY_LOG_LEVEL: 'debug',
    LATCHKEY_EVENT_POLL_MS: '100',
    LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
    ZOOM_OAUTH_URL: sandbox.origin,
    ZOOM_API_URL: `${sandbox.origin}/v2`,
    ...settings,
  });
  const log = createLog(config.logLevel, { write: (line) => void logs.push(line) });
  // The database outlives the server: the test file closes it, and it is searched when the server is gone.
  const latchkey = await startLatchkey(config, log, async () => ({ ...db, close: async () => undefined }));
  const url = latchkey.publicUrl;
  const answers: string[] = [];

  const graphql: TestServer['graphql'] = async (query, variables, headers = {}) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}`, ...headers },
      body: JSON.stringify({ query, variables }),
    });
    const text = await response.text();
    if (!/accessToken|ProviderToken|\bsecret\b/.test(query)) answers.push(text);
    const body = JSON.parse(text) as Pick<Answer, 'data' | 'errors'>;
    return { status: response.status, headers: response.headers, data: body.data, errors: body.errors };
  };

  let closing: Promise<void> | undefined;
  const close = () => (closing ??= latchkey.close().then(() => sandbox.close()));
  afterAll(async () => {
    await close();
    const places = { log: logs.join('\n'), answers: answers.join('\n') };
    expect(await findCanaries(places, db, otherSecrets())).toEqual([]);
    await rm(dataDir, { recursive: true, force: true });
  });

  return {
    url,
    adminKey: TEST_ADMIN_KEY,
    metricsUrl: latchkey.metricsUrl,
    sandbox,
    db,
    graphql,
    data: async (query, variables) => {
      const { data, errors } = await graphql(query, variables);
      expect(errors).toBeUndefined();
      return data;
    },
    logs,
    close,
  };
}
