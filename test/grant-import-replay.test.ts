import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import sql from 'sql-template-tag';
import { beforeEach, expect, test } from 'vitest';
import { importGrant } from '../src/domain/grant-import.js';
import { findImportApp, renewForImport, settleImport } from '../src/domain/import-settlement.js';
import { newImportId } from '../src/domain/pending-import.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import { Secret } from '../src/secret.js';
import { createZoomUser } from './support/connections.js';
import { healthEventsOf, journalOf, NOTHING_STORED, storedOf } from './support/consent-trip.js';
import { obtainElsewhere } from './support/outside-tokens.js';
import { startWorkshop } from './support/refresher.js';
import { connect, createTenant, credential, registerApp } from './support/story.js';
import { until } from './support/until.js';

const { server, folder, createDeps, createRefresher, logs } = await startWorkshop();
const { control } = server.sandbox;

beforeEach(() => control.setKnobs(DEFAULT_KNOBS));

/** The next process on the same machine starts. */
const startAgain = () => createRefresher().replay({ all: true });

const spoolFiles = () => readdir(folder).catch(() => []);
const spoolIsEmpty = () => until(async () => (await spoolFiles()).length === 0);

async function setting() {
  const app = await registerApp(server, 'USER_MANAGED');
  const tenantId = await createTenant(server);
  const zoomUserId = createZoomUser(server);
  const { refreshToken } = await obtainElsewhere(server, app, zoomUserId);
  const [tenant] = await server.db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${tenantId}`);
  const [row] = await server.db.query<{ id: string }>(sql`
    SELECT id FROM provider_app WHERE client_id = ${app.clientId}`);
  const ids = { tenantRow: tenant?.id ?? '', appRow: row?.id ?? '' };
  return { app, tenantId, zoomUserId, refreshToken: new Secret(refreshToken), ...ids };
}

type Setting = Awaited<ReturnType<typeof setting>>;

/** What a process does until its answer is on the disk, and no further. */
async function renewAndDie({ tenantRow, appRow, refreshToken }: Setting) {
  const deps = createDeps();
  const app = await findImportApp(deps.db, appRow);
  if (app === undefined) throw new Error('The app is gone.');
  const owner = { id: newImportId(), tenantId: tenantRow, appId: appRow, externalUserId: 'user_1' };
  const { pending } = await renewForImport(deps, app, { ...owner, claimedUserId: null, refreshToken });
  return { deps, app, pending };
}

const reasonsOf = async (tenantId: string) => (await healthEventsOf(server, tenantId)).map(({ reason }) => reason);

const credentialOf = (tenantId: string) => credential(server, { tenantId, userId: 'user_1', credentialFor: 'USER' });

async function expectWorking({ tenantId, zoomUserId }: Setting): Promise<void> {
  const { apiUrl, accessToken } = await credentialOf(tenantId);
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  expect(await me.json()).toMatchObject({ id: zoomUserId });
}

test('an import whose process died with the renewed tokens in hand is finished by the next one', async () => {
  const given = await setting();
  await renewAndDie(given);
  expect(await storedOf(server, given.tenantId)).toEqual(NOTHING_STORED);
  await startAgain();
  await spoolIsEmpty();
  await expectWorking(given);
  expect(await reasonsOf(given.tenantId)).toEqual(['CONNECTED']);
});

test('an import that was stored before its process died is not stored again', async () => {
  const given = await setting();
  const { deps, app, pending } = await renewAndDie(given);
  await settleImport(deps, app, pending, { patienceMs: 0 });
  await server.db.query(sql`UPDATE credential SET next_refresh_at = now() WHERE tenant_id = ${given.tenantRow}::uuid`);
  await createRefresher().refreshDue(1);
  await until(async () => (await credentialOf(given.tenantId)).version === 2);
  await startAgain();
  await spoolIsEmpty();
  expect(await credentialOf(given.tenantId)).toMatchObject({ version: 2 });
  await expectWorking(given);
  expect(await reasonsOf(given.tenantId)).toEqual(['CONNECTED']);
});

test('tokens that expired while nobody was there are renewed once more, and then stored', async () => {
  const given = await setting();
  control.setKnobs({ accessTokenSeconds: 20 });
  await renewAndDie(given);
  control.setKnobs(DEFAULT_KNOBS);
  await startAgain();
  await spoolIsEmpty();
  await expectWorking(given);
  expect(journalOf(server, given.app, 'token').filter(({ outcome }) => outcome === 'rotated')).toHaveLength(2);
});

test('a consent from after the import wins: the import is dropped, and revokes nothing', async () => {
  const given = await setting();
  await renewAndDie(given);
  const target = { tenantId: given.tenantId, userId: 'user_1', appId: given.app.id };
  await connect(server, 'beginAuthorization', target, given.zoomUserId);
  await startAgain();
  await spoolIsEmpty();
  await expectWorking(given);
  expect(await reasonsOf(given.tenantId)).toEqual(['CONNECTED']);
  expect(journalOf(server, given.app, 'revoke')).toEqual([]);
});

test('an import that comes late for a subject somebody else has is refused, and its tokens are revoked', async () => {
  const given = await setting();
  await renewAndDie(given);
  const other = createZoomUser(server);
  const target = { tenantId: given.tenantId, userId: 'user_1', appId: given.app.id };
  await connect(server, 'beginAuthorization', target, other);
  await startAgain();
  await spoolIsEmpty();
  await expectWorking({ ...given, zoomUserId: other });
  await expect.poll(() => control.grants().filter(({ userId }) => userId === given.zoomUserId)).toEqual([]);
  expect(logs.some((line) => line.includes('IDENTITY_CHANGED'))).toBe(true);
});

test('tokens that died meanwhile are dropped', async () => {
  const given = await setting();
  await renewAndDie(given);
  control.removeGrant({ clientId: given.app.clientId, userId: given.zoomUserId });
  await startAgain();
  await spoolIsEmpty();
  expect(await storedOf(server, given.tenantId)).toEqual(NOTHING_STORED);
});

test('where Zoom stops answering after the renewal the caller is told not to repeat, and the import goes on', async () => {
  const given = await setting();
  const deps = createDeps();
  control.addFault({ route: 'users', clientId: given.app.clientId, times: 2, fault: { kind: 'status', status: 503 } });
  const { tenantId, appRow, refreshToken } = given;
  const input = { tenantId, userId: 'user_1', appId: appRow, accessToken: null, refreshToken };
  await expect(importGrant(deps, input)).rejects.toMatchObject({
    name: 'ProviderUnavailableError',
    message: expect.stringContaining('do not repeat it'),
  });
  const refresher = createRefresher(deps);
  await refresher.replay();
  expect(await storedOf(server, tenantId)).toEqual(NOTHING_STORED);
  await refresher.replay();
  await expectWorking(given);
  expect(await reasonsOf(tenantId)).toEqual(['CONNECTED']);
  await spoolIsEmpty();
});

test('the disk holds no secret that can be read', async () => {
  await renewAndDie(await setting());
  const files = await spoolFiles();
  const text = (await Promise.all(files.map((file) => readFile(join(folder, file), 'latin1')))).join('\n');
  expect(text.length).toBeGreaterThan(500);
  expect(text).not.toContain('ZCANARY');
  await startAgain();
  await spoolIsEmpty();
});
