import { readdir } from 'node:fs/promises';
import sql from 'sql-template-tag';
import { afterEach, describe, expect, test } from 'vitest';
import type { Database, SqlStatement } from '../src/database/database.js';
import type { Deps } from '../src/domain/deps.js';
import { resealStale } from '../src/domain/reseal.js';
import { SEALED_TABLES } from '../src/domain/sealed-column.js';
import { revokePending } from '../src/domain/revocation.js';
import { rotateSystemKey, tendKeys } from '../src/domain/tenant-key.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import { inspectEnvelope } from '../src/vault/envelope.js';
import {
  ask,
  calls,
  type Connection,
  connectUser,
  disconnect,
  endWait,
  expire,
  health,
  meStatus,
  read,
  spoilRefresh,
  stored,
} from './support/connections.js';
import { endKeyGrace, keyVersions, rotateTenantKey, tenantKey, tenantRowId } from './support/keys.js';
import { startWorkshop } from './support/refresher.js';
import { begin, comeBack, complete, consent, createTenant, registerApp, sandboxUser } from './support/story.js';
import { until } from './support/until.js';

const workshop = await startWorkshop();
const { server, folder, createDeps, createRefresher } = workshop;
const { control } = server.sandbox;

afterEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearFaults();
});

/** The versions that the ciphertexts of a connection name, and the one that its row does. */
async function sealedWith({ rowId }: Connection): Promise<number[]> {
  const [row] = await server.db.query<{ access: Uint8Array; refresh: Uint8Array; keyVersion: number }>(sql`
    SELECT sealed_access_token AS access, sealed_refresh_token AS refresh, key_version AS "keyVersion"
    FROM credential WHERE grant_id = ${rowId}::uuid`);
  if (row === undefined) throw new Error('The credential is gone.');
  return [inspectEnvelope(row.access).keyVersion, inspectEnvelope(row.refresh).keyVersion, row.keyVersion];
}

/** A process like any other, whose statements are watched. */
function watched(watch: (statement: SqlStatement, pass: Database['query']) => Promise<unknown>): Deps {
  const deps = createDeps();
  const query: Database['query'] = (statement) => watch(statement, deps.db.query) as Promise<never>;
  return { ...deps, db: { ...deps.db, query } };
}

const isReplacing = ({ text }: SqlStatement) => text.includes('WITH free AS');

/** Works the background job off. */
async function tend(deps: Deps = createDeps()): Promise<void> {
  while (await tendKeys(deps));
}

describe('a rotated tenant key', () => {
  test('seals at once, and the API tells how much is still sealed under the version before', async () => {
    const connection = await connectUser(server);
    const { tenantId } = connection;
    await connectUser(server, { app: connection.app, tenantId, userId: 'other' });
    expect(await tenantKey(server, tenantId)).toMatchObject({ version: 1, pendingReseal: 0 });
    expect(await rotateTenantKey(server, tenantId)).toMatchObject({
      __typename: 'RotateTenantKeySuccess',
      tenantKey: { version: 2, createdAt: expect.any(String), pendingReseal: 4 },
    });
    const later = await connectUser(server, { app: connection.app, tenantId, userId: 'later' });
    expect(await sealedWith(later)).toEqual([2, 2, 2]);
    expect(await sealedWith(connection)).toEqual([1, 1, 1]);
    expect(await meStatus(await read(server, connection))).toBe(200);
    await tend();
    expect(await tenantKey(server, tenantId)).toMatchObject({ version: 2, pendingReseal: 0 });
    expect(await sealedWith(connection)).toEqual([2, 2, 2]);
    expect(await meStatus(await read(server, connection))).toBe(200);
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
  });

  test('of an unknown tenant is not found', async () => {
    expect(await rotateTenantKey(server, 'org_nobody')).toMatchObject({ __typename: 'NotFoundError' });
  });

  test('leaves the secrets of other tenants as they are, to the byte', async () => {
    const [rotated, bystander] = [await connectUser(server), await connectUser(server)];
    const bytes = () =>
      server.db.query(sql`SELECT md5(c::text) AS row FROM credential c WHERE grant_id = ${bystander.rowId}::uuid`);
    const before = await bytes();
    await rotateTenantKey(server, rotated.tenantId);
    await tend();
    expect(await sealedWith(rotated)).toEqual([2, 2, 2]);
    expect(await bytes()).toEqual(before);
  });

  test('is one new version, however many processes rotate it at once, and all are told of it', async () => {
    const tenantId = await tenantRowId(server, await createTenant(server));
    const versions = await Promise.all(
      Array.from({ length: 8 }, () => createDeps().vault.rotateKey(server.db, tenantId)),
    );
    const highest = Math.max(...versions.map(({ version }) => version));
    expect(await keyVersions(server, tenantId)).toEqual(Array.from({ length: highest }, (_, at) => at + 1));
    const active = await server.db.query(sql`SELECT version FROM tenant_key WHERE owner = ${tenantId} AND active`);
    expect(active).toEqual([{ version: highest }]);
    expect(await createDeps().vault.rotateKey(server.db, tenantId)).toEqual({ version: highest + 1 });
  });

  test('reaches a trip that is under way, which ends as it would have', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const trip = await begin(server, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id });
    const { connectCode } = await comeBack(trip, await consent(trip, sandboxUser(server, 'Member').id));
    await rotateTenantKey(server, tenantId);
    expect((await tenantKey(server, tenantId))?.pendingReseal).toBe(2);
    await tend();
    expect((await tenantKey(server, tenantId))?.pendingReseal).toBe(0);
    expect(await complete(server, connectCode, 'user_1')).toMatchObject({ status: 'COMPLETED' });
  });

  test('reaches what waits to be revoked', async () => {
    const connection = await connectUser(server);
    const { tenantId } = connection;
    const owner = await tenantRowId(server, tenantId);
    control.addFault({
      route: 'revoke',
      clientId: connection.app.clientId,
      times: 9,
      fault: { kind: 'status', status: 503 },
    });
    await disconnect(server, connection);
    await rotateTenantKey(server, tenantId);
    expect((await tenantKey(server, tenantId))?.pendingReseal).toBe(1);
    await tend();
    expect((await tenantKey(server, tenantId))?.pendingReseal).toBe(0);
    const [queued] = await server.db.query<{ keyVersion: number }>(sql`
      SELECT key_version AS "keyVersion" FROM provider_revocation WHERE tenant_id = ${owner}::uuid`);
    expect(queued).toEqual({ keyVersion: 2 });
    control.clearFaults();
    await until(async () => {
      await server.db.query(sql`UPDATE provider_revocation SET next_attempt_at = now()`);
      await revokePending(createDeps());
      return (
        (await server.db.query(sql`SELECT id FROM provider_revocation WHERE tenant_id = ${owner}::uuid`)).length === 0
      );
    });
    expect(control.grants().filter(({ clientId }) => clientId === connection.app.clientId)).toEqual([]);
  });
});

describe('sealing anew', () => {
  test('knows every sealed column of the database', async () => {
    const columns = await server.db.query<{ name: string }>(sql`
      SELECT table_name || '.' || column_name AS name FROM information_schema.columns
      WHERE table_schema = 'public' AND column_name LIKE 'sealed%' ORDER BY name`);
    const known = SEALED_TABLES.flatMap((table) => table.columns.map((column) => `${table.name}.${column}`));
    expect(known.toSorted()).toEqual(columns.map(({ name }) => name).toSorted());
  });

  test('disturbs no refresh that is under way: it commits, and once its answer is stored only that counts', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'hang', when: 'after', ms: 2_000 });
    const deps = createDeps();
    const refreshing = createRefresher(deps).refresh({
      grantId: connection.rowId,
      tenantId: await tenantRowId(server, connection.tenantId),
      version: 1,
    });
    await until(() => calls(server, connection).length === 1);
    await rotateTenantKey(server, connection.tenantId);
    await tend();
    expect(await sealedWith(connection)).toEqual([2, 2, 2]);
    expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'REFRESHING' });
    expect(await refreshing).toEqual({ kind: 'refreshed' });
    expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE', failures: 0 });
    // It was sealed with the version that was active when it began.
    expect(await sealedWith(connection)).toEqual([1, 1, 1]);
    await tend();
    expect(await sealedWith(connection)).toEqual([2, 2, 2]);
    expect(await meStatus(await read(server, connection))).toBe(200);
    expect(calls(server, connection)).toHaveLength(1);
  });

  test('overwrites nothing that was stored since it read: neither a refresh nor a consent', async () => {
    const refreshed = await connectUser(server);
    const { tenantId, app } = refreshed;
    const again = await connectUser(server, { app, tenantId, userId: 'again' });
    await rotateTenantKey(server, tenantId);
    let meanwhile = true;
    const deps = watched(async (statement, pass) => {
      if (isReplacing(statement) && meanwhile) {
        meanwhile = false;
        expect(await ask(server, 'refreshGrant', refreshed)).toMatchObject({
          grant: { credentialInfo: { version: 2 } },
        });
        await connectUser(server, { app, tenantId, userId: 'again', zoomUserId: again.zoomUserId });
      }
      return pass(statement);
    });
    await resealStale(deps);
    for (const connection of [refreshed, again]) {
      expect(await stored(server, connection)).toMatchObject({ version: 2 });
      expect(await meStatus(await read(server, connection))).toBe(200);
      await expire(server, connection);
      expect(await read(server, connection)).toMatchObject({ version: 3, warning: null });
    }
    expect(calls(server, refreshed)).toHaveLength(3);
  });

  test('goes on where a process died in the middle of it', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const connections = [];
    for (const userId of ['a', 'b', 'c']) connections.push(await connectUser(server, { app, tenantId, userId }));
    await rotateTenantKey(server, tenantId);
    const dying = watched(async (statement, pass) => {
      if (!isReplacing(statement)) return pass(statement);
      throw new Error('killed');
    });
    await expect(resealStale(dying)).rejects.toThrow('killed');
    for (const connection of connections) expect(await meStatus(await read(server, connection))).toBe(200);
    const answerLost = watched(async (statement, pass) => {
      await pass(statement);
      if (isReplacing(statement)) throw new Error('killed');
      return pass(statement);
    });
    await expect(resealStale(answerLost)).rejects.toThrow('killed');
    await tend();
    for (const connection of connections) {
      expect(await sealedWith(connection)).toEqual([2, 2, 2]);
      expect(await meStatus(await read(server, connection))).toBe(200);
    }
  });

  test('may be done by two processes at once, while others read and refresh', async () => {
    const app = await registerApp(server, 'USER_MANAGED');
    const tenantId = await createTenant(server);
    const connections: Connection[] = [];
    for (const userId of ['a', 'b', 'c', 'd']) connections.push(await connectUser(server, { app, tenantId, userId }));
    const [first, second] = [createDeps(), createDeps()];
    let working = true;
    const reading = (async () => {
      for (let turn = 0; working; turn += 1) {
        for (const connection of connections) {
          expect(await read(server, connection)).toMatchObject({ __typename: 'Credential', warning: null });
          if (turn % 3 === 0) await ask(server, 'refreshGrant', connection);
        }
      }
    })();
    try {
      for (let turn = 0; turn < 5; turn += 1) {
        await rotateTenantKey(server, tenantId);
        await Promise.all([tend(first), tend(second)]);
      }
    } finally {
      working = false;
      await reading;
    }
    await until(async () => {
      await tend(first);
      return (await tenantKey(server, tenantId))?.pendingReseal === 0;
    });
    for (const connection of connections) {
      expect(await sealedWith(connection)).toEqual([6, 6, 6]);
      expect(await health(server, connection)).toBe('HEALTHY CONNECTED');
      expect(await meStatus(await read(server, connection))).toBe(200);
    }
  });

  test('leaves a secret that does not open, and the key that it names, where they are', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    await server.db.query(sql`
      UPDATE credential SET sealed_access_token = set_byte(sealed_access_token, 100, 255 - get_byte(sealed_access_token, 100))
      WHERE grant_id = ${connection.rowId}::uuid`);
    await rotateTenantKey(server, connection.tenantId);
    await tend();
    await endKeyGrace(server, owner);
    await tend();
    expect((await tenantKey(server, connection.tenantId))?.pendingReseal).toBe(2);
    expect(await keyVersions(server, owner)).toEqual([1, 2]);
    expect(server.logs.some((line) => line.includes('does not open and cannot be sealed anew'))).toBe(true);
  });
});

describe('a superseded version of a key', () => {
  test('is destroyed when nothing has needed it for the time of grace, and not before', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    await rotateTenantKey(server, connection.tenantId);
    await tend();
    await tend();
    expect(await keyVersions(server, owner)).toEqual([1, 2]);
    await endKeyGrace(server, owner);
    await tend();
    expect(await keyVersions(server, owner)).toEqual([2]);
    expect(await meStatus(await read(server, connection))).toBe(200);
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
  });

  test('is kept while a refresh from before the rotation is in doubt, or was lost: its answer may lie on a disk', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    await expire(server, connection);
    spoilRefresh(server, connection, { kind: 'drop', when: 'after' });
    await read(server, connection);
    expect(await stored(server, connection)).toMatchObject({ state: 'IN_DOUBT' });
    await rotateTenantKey(server, connection.tenantId);
    await tend();
    await endKeyGrace(server, owner);
    await tend();
    expect(await keyVersions(server, owner)).toEqual([1, 2]);
    await endWait(server, connection);
    await read(server, connection);
    expect(await health(server, connection)).toBe('REAUTHORIZATION_REQUIRED ROTATION_LOST');
    await tend();
    expect(await keyVersions(server, owner)).toEqual([1, 2]);
    await connectUser(server, connection);
    await tend();
    expect(await keyVersions(server, owner)).toEqual([2]);
  });

  test('cannot be removed by anybody while a credential is sealed with it', async () => {
    const connection = await connectUser(server);
    const owner = await tenantRowId(server, connection.tenantId);
    await rotateTenantKey(server, connection.tenantId);
    await expect(server.db.query(sql`DELETE FROM tenant_key WHERE owner = ${owner} AND version = 1`)).rejects.toThrow();
    expect(await meStatus(await read(server, connection))).toBe(200);
  });

  test('still opens what lay on the disk of a process that died, and that is stored under the new one', async () => {
    const connection = await connectUser(server);
    await expire(server, connection);
    const deps = createDeps();
    const dying = createRefresher({
      ...deps,
      db: {
        ...deps.db,
        transaction: async () => {
          throw new Error('killed');
        },
      },
    });
    const seen = { grantId: connection.rowId, tenantId: await tenantRowId(server, connection.tenantId), version: 1 };
    const attempt = dying.refresh(seen).catch(() => 'died');
    await until(async () => (await readdir(folder).catch(() => [])).some((file) => file.endsWith('.spool')));
    await rotateTenantKey(server, connection.tenantId);
    await tend();
    await createRefresher().replay({ all: true });
    expect(await stored(server, connection)).toMatchObject({ version: 2, state: 'IDLE' });
    expect(await sealedWith(connection)).toEqual([2, 2, 2]);
    expect(await meStatus(await read(server, connection))).toBe(200);
    await Promise.all([dying.drain(), attempt]);
  });
});

describe('the rotated system key', () => {
  test('seals the secrets of apps anew, which go on working, and the version before goes when nothing needs it', async () => {
    const connection = await connectUser(server);
    const before = await keyVersions(server, 'system');
    await rotateSystemKey(createDeps());
    await tend();
    const [app] = await server.db.query<{ client: Uint8Array; webhook: Uint8Array }>(sql`
      SELECT sealed_client_secret AS client, sealed_webhook_secret AS webhook FROM provider_app
      WHERE client_id = ${connection.app.clientId}`);
    const newest = (before.at(-1) ?? 0) + 1;
    expect([app?.client, app?.webhook].map((sealed) => inspectEnvelope(sealed ?? Buffer.alloc(0)).keyVersion)).toEqual([
      newest,
      newest,
    ]);
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2, warning: null });
    await endKeyGrace(server, 'system');
    await tend();
    expect(await keyVersions(server, 'system')).toEqual([newest]);
    await expire(server, connection);
    await createRefresher().refresh({
      grantId: connection.rowId,
      tenantId: await tenantRowId(server, connection.tenantId),
      version: 2,
    });
    expect(await stored(server, connection)).toMatchObject({ version: 3 });
  });

  test('is rotated by itself once it is a year old', async () => {
    const before = await keyVersions(server, 'system');
    await tend();
    expect(await keyVersions(server, 'system')).toEqual(before);
    await server.db.query(sql`
      UPDATE tenant_key SET created_at = now() - interval '366 days' WHERE owner = 'system' AND active`);
    await tend();
    expect((await keyVersions(server, 'system')).at(-1)).toBe((before.at(-1) ?? 0) + 1);
  });
});
