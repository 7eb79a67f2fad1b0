import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { calls, expire, type Connection } from '../support/connections.js';
import { readiness, summary, type Reading } from './client.js';
import { createCheck, type Experiment, type World } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { connectMany } from './storms.js';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const PROCESSES = 3;
const POOL = 40;
const PER_SECOND = 20;

/** What a next version may do to the database while this one runs: add, with defaults, and take nothing away. */
const EXPAND = `
ALTER TABLE "credential" ADD COLUMN "chaos_note" TEXT;
ALTER TABLE "provider_grant" ADD COLUMN "chaos_rank" INTEGER NOT NULL DEFAULT 0;
CREATE TABLE "chaos_extra" ("id" UUID NOT NULL PRIMARY KEY, "grant_id" UUID REFERENCES "provider_grant"("id") ON DELETE CASCADE);
CREATE INDEX "chaos_extra_grant_id_idx" ON "chaos_extra"("grant_id");
`;

/** This build with one more migration, in a folder of its own. */
async function buildNext(): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-chaos-next-'));
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  for (const name of ['dist', 'prisma', 'package.json']) {
    await cp(join(ROOT, name), join(folder, name), { recursive: true });
  }
  const migrations = join(folder, 'prisma', 'migrations');
  const names = (await readdir(migrations, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const last =
    names
      .map(({ name }) => name)
      .toSorted()
      .at(-1) ?? '';
  const next = join(migrations, `${last.slice(0, 14)}_zz_chaos`);
  await mkdir(next);
  await writeFile(join(next, 'migration.sql'), EXPAND);
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/**
 * Refreshes and reads of all connections, spread over `fleet` as it is at the time; a broken connection is repeated once.
 */
function load(stage: Stage, fleet: readonly Server[], connections: readonly Connection[]) {
  const reads: Promise<Reading>[] = [];
  const busy = new Set<string>();
  let turn = 0;
  const pick = (): Server => fleet[(turn += 1) % fleet.length] as Server;
  async function one(server: Server, connection: Connection): Promise<Reading> {
    await expire(server, connection);
    const reading = await stage.read(server, connection);
    return reading.kind.startsWith('cut') ? stage.read(pick(), connection) : reading;
  }
  const timer = setInterval(() => {
    const [server, connection] = [pick(), connections[turn % connections.length] as Connection];
    if (busy.has(connection.rowId)) return;
    busy.add(connection.rowId);
    reads.push(one(server, connection).finally(() => busy.delete(connection.rowId)));
  }, 1_000 / PER_SECOND);
  return {
    stop: (): Promise<Reading[]> => {
      clearInterval(timer);
      return Promise.all(reads);
    },
  };
}

async function deploy({ openStage }: World) {
  const check = createCheck();
  const next = await buildNext();
  try {
    const stage = await openStage({ deadline: 3, lease: 5, doubt: 2 });
    const fleet = await stage.startMany(PROCESSES);
    const connections = await connectMany(fleet[0] as Server, POOL);
    const running = load(stage, fleet, connections);
    const codes: (number | null)[] = [];
    const states: number[] = [];
    // One at a time to the next version, and one at a time back.
    for (const folder of [next.folder, undefined]) {
      for (const [index, old] of fleet.entries()) {
        const fresh = await stage.start(folder === undefined ? {} : { folder });
        fleet[index] = fresh;
        old.process.signal('SIGTERM');
        codes.push((await old.process.exited).code);
        states.push(...(await Promise.all(fleet.map(readiness))));
      }
    }
    const readings = await running.stop();
    const failed = readings.filter(({ kind }) => kind !== 'Credential');
    const requests = calls(fleet[0] as Server, connections[0] as Connection);
    check.that(readings.length > 50, `${readings.length} reads only`);
    check.equal('failed reads', summary(failed), 'nothing');
    check.equal('exit codes', [...new Set(codes)], [0]);
    check.equal('readiness', [...new Set(states)], [200]);
    check.equal('answers of Zoom', [...new Set(requests.map(({ outcome }) => outcome))], ['rotated']);
    return check.done(
      `${codes.length} replacements, ${readings.length} reads with ${requests.length} refreshes, ${failed.length} failed; all ready throughout, each ended with 0`,
    );
  } finally {
    await next.remove();
  }
}

const deployment: Experiment = {
  id: 'X-33',
  injected: `${PROCESSES} processes are replaced one by one by a next version, which is this one with one more migration that expands tables, and one by one back again, under ${PER_SECOND} refreshes/s`,
  expected:
    'both versions run on the newer database and are ready, also those that start on it; no failed read, no lost connection, every process ends with 0',
  run: deploy,
};

export const deployments: readonly Experiment[] = [deployment];
