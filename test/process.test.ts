import { randomBytes } from 'node:crypto';
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test, vi } from 'vitest';
import { systemClock } from '../src/clock.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { connectUser } from './support/connections.js';
import { createPostgresDatabase, databaseKind } from './support/database.js';
import { spawnServer, type ServerProcess } from './support/process.js';
import { PRODUCT } from './support/story.js';
import { until } from './support/until.js';

// Each test starts processes, each of which loads everything anew.
vi.setConfig({ testTimeout: 60_000 });

const base = await mkdtemp(join(tmpdir(), 'latchkey-process-'));
afterAll(() => rm(base, { recursive: true, force: true }));
const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock, canary: true });
afterAll(() => sandbox.close());

let count = 0;
const newFolder = () => join(base, `data-${(count += 1)}`);
const ROOT_KEY = randomBytes(32).toString('base64');

/** A server of the project's kind of database, with all its state under one folder or in one database. */
async function settingsFor(
  more: Record<string, string> = {},
): Promise<Record<string, string> & { LATCHKEY_DATA_DIR: string }> {
  return {
    LATCHKEY_DATA_DIR: newFolder(),
    ...(databaseKind === 'postgres' ? { DATABASE_URL: await createPostgresDatabase() } : {}),
    LATCHKEY_SANDBOX: '0',
    ZOOM_OAUTH_URL: sandbox.origin,
    ZOOM_API_URL: `${sandbox.origin}/v2`,
    ...more,
  };
}

async function graphql(server: ServerProcess, adminKey: string, query: string, variables: object = {}) {
  const response = await fetch(`${await server.listening}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${adminKey}`, connection: 'close' },
    body: JSON.stringify({ query, variables }),
  });
  const body = (await response.json()) as { data?: any; errors?: unknown };
  return { status: response.status, ...body };
}

const createTenant = (server: ServerProcess, adminKey: string, externalId: string) =>
  graphql(
    server,
    adminKey,
    `
      mutation ($input: CreateTenantInput!) {
        createTenant(input: $input) {
          ... on CreateTenantSuccess {
            tenant {
              externalId
            }
          }
          ... on Error {
            message
          }
        }
      }
    `,
    { input: { externalId, allowedOrigins: [PRODUCT] } },
  );

async function hasTenant(server: ServerProcess, adminKey: string, externalId: string): Promise<boolean> {
  const { data } = await graphql(
    server,
    adminKey,
    `
      query ($id: String!) {
        tenant(externalId: $id) {
          externalId
        }
      }
    `,
    { id: externalId },
  );
  return data.tenant?.externalId === externalId;
}

const adminKeyOf = async (settings: { LATCHKEY_DATA_DIR: string }) =>
  (await readFile(join(settings.LATCHKEY_DATA_DIR, 'admin-key'), 'utf8')).trim();

/** It ends with 1 and has told why, in that many lines and without a stack. */
async function expectRefusal(settings: Record<string, string>, sentences: RegExp[]): Promise<void> {
  const server = spawnServer(settings);
  expect(await server.exited).toEqual({ code: 1, signal: null });
  for (const sentence of sentences) expect(server.output()).toMatch(sentence);
  expect(server.output()).not.toMatch(/^ +at /m);
  expect(server.output().trim().split('\n').length).toBeLessThanOrEqual(sentences.length);
}

test('settings that cannot be used are all listed at once, and nothing is started', async () => {
  const LATCHKEY_DATA_DIR = newFolder();
  await expectRefusal(
    { LATCHKEY_DATA_DIR, NODE_ENV: 'production', PORT: 'http', LATCHKEY_PUBLIC_URL: 'http://a.example' },
    [
      /^Latchkey cannot start:$/m,
      /^ {2}- PORT must be a whole number/m,
      /^ {2}- LATCHKEY_PUBLIC_URL must be https/m,
      /^ {2}- LATCHKEY_ROOT_KEY or LATCHKEY_ROOT_KEY_FILE is missing/m,
      /^ {2}- LATCHKEY_ADMIN_KEY is missing/m,
      /^ {2}- DATABASE_URL is missing/m,
    ],
  );
  await expect(stat(LATCHKEY_DATA_DIR)).rejects.toMatchObject({ code: 'ENOENT' });
});

test('what keeps it from starting is told in one sentence', async () => {
  const file = newFolder();
  await writeFile(file, '');
  const taken = createServer((socket) => void socket.on('error', () => undefined));
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve));
  const { port } = taken.address() as AddressInfo;
  const settings = () => ({ LATCHKEY_DATA_DIR: newFolder(), LATCHKEY_SANDBOX: '0', LATCHKEY_ROOT_KEY: ROOT_KEY });
  const given = { LATCHKEY_ADMIN_KEY: 'a'.repeat(32) };
  try {
    await Promise.all([
      expectRefusal({ ...settings(), PORT: String(port) }, [
        /^Cannot listen on 127\.0\.0\.1:\d+: it is in use by another program\./,
      ]),
      expectRefusal({ ...settings(), LATCHKEY_DATA_DIR: file }, [/^The data folder cannot be used: .*EEXIST/]),
      expectRefusal({ ...settings(), LATCHKEY_ROOT_KEY: 'short' }, [/root key/i]),
      expectRefusal({ ...settings(), ...given, DATABASE_URL: 'postgres://127.0.0.1:1/x' }, [
        /^The database cannot be reached: .*ECONNREFUSED/,
      ]),
      // Something listens there that never answers.
      expectRefusal({ ...settings(), ...given, DATABASE_URL: `postgres://127.0.0.1:${port}/x` }, [
        /^The database cannot be reached/,
      ]),
    ]);
  } finally {
    taken.close();
  }
});

test('what was acknowledged survives a kill, and the next start has it, the admin key and the root key', async () => {
  const settings = await settingsFor();
  const killed = spawnServer(settings);
  await killed.listening;
  const adminKey = await adminKeyOf(settings);
  await until(() => killed.output().includes(adminKey));
  for (const mode of ['admin-key', 'root-key'])
    expect((await stat(join(settings.LATCHKEY_DATA_DIR, mode))).mode & 0o777).toBe(0o600);

  if (databaseKind === 'embedded') {
    const second = spawnServer({ ...settings });
    expect(await second.exited).toEqual({ code: 1, signal: null });
    expect(second.output()).toContain(`Another process is using the data folder ${settings.LATCHKEY_DATA_DIR}.`);
  }
  const acknowledged: string[] = [];
  for (let index = 0; index < 20; index += 1) {
    const { data } = await createTenant(killed, adminKey, `org_${index}`);
    acknowledged.push(data.createTenant.tenant.externalId);
  }
  // The last ones are still being made.
  const cut = Promise.allSettled(
    Array.from({ length: 10 }, (_, index) => createTenant(killed, adminKey, `cut_${index}`)),
  );
  killed.kill('SIGKILL');
  expect(await killed.exited).toEqual({ code: null, signal: 'SIGKILL' });
  for (const outcome of await cut) {
    if (outcome.status === 'fulfilled') acknowledged.push(outcome.value.data.createTenant.tenant.externalId);
  }

  const next = spawnServer(settings);
  await next.listening;
  await until(() => next.output().includes('Admin key'));
  expect(next.output()).not.toContain(adminKey);
  expect(await adminKeyOf(settings)).toBe(adminKey);
  for (const externalId of acknowledged) expect(await hasTenant(next, adminKey, externalId)).toBe(true);
  next.kill('SIGINT');
  expect(await next.exited).toEqual({ code: 0, signal: null });
});

test('a refresh that runs when the server is told to stop is finished, and nothing is lost', async () => {
  const settings = await settingsFor({ LATCHKEY_ROLE: 'api' });
  const stopped = spawnServer(settings);
  await stopped.listening;
  const adminKey = await adminKeyOf(settings);
  const input = await connectAccount(stopped, adminKey);
  sandbox.control.setKnobs({ accessTokenSeconds: 3_600, tokenDelayMs: 800 });
  const before = refreshes();
  const reading = readToken(stopped, adminKey, input);
  await until(() => refreshes() === before + 1);
  stopped.kill('SIGTERM');
  expect(await reading).toMatchObject({ __typename: 'Credential', version: 2 });
  expect(await stopped.exited).toEqual({ code: 0, signal: null });

  const next = spawnServer(settings);
  const kept = await readToken(next, adminKey, input);
  expect(kept).toEqual(await reading);
  expect(refreshes()).toBe(before + 1);
  next.kill('SIGTERM');
  expect(await next.exited).toEqual({ code: 0, signal: null });
});

test('a server that is told to stop while it starts ends with 0 and leaves no lock behind', async () => {
  const settings = await settingsFor();
  const server = spawnServer(settings);
  await until(() =>
    stat(join(settings.LATCHKEY_DATA_DIR, 'root-key')).then(
      () => true,
      () => false,
    ),
  );
  server.kill('SIGTERM');
  expect(await server.exited).toEqual({ code: 0, signal: null });
  await expect(stat(join(settings.LATCHKEY_DATA_DIR, 'lock.sock'))).rejects.toMatchObject({ code: 'ENOENT' });
});

/** A user's connection whose token is as good as expired. @returns the input that reads it. */
async function connectAccount(server: ServerProcess, adminKey: string) {
  const { control } = sandbox;
  control.setKnobs({ accessTokenSeconds: 1 });
  const url = await server.listening;
  // The process alone has the database; the connection's row is not asked for here.
  const db = { query: async () => [] };
  const data = async (query: string, variables: object = {}) => {
    const answer = await graphql(server, adminKey, query, variables);
    expect(answer.errors).toBeUndefined();
    return answer.data;
  };
  const { input } = await connectUser({ data, db, sandbox, url } as never);
  return input;
}

const refreshes = () => sandbox.control.journal().filter(({ grantType }) => grantType === 'refresh_token').length;

async function readToken(server: ServerProcess, adminKey: string, input: object) {
  const { data } = await graphql(
    server,
    adminKey,
    `
      query ($input: CredentialInput!) {
        credential(input: $input) {
          __typename
          ... on Credential {
            accessToken
            version
          }
          ... on Error {
            message
          }
        }
      }
    `,
    { input },
  );
  return data.credential;
}
