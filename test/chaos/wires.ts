import sql from 'sql-template-tag';
import { calls, connectUser, expire, stored, type Connection } from '../support/connections.js';
import { readiness, summary, type Reading } from './client.js';
import { asAdmin } from './databases.js';
import { createCheck, type Check, type Experiment } from './experiment.js';
import type { Server, Stage, StageOptions } from './stage.js';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.js';
import { pass, waitUntil } from './waiting.js';

/** The limit that the servers are given for one statement. */
const LIMIT_SECONDS = 1.5;
const LIMITED = { LATCHKEY_DATABASE_TIMEOUT_MS: String(LIMIT_SECONDS * 1_000) };
/** Several dead connections may be met before a living one is made. */
const SEVERAL_LIMITS_SECONDS = LIMIT_SECONDS * 3 + 2;

/** Reads that are asked at once, and what the slowest took. */
async function readMany(stage: Stage, server: Server, connection: Connection, count: number) {
  const readings = await Promise.all(Array.from({ length: count }, () => stage.read(server, connection)));
  const slowest = Math.max(...readings.map(({ startedAt, endedAt }) => endedAt - startedAt)) / 1_000;
  return { readings, slowest };
}

/** Reads one after the other until one succeeds. @returns seconds. */
async function secondsUntilServed(stage: Stage, server: Server, connection: Connection): Promise<number> {
  const startedAt = performance.now();
  await waitUntil('reads succeed', async () => (await stage.read(server, connection)).kind === 'Credential', 60);
  return (performance.now() - startedAt) / 1_000;
}

const frozenBackend: Experiment = {
  id: 'X-08',
  injected: 'one PostgreSQL backend of a server is stopped with SIGSTOP; then 40 reads',
  expected: `what it was asked fails after the limit for statements (${LIMIT_SECONDS} s) + 2 s at the latest, everything else is served; afterwards all reads are`,
  run: async ({ openStage, cluster }) => {
    const check = createCheck();
    const stage = await openStage({ settings: LIMITED });
    const server = await stage.start();
    const connection = await connectUser(server);
    await readMany(stage, server, connection, 20);
    const rows = await asAdmin(
      cluster.url,
      `SELECT pid FROM pg_stat_activity WHERE datname = '${stage.databaseName}' AND application_name = 'latchkey'
         AND state = 'idle' AND client_port NOT IN (${await ownPorts(stage)}) ORDER BY state_change DESC LIMIT 1`,
    );
    const pid = Number(rows[0]?.['pid']);
    process.kill(pid, 'SIGSTOP');
    try {
      const { readings, slowest } = await readMany(stage, server, connection, 40);
      const failed = readings.filter(({ kind }) => kind !== 'Credential');
      check.that(slowest <= LIMIT_SECONDS + 2, `a read took ${slowest} s`);
      check.that(failed.length < readings.length, 'no read was served');
      const again = await readMany(stage, server, connection, 40);
      check.equal('reads afterwards', summary(again.readings), '40 × Credential v1');
      return check.done(
        `${summary(readings)}, slowest ${slowest.toFixed(1)} s; then ${summary(again.readings)} in ${again.slowest.toFixed(2)} s`,
      );
    } finally {
      process.kill(pid, 'SIGCONT');
    }
  },
};

/** Ports of the harness's own connections, which the servers' must be told from. */
async function ownPorts(stage: Stage): Promise<string> {
  const ports = await stage.db.query<{ port: number }>({
    text: `SELECT client_port AS port FROM pg_stat_activity WHERE pid = pg_backend_pid()`,
    values: [],
  } as never);
  return ports.map(({ port }) => port).join(', ');
}

interface Wire {
  stage: Stage;
  server: Server;
  proxy: TcpProxy;
  connection: Connection;
}

const wired = (
  injected: string,
  expected: string,
  run: (wire: Wire, check: Check) => Promise<string>,
  options: StageOptions = {},
): Experiment => ({
  id: 'X-08',
  injected,
  expected,
  run: async ({ openStage }) => {
    const check = createCheck();
    let proxy: TcpProxy | undefined;
    const stage = await openStage({
      settings: LIMITED,
      ...options,
      throughPort: async (port) => {
        proxy = await startTcpProxy(() => port);
        return proxy.port;
      },
    });
    const server = await stage.start();
    const connection = await connectUser(server);
    // Opens as many connections as there will ever be at once.
    await Promise.all([
      readMany(stage, server, connection, 100),
      ...Array.from({ length: 20 }, () => readiness(server)),
    ]);
    try {
      return check.done(await run({ stage, server, proxy: proxy as TcpProxy, connection }, check));
    } finally {
      proxy?.become({ kind: 'pass' });
    }
  },
});

const halfOpen = wired(
  'every open connection to PostgreSQL falls silent (half-open TCP), new ones work',
  `no read hangs longer than the limit for statements (${LIMIT_SECONDS} s) + 2 s; all are served after three of them + 2 s at most`,
  async ({ stage, server, proxy, connection }, check) => {
    const open = proxy.open();
    proxy.silencePresent();
    const { readings, slowest } = await readMany(stage, server, connection, 20);
    const seconds = slowest + (await secondsUntilServed(stage, server, connection));
    check.that(slowest <= LIMIT_SECONDS + 2, `a read took ${slowest} s`);
    check.that(seconds <= SEVERAL_LIMITS_SECONDS, `reads were served again after ${seconds.toFixed(1)} s`);
    return `${open} connections silent: ${summary(readings)}, slowest ${slowest.toFixed(1)} s; served again after ${seconds.toFixed(1)} s`;
  },
);

const silentCommit = wired(
  'every open connection to PostgreSQL falls silent when Zoom has answered a refresh and its tokens are to be stored',
  `the tokens are stored within three times the limit for statements (${LIMIT_SECONDS} s) + 2 s, with 1 call`,
  async ({ stage, server, proxy, connection }, check) => {
    await expire(server, connection);
    stage.control.addFault({ route: 'token', fault: { kind: 'hang', when: 'after', ms: 300 } });
    const reading = stage.read(server, connection);
    await stage.control.waitFor(({ outcome }) => outcome === 'rotated');
    proxy.silencePresent();
    stage.interruptions.push(Date.now());
    const startedAt = performance.now();
    await waitUntil('the tokens are stored', async () => (await stored(server, connection))?.version === 2, 45);
    const seconds = (performance.now() - startedAt) / 1_000;
    const told = await reading;
    check.that(seconds <= SEVERAL_LIMITS_SECONDS, `the tokens were stored after ${seconds.toFixed(1)} s`);
    check.equal('token requests', calls(server, connection).length, 1);
    return `stored after ${seconds.toFixed(1)} s, 1 call; the reader got ${summary([told])}`;
  },
  { deadline: 5, lease: 30, doubt: 10 },
);

const resetWithin = wired(
  'every connection to PostgreSQL is reset while a transaction of the server is open',
  'the process goes on, reads and writes that are sent again are served within 2 s, and the token is renewed',
  async ({ stage, server, proxy, connection }, check) => {
    await expire(server, connection);
    stage.control.addFault({ route: 'token', fault: { kind: 'status', status: 503 } });
    let reading: Promise<Reading> | undefined;
    await stage.db.transaction(async (tx) => {
      // What the server wants to write about the failure waits for this lock, in its own transaction.
      await tx.query(sql`SELECT id FROM provider_grant WHERE id = ${connection.rowId}::uuid FOR UPDATE`);
      reading = stage.read(server, connection);
      await waitUntil('the transaction of the server is open', async () => {
        const [row] = await stage.db.query<{ waiting: number }>(sql`
          SELECT count(*)::int AS waiting FROM pg_stat_activity
          WHERE datname = current_database() AND wait_event_type = 'Lock'`);
        return row?.waiting === 1;
      });
      proxy.become({ kind: 'reset' });
    });
    proxy.become({ kind: 'pass' });
    const told = await reading;
    // A write on a connection that is not known to be dead yet fails, and whoever sent it sends it again.
    await waitUntil('a user is connected', async () => Boolean(await connectUser(server)), 2).catch((error: Error) =>
      check.that(false, error.message),
    );
    check.that(server.process.isRunning(), 'the server has ended');
    if (!server.process.isRunning()) return `the process ended; the reader got ${summary([told as Reading])}`;
    const startedAt = performance.now();
    await waitUntil('the token is renewed', async () => (await stage.read(server, connection)).version === 2);
    const seconds = ((performance.now() - startedAt) / 1_000).toFixed(1);
    return `the process goes on; the reader got ${summary([told as Reading])}; renewed ${seconds} s later`;
  },
);

const lostNetwork = wired(
  'the network to PostgreSQL loses everything for 3 s, then resets every connection, then works',
  'reads fail meanwhile and are served again within 2 s; the token that is due is refreshed once',
  async ({ stage, server, proxy, connection }, check) => {
    proxy.become({ kind: 'blackhole' });
    const hanging = readMany(stage, server, connection, 5);
    await pass(3);
    proxy.become({ kind: 'reset' });
    const { readings } = await hanging;
    proxy.become({ kind: 'pass' });
    const seconds = await secondsUntilServed(stage, server, connection);
    await expire(server, connection);
    const renewed = await stage.read(server, connection);
    check.that(seconds <= 2, `reads were served again after ${seconds.toFixed(1)} s`);
    check.equal('renewed', summary([renewed]), '1 × Credential v2');
    check.equal('token requests', calls(server, connection).length, 1);
    return `${summary(readings)}; served again after ${seconds.toFixed(1)} s; ${summary([renewed])}`;
  },
);

export const wires: readonly Experiment[] = [frozenBackend, halfOpen, silentCommit, resetWithin, lostNetwork];
