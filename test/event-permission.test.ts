import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { createServerKey } from './support/principals.js';
import { startTestServer } from './support/server.js';
import { openSse, openWebSocket, type OpenStream } from './support/streams.js';
import { flip, makeGrants } from './support/transitions.js';

const server = await startTestServer();

const TRANSPORTS: [string, OpenStream][] = [
  ['server-sent events', openSse],
  ['WebSocket', openWebSocket],
];

const HEALTH = `subscription ($tenantId: String, $after: String) {
  healthChanged(tenantId: $tenantId, after: $after) { cursor tenant { externalId } }
}`;
/** The same, but of a shape that is not shared. */
const APART = `subscription ($tenantId: String, $after: String) { ...Watch }
  fragment Watch on Subscription { healthChanged(tenantId: $tenantId, after: $after) { cursor tenant { externalId } } }`;

const FORBIDDEN = { errors: [expect.objectContaining({ extensions: { code: 'FORBIDDEN' } })] };
const BEGINNING = Buffer.from('e0').toString('base64url');

const SHAPES = TRANSPORTS.flatMap(([name, open]): [string, OpenStream, string][] => [
  [`${name}, shared`, open, HEALTH],
  [`${name}, apart`, open, APART],
]);

test.each(SHAPES)(
  'over %s a key that loses its permission is told no event that came after, and others are',
  async (_name, open, query) => {
    const [grant] = await makeGrants(server.db, 1);
    await flip(server.db, grant!, 1);
    const keys = [
      await createServerKey(server, { permissions: ['CONNECTIONS_READ'] }),
      await createServerKey(server, { permissions: ['CONNECTIONS_READ'] }),
    ];
    const variables = { tenantId: grant!.externalId, after: BEGINNING };
    const [losing, keeping] = await Promise.all(
      keys.map(({ token }) => open(server.url, query, { variables, adminKey: token })),
    );
    const event = { data: { healthChanged: expect.objectContaining({ tenant: { externalId: grant!.externalId } }) } };
    expect([await losing!.next(), await keeping!.next()]).toEqual([event, event]);
    await flip(server.db, grant!, 1);
    expect([await losing!.next(), await keeping!.next()]).toEqual([event, event]);
    const rowId = Buffer.from(keys[0]!.id, 'base64url').toString().split(':')[1];
    await server.db.query(sql`UPDATE server_key SET permissions = '{KEYS_WRITE}' WHERE id = ${rowId}::uuid`);
    await flip(server.db, grant!, 2);
    expect(await losing!.next()).toEqual(FORBIDDEN);
    expect(await losing!.next()).toBeNull();
    expect([await keeping!.next(), await keeping!.next()]).toEqual([event, event]);
    await Promise.all([losing!.close(), keeping!.close()]);
  },
);

test.each(SHAPES)(
  'over %s a key of one tenant is refused a subscription to another, be there one or not',
  async (_name, open, query) => {
    const [own, other] = [(await makeGrants(server.db, 1))[0]!, (await makeGrants(server.db, 1))[0]!];
    const key = await createServerKey(server, { permissions: ['CONNECTIONS_READ'], tenantId: own.externalId });
    for (const tenantId of [other.externalId, 'nobody']) {
      const stream = await open(server.url, query, { variables: { tenantId }, adminKey: key.token });
      expect(await stream.next()).toEqual(FORBIDDEN);
      expect(await stream.next()).toBeNull();
      await stream.close();
    }
  },
);

test.each(SHAPES)(
  'over %s a cursor older than what is kept ends the subscription with RESYNC_REQUIRED',
  async (_name, open, query) => {
    const [grant] = await makeGrants(server.db, 1);
    await flip(server.db, grant!, 2);
    const { healthEvents } = await server.data(
      'query ($t: String!) { healthEvents(filter: { tenantId: $t }) { edges { cursor } } }',
      { t: grant!.externalId },
    );
    const [first, second] = healthEvents.edges.map(({ cursor }: { cursor: string }) => cursor);
    const position = Number(Buffer.from(second, 'base64url').toString().slice(1));
    await server.db.query(sql`UPDATE health_event_log SET expired_position = ${position}`);
    for (const after of [first, Buffer.from(`e${position + 1_000}`).toString('base64url')]) {
      const stream = await open(server.url, query, { variables: { after } });
      expect(await stream.next()).toEqual({
        errors: [expect.objectContaining({ extensions: { code: 'RESYNC_REQUIRED' } })],
      });
      expect(await stream.next()).toBeNull();
      await stream.close();
    }
    await server.db.query(sql`UPDATE health_event_log SET expired_position = 0`);
  },
);
