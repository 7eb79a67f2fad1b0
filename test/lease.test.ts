import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { closeIncident, openIncident } from '../src/domain/incident.js';
import { takeDueLeases } from '../src/domain/lease.js';
import { createLog } from '../src/log.js';
import { connectUser, makeDue } from './support/connections.js';
import { startTestServer } from './support/server.js';
import { registerApp } from './support/story.js';

const server = await startTestServer({ LATCHKEY_ROLE: 'api' });
const deps = { db: server.db, settings: { leaseSeconds: 1, doubtSeconds: 0, refreshesPerSecond: 100 } as never };
const room = { limit: 10, busy: [] as string[], pausedApps: [], running: new Map<string, number>(), perTenant: 10 };

test('a credential that this process is still at is not taken up again, however long its lease is over', async () => {
  const connection = await connectUser(server);
  await makeDue(server, connection);
  await server.db.query(sql`
    UPDATE credential SET refresh_state = 'REFRESHING', lease_until = now() - interval '1 hour'
    WHERE grant_id = ${connection.rowId}::uuid`);
  expect(await takeDueLeases(deps, { ...room, busy: [connection.rowId] })).toEqual([]);
  expect(await takeDueLeases(deps, room)).toMatchObject([{ grantId: connection.rowId, inDoubt: true }]);
});

test('an incident of an app is logged once when it opens and once when it ends', async () => {
  const app = await registerApp(server, 'USER_MANAGED');
  const [row] = await server.db.query<{ id: string }>(sql`
    SELECT id FROM provider_app WHERE client_id = ${app.clientId}`);
  const lines: string[] = [];
  const logging = { db: server.db, log: createLog('info', { write: (line) => void lines.push(line) }) };
  for (let index = 0; index < 3; index += 1) await openIncident(logging, row?.id ?? '');
  expect(lines.filter((line) => line.includes('APP_REJECTED'))).toHaveLength(1);
  for (let index = 0; index < 3; index += 1) await closeIncident(logging, row?.id ?? '');
  expect(lines.filter((line) => line.includes('RECOVERED'))).toHaveLength(1);
});
