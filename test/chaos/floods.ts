import sql from 'sql-template-tag';
import { connectUser, type Connection } from '../support/connections.js';
import { createServerKey } from '../support/principals.js';
import { percentile, postOperation, readOnce, summary, type Reading } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { pass, waitUntil } from './waiting.js';

const PROCESSES = 3;
/** Connections of each process, of which a tenant may hold a quarter. */
const POOL = 20;
const SHARE = POOL / 4;
const SECONDS = 4;
/** Of the tenant that floods, at each process: changes under way, and lists a second. */
const CHANGES = 20;
const LISTS_PER_SECOND = 5;
/** Readers of the other tenant, at each process: one by a key of its own, one by the key of all tenants. */
const READ_EVERY_MS = 20;

const RENAME = 'mutation ($input: UpdateTenantInput!) { updateTenant(input: $input) { __typename } }';
const LISTS = `query ($id: String!) { tenant(externalId: $id) { userConnections(first: 20) { edges { node { id } } } }
  serverKeys(first: 20) { edges { node { id } } } auditEvents(first: 20) { edges { node { id } } } }`;

/** Reads the credential at every server again and again, with each key, until told to stop. */
async function keepReading(stage: Stage, servers: readonly Server[], { rowId, input }: Connection, keys: string[]) {
  const stop = new AbortController();
  const readings: Reading[] = [];
  const loops = servers.flatMap(({ url }) =>
    keys.map(async (adminKey) => {
      while (!stop.signal.aborted) {
        readings.push(await readOnce(stage.callers, { url, adminKey }, { rowId, input }));
        await pass(READ_EVERY_MS / 1_000);
      }
    }),
  );
  await pass(SECONDS);
  stop.abort();
  await Promise.all(loops);
  return {
    readings,
    p99: percentile(
      readings.map(({ startedAt, endedAt }) => endedAt - startedAt),
      0.99,
    ),
  };
}

/** What a tenant sends until told to stop: changes of the row that is locked, and lists. @returns the codes it got. */
async function flood(stage: Stage, servers: readonly Server[], tenantId: string, key: string, signal: AbortSignal) {
  const codes = new Map<string, number>();
  const ask = async ({ url }: Server, query: string, variables: Record<string, unknown>) => {
    const { errors } = await postOperation(stage.callers, { url, adminKey: key }, { query, variables });
    const code = errors?.[0]?.extensions.code ?? 'answered';
    codes.set(code, (codes.get(code) ?? 0) + 1);
  };
  const change = async (server: Server) => {
    while (!signal.aborted) await ask(server, RENAME, { input: { tenantId, name: 'flood' } });
  };
  const list = async (server: Server) => {
    const asked: Promise<void>[] = [];
    for (; !signal.aborted; await pass(1 / LISTS_PER_SECOND)) asked.push(ask(server, LISTS, { id: tenantId }));
    await Promise.all(asked);
  };
  await Promise.all(
    servers.flatMap((server) => [list(server), ...Array.from({ length: CHANGES }, () => change(server))]),
  );
  return codes;
}

const tenantFlood: Experiment = {
  id: 'X-10',
  injected: `one tenant has ${CHANGES} changes under way at each of ${PROCESSES} processes that wait for a row, with ${POOL} connections to the database each, and asks for ${LISTS_PER_SECOND} lists a second besides`,
  expected: `it holds a quarter of the connections of each process and waits for them, or is told RATE_LIMITED; the credential reads of another tenant, by its own key and by the key of all tenants, are all answered, p99 below twice of what it is without the flood`,
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ settings: { LATCHKEY_DATABASE_POOL: String(POOL) } });
    const servers = await stage.startMany(PROCESSES);
    const via = servers[0] as Server;
    const [loud, quiet] = [await connectUser(via), await connectUser(via)];
    const permissions = ['TENANTS_WRITE', 'CONNECTIONS_READ', 'KEYS_WRITE', 'AUDIT_READ', 'CREDENTIALS_READ'];
    const keyOf = async ({ tenantId }: Connection) => (await createServerKey(via, { tenantId, permissions })).token;
    const [loudKey, quietKey] = [await keyOf(loud), await keyOf(quiet)];
    const read = () => keepReading(stage, servers, quiet, [quietKey, via.adminKey]);
    // Everybody is warm before anything is compared.
    const warm = new AbortController();
    const warming = flood(stage, servers, loud.tenantId, loudKey, warm.signal);
    await read();
    warm.abort();
    await warming;
    const calm = await read();

    const stop = new AbortController();
    let flooding: ReturnType<typeof flood> | undefined;
    const most = { held: 0 };
    const beside = await stage.db.transaction(async (tx) => {
      await tx.query(sql`SELECT id FROM tenant WHERE external_id = ${loud.tenantId} FOR UPDATE`);
      flooding = flood(stage, servers, loud.tenantId, loudKey, stop.signal);
      await waitUntil('the flood has its share', async () => (await blocked(stage)) >= PROCESSES * SHARE);
      const watching = (async () => {
        while (!stop.signal.aborted) {
          most.held = Math.max(most.held, await blocked(stage));
          await pass(0.5);
        }
      })();
      await pass(1);
      const during = await read();
      stop.abort();
      await watching;
      return during;
    });
    const codes = (await flooding) ?? new Map<string, number>();

    check.equal('connections that the flood held', most.held, PROCESSES * SHARE);
    check.equal('reads', summary(beside.readings), `${beside.readings.length} × Credential v1`);
    check.that(beside.p99 < calm.p99 * 2, `p99 is ${beside.p99} ms instead of ${calm.p99} ms`);
    const told = [...codes].map(([code, count]) => `${count} × ${code}`).join(', ');
    return check.done(
      `${beside.readings.length} reads answered, p99 ${beside.p99} ms (without the flood ${calm.p99} ms, ${calm.readings.length} reads); the flood held ${most.held} of ${PROCESSES * POOL} connections and got ${told}`,
    );
  },
};

/** Connections that wait for the row of a tenant. */
async function blocked({ db }: Stage): Promise<number> {
  const [row] = await db.query<{ count: number }>(sql`
    SELECT count(*)::int AS count FROM pg_stat_activity
    WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%UPDATE tenant%'`);
  return row?.count ?? 0;
}

export const floods: readonly Experiment[] = [tenantFlood];
