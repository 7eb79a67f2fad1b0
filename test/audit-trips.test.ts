import { randomBytes } from 'node:crypto';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { verifyAudit } from '../src/domain/audit-verification.js';
import { createLocalRootKeys, parseRootKeys } from '../src/vault/root-key.js';
import { createVault } from '../src/vault/vault.js';
import { auditEvents, type Listed, refuseEvents } from './support/audit.js';
import { createZoomUser } from './support/connections.js';
import { expire } from './support/consent-trip.js';
import { startTestServer } from './support/server.js';
import { begin, comeBack, consent, createTenant, open, registerApp, type Trip } from './support/story.js';

const rootKey = randomBytes(32).toString('base64');
const server = await startTestServer({ LATCHKEY_ROOT_KEY: rootKey });
const app = await registerApp(server, 'USER_MANAGED');
const user = createZoomUser(server);

async function setOut(): Promise<{ trip: Trip; tenantId: string }> {
  const tenantId = await createTenant(server);
  return { trip: await begin(server, 'beginAuthorization', { tenantId, userId: 'user_1', appId: app.id }), tenantId };
}

/** What browsers have left in a tenant's chain. */
const ofBrowsers = async (tenantId: string): Promise<Listed[]> =>
  (await auditEvents(server, { tenantId })).filter(({ principalKind }) => principalKind === 'BROWSER');

const byBrowserOf = ({ sessionId }: Trip, event: Partial<Listed>) => ({
  principalKind: 'BROWSER',
  principalId: sessionId,
  subject: sessionId,
  externalUserId: null,
  clientAddress: null,
  ...event,
});

test('an answer that is taken leaves one event, and one that was used before a refusal in its place', async () => {
  const { trip, tenantId } = await setOut();
  const callback = await consent(trip, user);
  const jar = new Map(trip.jar);
  expect((await comeBack(trip, callback)).connectCode).not.toBeNull();
  for (let n = 0; n < 3; n += 1) expect((await open(new Map(jar), callback)).status).toBe(400);
  const [taken, again] = await ofBrowsers(tenantId);
  expect(taken).toMatchObject(byBrowserOf(trip, { action: 'authorization.answered', outcome: 'DONE', reason: null }));
  const reused = { action: 'authorization.answered', outcome: 'REFUSED', reason: 'STATE_REUSED' };
  expect(again).toMatchObject(byBrowserOf(trip, reused));
});

test('a denial at the provider leaves an event with its reason', async () => {
  const { trip, tenantId } = await setOut();
  await comeBack(trip, await consent(trip, user, 'deny'));
  expect(await ofBrowsers(tenantId)).toMatchObject([
    byBrowserOf(trip, { action: 'authorization.failed', outcome: 'DONE', reason: 'DENIED_BY_USER' }),
  ]);
});

test('another browser, and a trip that is over, leave a refusal, however often they come one at once', async () => {
  const [foreign, late] = [await setOut(), await setOut()];
  const callback = await consent(foreign.trip, user);
  for (let n = 0; n < 5; n += 1) await open(new Map(), callback);
  const lateCallback = await consent(late.trip, user);
  await expire(server, late.trip);
  await comeBack(late.trip, lateCallback);
  const refusals = [await ofBrowsers(foreign.tenantId), await ofBrowsers(late.tenantId)];
  expect(refusals).toMatchObject([
    [byBrowserOf(foreign.trip, { outcome: 'REFUSED', reason: 'OTHER_BROWSER' })],
    [byBrowserOf(late.trip, { outcome: 'REFUSED', reason: 'EXPIRED' })],
  ]);
});

test('an answer whose event cannot be stored is not taken, and can be brought again', async () => {
  const { trip, tenantId } = await setOut();
  const callback = await consent(trip, user);
  const jar = new Map(trip.jar);
  const allow = await refuseEvents(server);
  expect((await open(new Map(jar), callback)).status).toBe(503);
  await allow();
  expect((await comeBack(trip, callback)).connectCode).not.toBeNull();
  expect(await ofBrowsers(tenantId)).toHaveLength(1);
});

test('states that were never given, and answers without one, leave no event at all', async () => {
  const callback = new URL(await consent((await setOut()).trip, user));
  const former = await auditEvents(server);
  const forged = randomBytes(32).toString('base64url');
  for (const query of [`state=${forged}&code=c`, 'code=c', 'state=x&code=c', `state=${forged}&state=${forged}`]) {
    await open(new Map(), `${callback.origin}${callback.pathname}?${query}`);
  }
  expect(await auditEvents(server)).toHaveLength(former.length);
});

test('events of trips hold no state and no code, and their chains verify', async () => {
  const { trip, tenantId } = await setOut();
  const callback = await consent(trip, user);
  const { connectCode } = await comeBack(trip, callback);
  const secrets = [
    new URL(callback).searchParams.get('state'),
    new URL(callback).searchParams.get('code'),
    connectCode,
  ];
  const rows = await server.db.query<{ text: string }>(sql`SELECT e::text AS text FROM audit_event e`);
  for (const secret of secrets) expect(rows.filter(({ text }) => text.includes(secret!))).toEqual([]);
  expect(await ofBrowsers(tenantId)).toHaveLength(1);
  const rootKeys = createLocalRootKeys(parseRootKeys(rootKey, { production: false }));
  const chains = await verifyAudit({ db: server.db, vault: createVault({ rootKeys }) });
  expect(chains.filter(({ fault }) => fault !== null)).toEqual([]);
});
