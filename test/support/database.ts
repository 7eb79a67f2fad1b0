import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, inject } from 'vitest';
import type { Database } from '../../src/database/database.js';
import { openInMemory } from '../../src/database/embedded.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { wayTo } from './way-to-database.js';

/** Which database the running vitest project is about. */
export const databaseKind = (process.env['LATCHKEY_TEST_DATABASE'] ?? 'embedded') as Database['kind'];

/** An empty, migrated database of the running project's kind, closed after the test file. */
export async function openTestDatabase(): Promise<Database> {
  return databaseKind === 'postgres' ? openTestPostgres(await createPostgresDatabase()) : openTestEmbedded();
}

async function openTestEmbedded(): Promise<Database> {
  const database = await openInMemory(await openAsBlob(inject('embeddedDump')));
  afterAll(() => database.close());
  return database;
}

async function openTestPostgres(connectionString: string): Promise<Database> {
  const database = await openPostgres({ ...wayTo(connectionString), log: createLog('silent') });
  afterAll(() => database.close());
  return database;
}

async function run(statement: string): Promise<Record<string, string>[]> {
  const client = new pg.Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  try {
    return (await client.query(statement)).rows as Record<string, string>[];
  } finally {
    await client.end();
  }
}

/** A fresh, migrated database on the real server for processes that open it themselves; dropped after the test file. */
export async function createPostgresDatabase(template = inject('templateDatabase')): Promise<string> {
  const name = `latchkey_test_${randomBytes(6).toString('hex')}`;
  await run(`CREATE DATABASE ${name} TEMPLATE ${template}`);
  // Registered first, so it runs after what the test file registers later: hooks run in reverse.
  afterAll(() => run(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  return url.href;
}

/**
 * Backs up a database that may be in use and restores it beside: with `pg_dump` and `pg_restore` where this machine has
 * those of the server's version, otherwise as the server copies databases itself, which breaks the connections to it.
 */
export async function restoreBackup(url: string): Promise<string> {
  const source = new URL(url).pathname.slice(1);
  const tool = promisify(execFile);
  const [server] = await run(`SELECT current_setting('server_version_num')::int / 10000 AS major`);
  const client = await tool('pg_dump', ['--version']).catch(() => ({ stdout: '0' }));
  if (Number(/\d+/.exec(client.stdout)?.[0] ?? 0) >= Number(server?.['major'])) {
    const dump = await tool('pg_dump', ['--format=custom', url], { encoding: 'buffer', maxBuffer: 64 * 1024 * 1024 });
    const copy = await createPostgresDatabase('template0');
    const restore = tool('pg_restore', ['--exit-on-error', '--no-owner', '--dbname', copy]);
    restore.child.stdin?.end(dump.stdout);
    await restore;
    return copy;
  }
  await run(`ALTER DATABASE ${source} ALLOW_CONNECTIONS false`);
  try {
    await run(`SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '${source}'`);
    return await createPostgresDatabase(source);
  } finally {
    await run(`ALTER DATABASE ${source} ALLOW_CONNECTIONS true`);
  }
}
