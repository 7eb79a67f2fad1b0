import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import pg from 'pg';
import { afterAll, inject } from 'vitest';

/** An empty database with the roles that the operator's page says to make; gone after the test file. */
export interface SeparateRoles {
  owner: string;
  application: string;
  ownerUrl: string;
  applicationUrl: string;
  /** As a superuser. */
  adminUrl: string;
}

/** The statements of the page, one by one; `\c` is where its reader goes to the new database. */
async function documentedStatements(): Promise<string[]> {
  const page = await readFile(new URL('../../docs/operations/database.md', import.meta.url), 'utf8');
  const block = /^## Roles of the database$.*?^```sql$(.*?)^```$/ms.exec(page)?.[1];
  if (block === undefined) throw new Error('docs/operations/database.md has no SQL for roles any more.');
  return block
    .replace(/--.*$/gm, '')
    .replace(/^\\c (\w+)$/gm, '\\c $1;')
    .split(';')
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}

/** Runs statements one after the other. @returns the rows of the last. */
export async function runAs(url: string, ...statements: string[]): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    let rows: Record<string, unknown>[] = [];
    for (const statement of statements) rows = (await client.query(statement)).rows as Record<string, unknown>[];
    return rows;
  } finally {
    await client.end();
  }
}

/** Runs what the page says, with names of this test file. */
export async function createSeparateRoles(): Promise<SeparateRoles> {
  const suffix = randomBytes(4).toString('hex');
  const [owner, application] = [`latchkey_owner_${suffix}`, `latchkey_app_${suffix}`];
  const database = `latchkey_test_${suffix}`;
  const urlFor = (user: string | null, name: string) => {
    const url = new URL(inject('postgresUrl'));
    if (user !== null) url.username = user;
    if (user !== null) url.password = '';
    url.pathname = `/${name}`;
    return url.href;
  };
  afterAll(() =>
    runAs(
      inject('postgresUrl'),
      `DROP DATABASE IF EXISTS ${database} WITH (FORCE)`,
      `DROP ROLE IF EXISTS ${owner}`,
      `DROP ROLE IF EXISTS ${application}`,
    ),
  );
  let url = inject('postgresUrl');
  for (const documented of await documentedStatements()) {
    const statement = documented
      .replaceAll('latchkey_owner', owner)
      .replaceAll('latchkey_app', application)
      .replace(/(DATABASE|\\c) latchkey\b/, `$1 ${database}`);
    if (statement.startsWith('\\c')) url = urlFor(null, database);
    // The role of tenants belongs to the whole server, on which other tests have made it.
    else if (!statement.startsWith('CREATE ROLE latchkey_tenant')) await runAs(url, statement);
  }
  return {
    owner,
    application,
    ownerUrl: urlFor(owner, database),
    applicationUrl: urlFor(application, database),
    adminUrl: urlFor(null, database),
  };
}
