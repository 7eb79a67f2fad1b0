import sql from 'sql-template-tag';
import { afterEach, describe, expect, test } from 'vitest';
import type { Database, SqlStatement } from '../src/database/database.js';
import type { Deps } from '../src/domain/deps.js';
import { credentialPlace } from '../src/domain/grant.js';
import { revokePending } from '../src/domain/revocation.js';
import {
  createKeyForgetter,
  deleteTenant as deleteTenantWith,
  finishDeletions,
} from '../src/domain/tenant-deletion.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import { VaultOpenError } from '../src/vault/errors.js';
import { dumpDatabase } from './support/canary.js';
import {
  calls,
  type Connection,
  connectUser,
  createZoomUser,
  disconnect,
  expire,
  health,
  meStatus,
  read,
  spoilRefresh,
} from './support/connections.js';
import { deleteTenant, keyVersions, tenantKey, tenantRowId } from './support/keys.js';
import { startWorkshop } from './support/refresher.js';
import { begin, comeBack, complete, consent, createTenant, registerApp } from './support/story.js';
import { until } from './support/until.js';

const workshop = await startWorkshop();
const { server, createDeps, createRefresher } = workshop;
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

const liveAtZoom = ({ app }: Pick<Connection, 'app'>) =>
  control.grants().filter(({ clientId }) => clientId === app.clientId);

const revocation = async (id: string): Promise<{ total: number; confirmed: number; pending: number }> =>
  (await server.data('query ($id: ID!) { node(id: $id) { ... on Revocation { total confirmed pending } } }', { id }))
    .node;

/** Tables that still hold something of a tenant, but for the audit trail, which outlives it and names nobody. */
async function tablesAbout(owner: string): Promise<(string | undefined)[]> {
  const rows = (await dumpDatabase(server.db)).split('\n').filter((row) => row.includes(owner));
  return rows.map((row) => row.split(':')[0]).filter((table) => table !== 'audit_event' && table !== 'audit_chain');
}

/** The scheduler's job, with no waiting time between the attempts. */
async function revokeNow(): Promise<void> {
  await server.db.query(sql`UPDATE provider_revocation SET next_attempt_at = now()`);
  await revokePending(createDeps());
}

/** A process like any other, whose transactions are watched. */
function watched(watch: (statement: SqlStatement) => Promise<void>): Deps {
  const deps = createDeps();
  const transaction: Database['transaction'] = (run) =>
    deps.db.transaction((tx) => {
      const { query } = tx;
      tx.query = async <Row>(statement: SqlStatement) => {
        await watch(statement);
        return query<Row>(statement);
      };
      return run(tx);
    });
  return { ...deps, db: { ...deps.db, transaction } };
}

describe('a deleted tenant', () => {
  test('is ended at Zoom, loses its keys and every row, and leaves a receipt', async () => {
    const connection = await connectUser(server);
    const { tenantId, app } = connection;
    const second = await connectUser(server, { app, tenantId, userId: 'second' });
    const bystander = await connectUser(server, { app });
    const owner = await tenantRowId(server, tenantId);
    const tokens = [await read(server, connection), await read(server, second)];
    const answer = await deleteTenant(server, tenantId);
    expect(answer).toMatchObject({
      __typename: 'DeleteTenantSuccess',
      tenantDeletion: {
        tenantExternalId: tenantId,
        requestedAt: expect.any(String),
        keysDestroyedAt: expect.any(String),
      },
    });
    const { id, revocation: receipt } = answer.tenantDeletion;
    expect(receipt.total).toBe(2);
    await until(async () => (await revocation(receipt.id)).confirmed === 2);
    expect(await revocation(receipt.id)).toEqual({ total: 2, confirmed: 2, pending: 0 });
    for (const token of tokens) expect(await meStatus(token)).toBe(401);
    expect(liveAtZoom(connection)).toHaveLength(1);
    expect(await keyVersions(server, owner)).toEqual([]);
    const rows = (await dumpDatabase(server.db)).split('\n');
    expect(await tablesAbout(owner)).toEqual(['tenant_deletion']);
    for (const gone of [connection.zoomUserId, second.zoomUserId]) {
      expect(rows.filter((row) => row.includes(gone))).toEqual([]);
    }
    expect(await tenantKey(server, tenantId)).toBeUndefined();
    expect(await read(server, connection)).toMatchObject({ __typename: 'GrantNotFoundError' });
    const { node } = await server.data(
      'query ($id: ID!) { node(id: $id) { ... on TenantDeletion { tenantExternalId } } }',
      {
        id,
      },
    );
    expect(node).toEqual({ tenantExternalId: tenantId });
    expect(await health(server, bystander)).toBe('HEALTHY CONNECTED');
    expect(await meStatus(await read(server, bystander))).toBe(200);
  });

  test('must be named twice, and must exist; otherwise nothing changes', async () => {
    const connection = await connectUser(server);
    expect(await deleteTenant(server, connection.tenantId, 'org_other')).toMatchObject({
      __typename: 'InvalidInputError',
      path: ['input', 'confirm'],
    });
    expect(await deleteTenant(server, 'org_nobody')).toMatchObject({ __typename: 'NotFoundError' });
    expect(await meStatus(await read(server, connection))).toBe(200);
  });

  test('frees its identifier for a new tenant, which sees nothing of the old one', async () => {
    const { tenantId } = await connectUser(server);
    await deleteTenant(server, tenantId);
    await server.data(
      'mutation ($input: CreateTenantInput!) { createTenant(input: $input) { ... on CreateTenantSuccess { tenant { id } } } }',
      { input: { externalId: tenantId } },
    );
    const { tenant } = await server.data(
      `query ($id: String!) { tenant(externalId: $id) {
        key { version } userConnections { totalCount } healthEvents { edges { cursor } } } }`,
      { id: tenantId },
    );
    expect(tenant).toEqual({ key: { version: 1 }, userConnections: { totalCount: 0 }, healthEvents: { edges: [] } });
    expect(await deleteTenant(server, tenantId)).toMatchObject({ tenantDeletion: { revocation: { total: 0 } } });
  });

  test('is still ended at Zoom when Zoom answers only after its keys are gone', async () => {
    const connection = await connectUser(server);
    const { app, tenantId } = connection;
    const before = await connectUser(server, { app, tenantId, userId: 'before' });
    control.addFault({ route: 'revoke', clientId: app.clientId, times: 6, fault: { kind: 'status', status: 503 } });
    // One that was asked for before the deletion, and is sealed with the tenant's key.
    await disconnect(server, before);
    const { tenantDeletion } = await deleteTenant(server, tenantId);
    expect(tenantDeletion.revocation).toMatchObject({ total: 2, confirmed: 0, pending: 2 });
    await until(() => calls(server, connection, 'revoke').length >= 2);
    expect(liveAtZoom(connection)).toHaveLength(2);
    control.clearFaults();
    await until(async () => {
      await revokeNow();
      return (await revocation(tenantDeletion.revocation.id)).pending === 0;
    });
    expect(await revocation(tenantDeletion.revocation.id)).toEqual({ total: 2, confirmed: 2, pending: 0 });
    expect(liveAtZoom(connection)).toEqual([]);
  });
});

describe('what is under way while a tenant is deleted', () => {
  test('a refresh that comes back too late stores nothing, and what Zoom has handed out for it is revoked', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'hang', when: 'after', ms: 800 });
    const refreshing = createRefresher().refresh({ grantId: connection.rowId, tenantId: owner, version: 1 });
    await until(() => calls(server, connection).length === 1);
    const { tenantDeletion } = await deleteTenant(server, connection.tenantId);
    await refreshing.catch(() => undefined);
    await until(async () => {
      await revokeNow();
      return (await revocation(tenantDeletion.revocation.id)).pending === 0 && liveAtZoom(connection).length === 0;
    });
    expect(await tablesAbout(owner)).toEqual(['tenant_deletion']);
  });

  test('a consent that is redeemed too late stores nothing, and its tokens are revoked', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const owner = await tenantRowId(server, tenantId);
    const trip = await begin(server, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id });
    const { connectCode } = await comeBack(trip, await consent(trip, createZoomUser(server)));
    control.addFault({ route: 'users', clientId: app.clientId, fault: { kind: 'hang', when: 'after', ms: 600 } });
    const completing = complete(server, connectCode, 'user_1');
    await until(() => calls(server, { app }, 'users').length === 1);
    expect(await deleteTenant(server, tenantId)).toMatchObject({ tenantDeletion: { revocation: { total: 0 } } });
    expect(await completing).toMatchObject({ message: 'No such tenant exists.' });
    await until(async () => {
      await revokeNow();
      return liveAtZoom({ app }).length === 0;
    });
    expect(await tablesAbout(owner)).toEqual(['tenant_deletion']);
  });

  test('its keys are forgotten by other processes within seconds, though they had them at hand', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    const other = createDeps();
    const forget = createKeyForgetter(other);
    await forget();
    const [row] = await server.db.query<{ sealed: Uint8Array }>(sql`
      SELECT sealed_access_token AS sealed FROM credential WHERE grant_id = ${connection.rowId}::uuid`);
    const place = credentialPlace({ id: connection.rowId, tenantId: owner }, 'sealed_access_token', 1);
    const open = () => other.vault.open(other.db, place, row?.sealed ?? Buffer.alloc(0));
    expect((await open()).reveal()).toContain('ZCANARY');
    await deleteTenant(server, connection.tenantId);
    await forget();
    await expect(open()).rejects.toBeInstanceOf(VaultOpenError);
  });
});

describe('a deletion that is interrupted', () => {
  const STEPS = {
    'before it is stored what it covers': 'INSERT INTO revocation_receipt',
    'before the grants are ended': 'DELETE FROM credential WHERE grant_id',
    'before its queued tokens are handed over': 'FROM provider_revocation WHERE tenant_id',
    'before its keys are destroyed': 'DELETE FROM tenant_key',
    'before its events are removed': 'DELETE FROM health_event',
    'before its grants are removed': 'DELETE FROM provider_grant',
    'before the tenant is removed': 'DELETE FROM tenant WHERE',
  };

  test.each(Object.entries(STEPS))(
    '%s is unknown to the API at once, and finished by any process',
    async (_when, at) => {
      const connection = await connectUser(server);
      const { tenantId, app } = connection;
      const owner = await tenantRowId(server, tenantId);
      const dying = watched(async ({ text }) => {
        if (text.replace(/\s+/g, ' ').includes(at)) throw new Error('killed');
      });
      await expect(deleteTenantWith(dying, { tenantId, confirm: tenantId })).rejects.toThrow();
      expect(await tenantKey(server, tenantId)).toBeUndefined();
      const { tenants } = await server.data('{ tenants(last: 100) { edges { node { externalId } } } }');
      expect(tenants.edges.filter(({ node }: any) => node.externalId.includes(' '))).toEqual([]);
      await Promise.all([finishDeletions(createDeps()), finishDeletions(createDeps())]);
      expect(await tablesAbout(owner)).toEqual(['tenant_deletion']);
      const [deletion] = await server.db.query<{ id: string; done: boolean }>(sql`
      SELECT revocation_id AS id, keys_destroyed_at IS NOT NULL AND completed_at IS NOT NULL AS done
      FROM tenant_deletion WHERE tenant_id = ${owner}::uuid`);
      expect(deletion?.done).toBe(true);
      const id = Buffer.from(`Revocation:${deletion?.id}`).toString('base64url');
      await until(async () => {
        await revokeNow();
        return (await revocation(id)).pending === 0;
      });
      expect(liveAtZoom({ app })).toEqual([]);
    },
  );

  test('is joined by a repeated request', async () => {
    const { tenantId, app } = await connectUser(server);
    const dying = watched(async ({ text }) => {
      if (text.includes('DELETE FROM tenant_key')) throw new Error('killed');
    });
    await expect(deleteTenantWith(dying, { tenantId, confirm: tenantId })).rejects.toThrow('killed');
    const [former] = await server.db.query<{ id: string }>(sql`
      SELECT id FROM tenant_deletion WHERE tenant_external_id = ${tenantId}`);
    const answer = await deleteTenant(server, tenantId);
    expect(Buffer.from(answer.tenantDeletion.id, 'base64url').toString()).toBe(`TenantDeletion:${former?.id}`);
    expect(await deleteTenant(server, tenantId)).toMatchObject({ __typename: 'NotFoundError' });
    const [count] = await server.db.query<{ count: number }>(sql`
      SELECT count(*) AS count FROM tenant_deletion WHERE tenant_external_id = ${tenantId}`);
    expect(count).toEqual({ count: 1 });
    await until(async () => {
      await revokeNow();
      return liveAtZoom({ app }).length === 0;
    });
  });
});
