import sql from 'sql-template-tag';
import { expect, inject, test } from 'vitest';
import { openPostgres } from '../../src/database/postgres.js';
import type { Database } from '../../src/database/database.js';
import { adoptDatabase, DeploymentAliveError } from '../../src/domain/adoption.js';
import { createLog } from '../../src/log.js';
import { calls, type Connection, connectUser, expire, health, events, makeDue, read } from '../support/connections.js';
import { restoreBackup } from '../support/database.js';
import { SHARED_ROOT_KEY, startSecondServer } from '../support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY, type TestServer } from '../support/server.js';
import { registerApp } from '../support/story.js';
import { until } from '../support/until.js';

const QUIET = { LATCHKEY_PROBE_INTERVAL_SECONDS: '0' };
const NO_NAMES = { deploymentId: null, publicUrl: null };

async function urlOf(db: Database): Promise<string> {
  const [row] = await db.query<{ name: string }>(sql`SELECT current_database() AS name`);
  const url = new URL(inject('postgresUrl'));
  url.pathname = `/${row?.name}`;
  return url.href;
}

/** A server of everything on another database, at the same provider, as a client of it sees it. */
async function startOn(databaseUrl: string, production: TestServer, settings: Record<string, string> = {}) {
  const db = await openPostgres({ connectionString: databaseUrl, log: createLog('silent') });
  const { url, logs, close } = await startSecondServer(db, {
    LATCHKEY_ROLE: 'all',
    ZOOM_OAUTH_URL: production.sandbox.origin,
    ZOOM_API_URL: `${production.sandbox.origin}/v2`,
    LATCHKEY_MEETING_LIST_INTERVAL_SECONDS: '0',
    ...settings,
  });
  const graphql: TestServer['graphql'] = async (query, variables) => {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}` },
      body: JSON.stringify({ query, variables }),
    });
    return { status: response.status, headers: response.headers, ...((await response.json()) as any) };
  };
  const server: TestServer = {
    ...production,
    url,
    db,
    logs,
    graphql,
    data: async (query, variables) => (await graphql(query, variables)).data,
    close: async () => {
      await close();
      await db.close();
    },
  };
  return server;
}

const readyz = async ({ url }: { url: string }) => (await fetch(`${url}/readyz`)).json();
const requests = ({ sandbox }: TestServer) => sandbox.control.journal().length;

const REFRESH = `mutation ($input: RefreshGrantInput!) { refreshGrant(input: $input) { __typename } }`;
const REVOKE = `mutation ($input: RevokeGrantInput!) { revokeGrant(input: $input) { __typename } }`;
const IMPORT = `mutation ($input: ImportGrantInput!) { importGrant(input: $input) { __typename } }`;

test('a clone beside production asks nothing of the provider until it is adopted, and production goes on', async () => {
  const production = await startTestServer({
    LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY,
    LATCHKEY_DEPLOYMENT_ID: 'production',
  });
  const stranger = await startSecondServer(production.db, { LATCHKEY_DEPLOYMENT_ID: 'staging' });
  expect(await readyz(stranger)).toEqual({ ready: false, quarantined: true });
  const staging = { deploymentId: 'staging', publicUrl: null };
  await expect(adoptDatabase(production.db, staging)).rejects.toThrow(DeploymentAliveError);
  expect(await readyz(production)).toEqual({ ready: true });
  const app = await registerApp(production, 'USER_MANAGED');
  const [valid, expired, revoked] = [
    await connectUser(production, { app }),
    await connectUser(production, { app }),
    await connectUser(production, { app }),
  ];
  const clone = await startOn(await restoreBackup(await urlOf(production.db)), production, {
    LATCHKEY_PROBE_INTERVAL_SECONDS: '1',
  });
  expect(await readyz(clone)).toEqual({ ready: false, quarantined: true });
  expect(clone.logs.join('')).toMatch(/"reason":"other_database".*quarantine/);

  const before = requests(production);
  await expire(clone, expired);
  await makeDue(clone, valid, expired);
  await clone.db.query(sql`UPDATE credential SET next_probe_at = now()`);
  expect(await read(clone, valid)).toMatchObject({ __typename: 'Credential' });
  expect(await read(clone, expired)).toMatchObject({ __typename: 'ProviderUnavailableError' });
  const refresh = await clone.data(REFRESH, { input: { id: valid.id } });
  expect(refresh.refreshGrant.__typename).toBe('ProviderUnavailableError');
  const input = { tenantId: valid.tenantId, userId: 'imported', appId: app.id, refreshToken: 'made-up-refresh-token' };
  const imported = await clone.data(IMPORT, { input });
  expect(imported.importGrant.__typename).toBe('ProviderUnavailableError');
  await clone.data(REVOKE, { input: { id: revoked.id } });
  // Long enough for the jobs that refresh, probe and revoke to have had their turn.
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(requests(production)).toBe(before);
  expect(await health(clone, expired)).toBe('HEALTHY CONNECTED');
  expect(await events(clone, valid)).toEqual(['CONNECTED']);

  await until(async () => ((await readyz(production)) as { ready: boolean }).ready);
  await expire(production, expired);
  expect(await read(production, expired)).toMatchObject({ __typename: 'Credential' });

  await expect(adoptDatabase(clone.db, NO_NAMES)).rejects.toThrow(DeploymentAliveError);
  await production.close();
  await clone.close();
});

async function issuedLast(db: Database, { rowId }: Connection): Promise<void> {
  await db.query(sql`UPDATE credential SET issued_at = now() WHERE grant_id = ${rowId}::uuid`);
}

test('restored and adopted, one refresh goes first; of an app whose first one works all others follow', async () => {
  const production = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY, ...QUIET });
  const app = await registerApp(production, 'USER_MANAGED');
  const [replaced, fresh, last] = [
    await connectUser(production, { app }),
    await connectUser(production, { app }),
    await connectUser(production, { app }),
  ];
  await issuedLast(production.db, last);
  const backup = await restoreBackup(await urlOf(production.db));
  await until(async () => ((await readyz(production)) as { ready: boolean }).ready);
  await expire(production, replaced);
  await read(production, replaced);
  const before = calls(production, { app }).length;
  const restored = await startOn(backup, production, QUIET);
  await expire(restored, replaced, fresh, last);
  await makeDue(restored, replaced, fresh, last);

  expect(await adoptDatabase(restored.db, NO_NAMES, { force: true })).toMatchObject({
    adopted: true,
    mismatch: 'other_database',
    canaries: 1,
  });
  await until(async () => calls(production, { app }).length === before + 3);
  const order = calls(production, { app }).slice(before);
  expect(order.filter(({ status }) => status === 200)).toHaveLength(2);
  expect(order[0]?.status).toBe(200);
  await until(async () => (await health(restored, replaced)) === 'REAUTHORIZATION_REQUIRED GRANT_REJECTED');
  expect(await read(restored, last)).toMatchObject({ __typename: 'Credential' });
  expect(await read(restored, fresh)).toMatchObject({ __typename: 'Credential' });
  expect(await readyz(restored)).toEqual({ ready: true });
  expect(await adoptDatabase(restored.db, NO_NAMES)).toMatchObject({ adopted: false });
  // A snapshot that took its origin's place bears no mark of it; the operator knows.
  const told = await adoptDatabase(restored.db, NO_NAMES, { restored: true, force: true });
  expect(told).toMatchObject({ adopted: true, mismatch: null, canaries: 1 });
  await restored.close();
});

test('where the first three are refused, no other token of the app is sent', async () => {
  const production = await startTestServer({ LATCHKEY_ROOT_KEY: SHARED_ROOT_KEY, ...QUIET });
  const app = await registerApp(production, 'USER_MANAGED');
  const connections: Connection[] = [];
  for (let count = 0; count < 5; count += 1) connections.push(await connectUser(production, { app }));
  const backup = await restoreBackup(await urlOf(production.db));
  await until(async () => ((await readyz(production)) as { ready: boolean }).ready);
  for (const connection of connections) {
    await expire(production, connection);
    await read(production, connection);
  }
  const before = calls(production, { app }).length;
  const restored = await startOn(backup, production, QUIET);
  await expire(restored, ...connections);
  await makeDue(restored, ...connections);
  await adoptDatabase(restored.db, NO_NAMES, { force: true });
  await until(() => restored.logs.join('').includes('refreshes of a provider app are held'));
  await new Promise((resolve) => setTimeout(resolve, 1_200));
  expect(calls(production, { app }).length - before).toBe(3);
  await restored.close();
});
