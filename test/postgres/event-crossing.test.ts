import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { createServerKey } from '../support/principals.js';
import { startTestServer } from '../support/server.js';
import { openSse, openWebSocket } from '../support/streams.js';
import { flip, makeGrants, type MadeGrant } from '../support/transitions.js';

const EVENTS = 1_000;

const server = await startTestServer();

/** Many events at once, in one statement. */
const flood = ({ id, tenantId }: MadeGrant, count: number) =>
  server.db.query(sql`
    WITH counter AS (
      UPDATE tenant SET event_sequence = event_sequence + ${count} WHERE id = ${tenantId}::uuid RETURNING event_sequence
    )
    INSERT INTO health_event (id, tenant_id, grant_id, sequence, previous, current, reason)
    SELECT gen_random_uuid(), ${tenantId}::uuid, ${id}::uuid, event_sequence - ${count} + number, 'HEALTHY', 'DEGRADED',
      'RATE_LIMITED'
    FROM counter, generate_series(1, ${count}::int) AS number`);

test('of two tenants with a thousand events each, each is told its own thousand in order and none of the other', async () => {
  const grants = [(await makeGrants(server.db, 1))[0]!, (await makeGrants(server.db, 1))[0]!];
  await Promise.all(grants.map((grant) => flip(server.db, grant, 1)));
  const streams = await Promise.all(
    [openSse, openWebSocket].map(async (open, index) => {
      const { externalId: tenantId } = grants[index]!;
      const { token } = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId });
      const after = Buffer.from('e0').toString('base64url');
      return open(server.url, 'subscription ($after: String) { healthChanged(after: $after) { id } }', {
        variables: { after },
        adminKey: token,
      });
    }),
  );
  const next = async (index: number): Promise<string> => {
    const told = await streams[index]!.next();
    expect(told?.errors).toBeUndefined();
    return Buffer.from(told?.data.healthChanged.id, 'base64url').toString().replace('HealthEvent:', '');
  };
  const seen = [[await next(0)], [await next(1)]];
  // What comes now comes to those who are live, the tenants' events in turns.
  for (let batch = 0; batch < 9; batch += 1) for (const grant of grants) await flood(grant, 100);
  for (const grant of grants) await flood(grant, 99);
  for (const [index, ids] of seen.entries()) {
    while (ids.length < EVENTS) ids.push(await next(index));
    await streams[index]!.close();
    const stored = await server.db.query<{ id: string }>(
      sql`SELECT id FROM health_event WHERE tenant_id = ${grants[index]!.tenantId}::uuid ORDER BY sequence`,
    );
    expect(ids).toEqual(stored.map(({ id }) => id));
  }
}, 60_000);
