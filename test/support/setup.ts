import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { PGlite } from '@electric-sql/pglite';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { prepare } from '../../src/database/embedded.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { startPgbouncer } from './pgbouncer.js';
import { startCluster } from './postgres-cluster.js';
import { HAS_OWN_ROLE, IS_POOLED, TEST_ROLE } from './way-to-database.js';

declare module 'vitest' {
  export interface ProvidedContext {
    /** File that holds a dump of a migrated embedded database. */
    embeddedDump: string;
    /** A server on which the tests may create databases, and a migrated database to copy. */
    postgresUrl: string;
    templateDatabase: string;
    /** Where the pooler listens that servers come through; null: there is none. */
    poolerPort: number | null;
  }
}

/**
 * Makes what every test file starts from: a dump of a migrated embedded database and a migrated template database on
 * a real server, which is `TEST_DATABASE_URL` where given and otherwise a cluster that lives only for this run.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-test-'));
  const given = process.env['TEST_DATABASE_URL'];
  const embeddedDump = join(folder, 'embedded.tar');
  const [server] = await Promise.all([
    given ? { url: given, stop: async () => undefined } : startCluster(folder),
    dumpEmbedded(embeddedDump),
  ]);
  const templateDatabase = `latchkey_template_${process.pid}`;
  const admin = new pg.Client({ connectionString: server.url });
  await admin.connect();
  await admin.query(`CREATE DATABASE ${templateDatabase}`);
  const url = new URL(server.url);
  url.pathname = `/${templateDatabase}`;
  const template = await openPostgres({ connectionString: url.href, log: createLog('silent') });
  await template.close();

  if (HAS_OWN_ROLE) {
    const { rowCount } = await admin.query(`SELECT FROM pg_roles WHERE rolname = '${TEST_ROLE}'`);
    if (rowCount === 0) await admin.query(`CREATE ROLE ${TEST_ROLE} LOGIN NOINHERIT`);
  }
  const users = [url.username, TEST_ROLE];
  const pooler = IS_POOLED ? await startPgbouncer({ url: server.url, users, poolSize: 10 }) : null;

  project.provide('poolerPort', pooler && Number(new URL(pooler.through(server.url)).port));
  project.provide('embeddedDump', embeddedDump);
  project.provide('postgresUrl', server.url);
  project.provide('templateDatabase', templateDatabase);

  return async () => {
    await pooler?.stop();
    await admin.query(`DROP DATABASE IF EXISTS ${templateDatabase} WITH (FORCE)`);
    await admin.end();
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  };
}

async function dumpEmbedded(file: string): Promise<void> {
  const pglite = await PGlite.create();
  await prepare(pglite);
  const dump = await pglite.dumpDataDir('none');
  await pglite.close();
  await writeFile(file, Buffer.from(await dump.arrayBuffer()));
}
