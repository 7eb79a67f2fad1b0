import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import sql from 'sql-template-tag';
import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { migrationNames } from '../../src/database/migrate.js';
import { openPostgres } from '../../src/database/postgres.js';
import { explain } from '../../src/explain.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
import { runCli } from '../support/cli.js';
import { calls, connectUser, type Connection, disconnect, expire, read } from '../support/connections.js';
import { createSeparateRoles, runAs } from '../support/database-roles.js';
import { startPgbouncer } from '../support/pgbouncer.js';
import { type Caller, createServerKey } from '../support/principals.js';
import { clientOf, spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY, type TestServer } from '../support/server.js';
import { openSse } from '../support/streams.js';
import { until } from '../support/until.js';

const POOL_SIZE = 2;

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
afterAll(() => sandbox.close());
const folder = await mkdtemp(join(tmpdir(), 'latchkey-pooler-'));
afterAll(() => rm(folder, { recursive: true, force: true }));
const { owner, ownerUrl, application, applicationUrl, adminUrl } = await createSeparateRoles();
// One of the processes works as the owner.
await runAs(adminUrl, `GRANT latchkey_tenant TO ${owner}`);
const pooler = await startPgbouncer({ url: adminUrl, users: [owner, application], poolSize: POOL_SIZE });
afterAll(() => pooler.stop());

const settings = {
  LATCHKEY_PREPARED_STATEMENTS: '0',
  LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
  LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
  LATCHKEY_DATA_DIR: folder,
  LATCHKEY_SANDBOX: '0',
  LATCHKEY_EVENT_POLL_MS: '100',
  LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
  ZOOM_OAUTH_URL: sandbox.origin,
  ZOOM_API_URL: `${sandbox.origin}/v2`,
};

// All at once, on a database that has no table yet, with fewer connections to it than processes.
const apart = {
  DATABASE_URL: pooler.through(applicationUrl),
  LATCHKEY_MIGRATION_DATABASE_URL: pooler.through(ownerUrl),
};
const processes = [
  spawnServer({ ...settings, ...apart, LATCHKEY_ROLE: 'all' }),
  spawnServer({ ...settings, ...apart, LATCHKEY_ROLE: 'api' }),
  spawnServer({ ...settings, DATABASE_URL: pooler.through(ownerUrl), LATCHKEY_ROLE: 'api' }),
];
await Promise.all(processes.map(({ listening }) => listening));
const db = await openPostgres({ connectionString: ownerUrl, log: createLog('silent') });
afterAll(() => db.close());
const clients = await Promise.all(processes.map((process) => clientOf(process, { sandbox, db })));
const [first, second, third] = clients as [TestServer, TestServer, TestServer];

test('three processes that start at once behind a pooler on an empty database migrate it once', async () => {
  const rows = await runAs(
    adminUrl,
    `SELECT migration_name AS name FROM _prisma_migrations
     WHERE finished_at IS NOT NULL AND rolled_back_at IS NULL ORDER BY name`,
  );
  expect(rows.map(({ name }) => name)).toEqual(await migrationNames());
  expect(await runAs(adminUrl, 'SELECT count(*)::int FROM _prisma_migrations')).toEqual([{ count: rows.length }]);
});

let it: Connection;

test('a connection that one process makes is read by all, which refresh it once', async () => {
  it = await connectUser(first);
  expect(await read(second, it)).toMatchObject({ __typename: 'Credential', version: 1 });
  await expire(first, it);
  const answers = await Promise.all(clients.flatMap((client) => Array.from({ length: 4 }, () => read(client, it))));
  for (const answer of answers) expect(answer).toMatchObject({ __typename: 'Credential', version: 2 });
  expect(calls(first, it).map(({ outcome }) => outcome)).toEqual(['rotated']);
});

test('an event of one process reaches a subscriber of another', async () => {
  const stream = await openSse(third.url, 'subscription ($g: ID!) { healthChanged(grantId: $g) { current reason } }', {
    variables: { g: it.id },
  });
  const next = stream.next();
  // What is subscribed is told nothing of what was before.
  await new Promise((resolve) => setTimeout(resolve, 300));
  await disconnect(first, it);
  expect((await next)?.data).toEqual({ healthChanged: { current: 'REVOKED', reason: 'DISCONNECTED' } });
  await stream.close();
});

const GRANTS = '{ userConnections(first: 50) { edges { node { externalUserId tenant { externalId } } } } }';

test('keys of several tenants, and one of all, see what is theirs and nothing else, while they share two connections', async () => {
  const sides = await Promise.all(
    [0, 1, 2, 3].map(async (index): Promise<{ it: Connection; keys: Caller[] }> => {
      const it = await connectUser(first, { userId: `user_of_${index}` });
      const input = { permissions: ['CONNECTIONS_READ', 'CREDENTIALS_READ'], tenantId: it.tenantId };
      return { it, keys: [await createServerKey(second, input), await createServerKey(third, input)] };
    }),
  );
  const all = sides.map(({ it }) => it.tenantId).toSorted();
  const tenantsIn = (data: any): string[] =>
    data.userConnections.edges.map(({ node }: any) => node.tenant.externalId).toSorted();
  const asTenant = async ({ it, keys }: (typeof sides)[number], round: number) => {
    const key = keys[round % keys.length]!;
    expect(tenantsIn(await key.data(GRANTS))).toEqual([it.tenantId]);
    const other = sides.find((side) => side.it !== it)!;
    const ask =
      'query ($input: CredentialInput!) { credential(input: $input) { __typename ... on Credential { version } } }';
    expect((await key.graphql(ask, { input: it.input })).data.credential).toMatchObject({ __typename: 'Credential' });
    expect((await key.graphql(ask, { input: other.it.input })).data?.credential?.__typename).not.toBe('Credential');
  };
  const asAll = async () => expect(tenantsIn(await first.data(GRANTS))).toEqual(expect.arrayContaining(all));
  await Promise.all(
    Array.from({ length: 5 }, (_, round) => [asAll(), asAll(), ...sides.map((side) => asTenant(side, round))]).flat(),
  );
});

test('nothing of a session is left on the connections that the pooler lends', async () => {
  await Promise.all(clients.map((client) => client.data('{ providerApps(first: 1) { edges { node { id } } } }')));
  const left = `SELECT (SELECT count(*)::int FROM pg_prepared_statements) AS statements,
    (SELECT count(*)::int FROM pg_cursors) AS cursors, (SELECT count(*)::int FROM pg_listening_channels()) AS channels,
    current_setting('role') AS role, coalesce(current_setting('latchkey.tenant_id', true), '') AS tenant,
    current_setting('statement_timeout') AS "limit"`;
  const lent = Array.from(
    { length: POOL_SIZE },
    () => new pg.Client({ connectionString: pooler.through(applicationUrl) }),
  );
  await Promise.all(lent.map((client) => client.connect()));
  try {
    // Each holds one of them until all have looked.
    const seen = await Promise.all(
      lent.map(async (client) => {
        await client.query('BEGIN');
        return (await client.query(left)).rows[0] as unknown;
      }),
    );
    const nothing = { statements: 0, cursors: 0, channels: 0, role: 'none', tenant: '', limit: '0' };
    expect(seen).toEqual(lent.map(() => nothing));
  } finally {
    await Promise.all(lent.map((client) => client.end()));
  }
  await until(
    async () =>
      (
        await runAs(
          adminUrl,
          `SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
      WHERE l.locktype = 'advisory' AND d.datname = current_database()`,
        )
      ).length === 0,
  );
});

test('without the setting a start says which one it needs', async () => {
  const unset = await openPostgres({ connectionString: pooler.through(ownerUrl), log: createLog('silent') });
  const error: unknown = await unset.query(sql`SELECT 1`).catch((reason: unknown) => reason);
  await unset.close();
  expect(explain(error)).toContain('Set LATCHKEY_PREPARED_STATEMENTS=0.');
});

test('the doctor comes through the pooler, and finds that the role can do no more than it needs', async () => {
  const { checks } = (await runCli(['doctor', '--json'], { ...settings, ...apart })).json();
  const found = (checks as { check: string }[]).filter(({ check }) => /^(database|migrations|deployment)/.test(check));
  expect(found).toMatchObject([
    { check: 'database', status: 'passed' },
    { status: 'passed', detail: `${application} owns nothing and changes no more than rows` },
    { status: 'passed', detail: `${owner} owns and migrates the tables` },
    { check: 'migrations', status: 'passed' },
    { check: 'deployment', status: 'passed' },
  ]);
});

/** SQLSTATE of what the application's role is refused. */
const refusal = (statement: string) =>
  runAs(applicationUrl, statement).then(
    () => 'nothing was refused',
    (error: { code?: unknown }) => error.code,
  );

test.each([
  ['change tables', ['ALTER TABLE credential ADD COLUMN x int', 'ALTER TABLE credential DISABLE ROW LEVEL SECURITY']],
  [
    'drop tables, policies and triggers',
    [
      'DROP TABLE rate_usage',
      'DROP POLICY tenant ON credential',
      'DROP TRIGGER audit_event_append_only ON audit_event',
      'ALTER TABLE audit_event DISABLE TRIGGER ALL',
      'SET session_replication_role = replica',
    ],
  ],
  [
    'create tables, indexes, functions and triggers',
    [
      'CREATE TABLE public.x (id int)',
      'CREATE TEMPORARY TABLE x (id int)',
      'CREATE SCHEMA x',
      'CREATE INDEX ON credential (version)',
      "CREATE FUNCTION public.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
      'CREATE TRIGGER x BEFORE INSERT ON credential FOR EACH ROW EXECUTE FUNCTION keep_tenant()',
      'CREATE ROLE latchkey_x',
    ],
  ],
  ['truncate', ['TRUNCATE rate_usage', 'TRUNCATE audit_event', 'TRUNCATE tenant CASCADE']],
  [
    'change or remove audit events, chains and receipts',
    [
      "UPDATE audit_event SET action = 'x'",
      'DELETE FROM audit_event',
      'SELECT FROM audit_event FOR UPDATE',
      'DELETE FROM audit_chain',
      'DELETE FROM audit_key',
      'DELETE FROM deauthorization_receipt',
      'DELETE FROM revocation_receipt',
      'DELETE FROM tenant_deletion',
    ],
  ],
  [
    'change which migrations and root keys there are',
    [
      'DELETE FROM _prisma_migrations',
      "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('x', 'x', 'x')",
      'DELETE FROM root_key',
      "UPDATE root_key SET check_value = ''",
    ],
  ],
  ['become the owner', [`SET ROLE ${owner}`]],
])('the role that the server works as cannot %s', async (_what, statements) => {
  expect(await Promise.all(statements.map(async (statement) => [statement, await refusal(statement)]))).toEqual(
    statements.map((statement) => [statement, '42501']),
  );
});

test('retention takes from the audit trail what is older than a day and behind the anchor of its chain, and nothing else', async () => {
  const prune = () => runAs(applicationUrl, 'SELECT prune_audit_events(1000) AS count');
  const chain = `(SELECT chain_id FROM audit_event GROUP BY 1 HAVING count(*) > 2 LIMIT 1)`;
  const age = (days: number, sequence: number) =>
    `UPDATE audit_event SET recorded_at = now() - interval '${days} days' WHERE chain_id = ${chain} AND sequence = ${sequence}`;
  expect(await prune()).toEqual([{ count: 0 }]);
  await runAs(
    adminUrl,
    // Triggers are not fired for what follows.
    'SET session_replication_role = replica',
    age(40, 1),
    age(40, 3),
    `UPDATE audit_chain SET anchor_sequence = 2 WHERE id = ${chain}`,
  );
  expect(await prune()).toEqual([{ count: 1 }]);
  expect(await prune()).toEqual([{ count: 0 }]);
  for (const url of [ownerUrl, applicationUrl]) {
    const call = `SET ROLE latchkey_tenant; SELECT prune_audit_events(1)`;
    await expect(runAs(url, call)).rejects.toMatchObject({ code: '42501' });
  }
});

test('a grant or policy that the role has lost, or has too much, is put right by the next start', async () => {
  const policy = "(SELECT polname FROM pg_policy WHERE polname LIKE 'application%' LIMIT 1)";
  const [name] = await runAs(adminUrl, `SELECT ${policy} AS policy`);
  await runAs(
    adminUrl,
    `REVOKE ALL ON credential FROM ${application}`,
    `GRANT ALL ON audit_event TO ${application}`,
    `GRANT UPDATE (check_value) ON root_key TO ${application}`,
    `DROP POLICY ${String(name?.['policy'])} ON provider_grant`,
  );
  const options = { connectionString: applicationUrl, migrationUrl: ownerUrl, log: createLog('silent') };
  const again = await openPostgres(options);
  try {
    const [count] = await again.query<{ grants: number; credentials: number }>(sql`
      SELECT (SELECT count(*) FROM provider_grant) AS grants, (SELECT count(*) FROM credential) AS credentials`);
    expect(count?.grants).toBeGreaterThan(1);
    expect(count?.credentials).toBeGreaterThan(1);
    expect(await refusal('DELETE FROM audit_event')).toBe('42501');
    expect(await refusal('TRUNCATE audit_event')).toBe('42501');
    expect(await refusal("UPDATE root_key SET check_value = ''")).toBe('42501');
  } finally {
    await again.close();
  }
});

test('a URL for migrations that leads to another database or schema keeps a server from starting', async () => {
  const open = (change: (url: URL) => void) => {
    const url = new URL(ownerUrl);
    change(url);
    return openPostgres({ connectionString: applicationUrl, migrationUrl: url.href, log: createLog('silent') });
  };
  await expect(open((url) => (url.pathname = '/postgres'))).rejects.toThrow('names another database than DATABASE_URL');
  await runAs(adminUrl, `CREATE SCHEMA elsewhere AUTHORIZATION ${owner}`);
  const elsewhere = open((url) => url.searchParams.set('options', '-c search_path=elsewhere'));
  await expect(elsewhere).rejects.toThrow('names another schema');
  expect(await runAs(adminUrl, `SELECT FROM pg_class WHERE relnamespace = 'elsewhere'::regnamespace`)).toEqual([]);
});
