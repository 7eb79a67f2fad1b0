import { randomBytes } from 'node:crypto';
import { openAsBlob } from 'node:fs';
import pg from 'pg';
import { afterAll, inject } from 'vitest';
import type { Database } from '../../src/database/database.js';
import { openInMemory } from '../../src/database/embedded.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';

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
  const database = await openPostgres({ connectionString, log: createLog('silent') });
  afterAll(() => database.close());
  return database;
}

/** A fresh, migrated database on the real server for processes that open it themselves; dropped after the test file. */
export async function createPostgresDatabase(): Promise<string> {
  const name = `latchkey_test_${randomBytes(6).toString('hex')}`;
  const run = async (statement: string) => {
    const client = new pg.Client({ connectionString: inject('postgresUrl') });
    await client.connect();
    try {
      await client.query(statement);
    } finally {
      await client.end();
    }
  };
  await run(`CREATE DATABASE ${name} TEMPLATE ${inject('templateDatabase')}`);
  // Registered first, so it runs after what the test file registers later: hooks run in reverse.
  afterAll(() => run(`DROP DATABASE IF EXISTS ${name} WITH (FORCE)`));
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${name}`;
  return url.href;
}
