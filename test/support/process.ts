import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Database } from '../../src/database/database.js';
import type { Sandbox } from '../../src/sandbox/sandbox.js';
import { LISTENING, startChild, type Child } from './child.js';
import { TEST_ADMIN_KEY, type Answer, type TestServer } from './server.js';
import { onItsWay } from './way-to-database.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** A server in a process of its own. */
export interface ServerProcess extends Pick<Child, 'output' | 'exited'> {
  /** Where it listens; rejects if it ends before it does. */
  listening: Promise<string>;
  kill(signal: NodeJS.Signals): void;
}

/**
 * Starts the built server (`npm run test:run` builds it) with these settings and nothing of this process's environment. What is left running is killed
 * when the test file ends.
 */
export function spawnServer(settings: Record<string, string>, folder = ROOT): ServerProcess {
  const child = startChild('The server', process.execPath, ['dist/main.js'], {
    cwd: folder,
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      LATCHKEY_LOG_LEVEL: 'info',
      PORT: '0',
      ...onItsWay(settings),
    },
  });
  const listening = child.tells(LISTENING);
  // Whoever waits for it hears of it; a test that expects the end does not wait.
  listening.catch(() => undefined);
  return { output: child.output, listening, exited: child.exited, kill: child.signal };
}

/** How the story is played with a server in another process. */
export async function clientOf(
  server: Pick<ServerProcess, 'listening' | 'kill'>,
  { sandbox, db }: { sandbox: Sandbox; db: Database },
): Promise<TestServer> {
  const url = await server.listening;
  const graphql: TestServer['graphql'] = async (query, variables, headers = {}) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        authorization: `Bearer ${TEST_ADMIN_KEY}`,
        ...headers,
      },
      body: JSON.stringify({ query, variables }),
    });
    const body = (await response.json()) as Pick<Answer, 'data' | 'errors'>;
    return { status: response.status, headers: response.headers, data: body.data, errors: body.errors };
  };
  return {
    url,
    adminKey: TEST_ADMIN_KEY,
    sandbox,
    db,
    graphql,
    data: async (query, variables) => {
      const { data, errors } = await graphql(query, variables);
      expect(errors).toBeUndefined();
      return data;
    },
    logs: [],
    close: async () => server.kill('SIGTERM'),
  };
}
