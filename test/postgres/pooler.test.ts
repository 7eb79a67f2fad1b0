import { randomBytes } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../../src/clock.js';
import { migrationNames } from '../../src/database/migrate.js';
import { openPostgres } from '../../src/database/postgres.js';
import { createLog } from '../../src/log.js';
import { createSandbox } from '../../src/sandbox/sandbox.js';
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
const { owner, ownerUrl, adminUrl } = await createSeparateRoles();
// Here the role that owns the tables does everything, and nothing goes past the pooler.
await runAs(adminUrl, `GRANT latchkey_tenant TO ${owner}`);
const pooler = await startPgbouncer({ url: adminUrl, users: [owner], poolSize: POOL_SIZE });
afterAll(() => pooler.stop());

const settings = {
  DATABASE_URL: pooler.through(ownerUrl),
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
const processes = ['all', 'api', 'api'].map((role) => spawnServer({ ...settings, LATCHKEY_ROLE: role }));
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

test('a connection is made by one process, read and refreshed by another, and its events reach a subscriber of a third', async () => {
  const it = await connectUser(first);
  expect(await read(second, it)).toMatchObject({ __typename: 'Credential', version: 1 });
  await expire(first, it);
  const answers = await Promise.all(clients.flatMap((client) => Array.from({ length: 10 }, () => read(client, it))));
  for (const answer of answers) expect(answer).toMatchObject({ __typename: 'Credential', version: 2 });
  expect(calls(first, it).map(({ outcome }) => outcome)).toEqual(['rotated']);
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
    const ask = 'query ($input: CredentialInput!) { credential(input: $input) { __typename ... on Credential { version } } }';
    expect((await key.graphql(ask, { input: it.input })).data.credential).toMatchObject({ __typename: 'Credential' });
    expect((await key.graphql(ask, { input: other.it.input })).data?.credential?.__typename).not.toBe('Credential');
  };
  const asAll = async () => expect(tenantsIn(await first.data(GRANTS))).toEqual(expect.arrayContaining(all));
  await Promise.all(
    Array.from({ length: 8 }, (_, round) => [asAll(), asAll(), ...sides.map((side) => asTenant(side, round))]).flat(),
  );
});

test('nothing of a session is left on the connections that the pooler lends', async () => {
  await Promise.all(clients.map((client) => client.data('{ providerApps(first: 1) { edges { node { id } } } }')));
  const left = `SELECT (SELECT count(*)::int FROM pg_prepared_statements) AS statements,
    (SELECT count(*)::int FROM pg_cursors) AS cursors, (SELECT count(*)::int FROM pg_listening_channels()) AS channels,
    current_setting('role') AS role, coalesce(current_setting('latchkey.tenant_id', true), '') AS tenant,
    current_setting('statement_timeout') AS "limit"`;
  const lent = Array.from({ length: POOL_SIZE }, () => new pg.Client({ connectionString: pooler.through(ownerUrl) }));
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
    async () => (await runAs(adminUrl, `SELECT FROM pg_locks l JOIN pg_database d ON d.oid = l.database
      WHERE l.locktype = 'advisory' AND d.datname = current_database()`)).length === 0,
  );
});

test('a process that would send named statements or parameters of a session says which setting it needs', async () => {
  const refused = spawnServer({ ...settings, LATCHKEY_PREPARED_STATEMENTS: '1' });
  expect(await refused.exited).toEqual({ code: 1, signal: null });
  expect(refused.output()).toContain('Set LATCHKEY_PREPARED_STATEMENTS=0.');
});
