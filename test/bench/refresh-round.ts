import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { loadavg } from 'node:os';
import type pg from 'pg';
import { residentMegabytes } from './measure.js';
import { machineSeconds, postgresPids, secondsBetween, secondsOf, sleep } from './refresh-machine.js';

export interface Round {
  perSecond: number;
  refreshes: number;
  seconds: number;
  /** Processor time for one refresh: of the process itself, of PostgreSQL, and of the token endpoint. */
  cpuMicros: number;
  postgresMicros: number;
  endpointMicros: number;
  residentMegabytes: number;
  /** Share of the machine that was taken by programs that are no part of the bench. */
  othersShare: number;
  load: number;
}

/** Something that refreshes, with a database and tokens of its own. */
export interface Variant {
  name: string;
  pid: number;
  db: pg.Client;
  /** Base of the token endpoint's paths for it. */
  url: string;
  endpointPid: number;
  /** Makes so many due, spread over a second. */
  begin(count: number): Promise<void>;
  /** Puts off what is still due. */
  end(): Promise<void>;
}

export interface Counts {
  count: number;
  /** Refresh tokens that were sent more than once. */
  twice: number;
  unknown: number;
}

export async function readCounts(url: string): Promise<Counts> {
  return (await (await fetch(`${url}/counts`)).json()) as Counts;
}

async function untilQuiet(url: string): Promise<void> {
  for (let before = -1, now = 0; before !== now;) {
    before = now;
    await sleep(500);
    now = (await readCounts(url)).count;
  }
}

/** Due credentials in an order that has nothing to do with their place or their tenant. */
const anyOf = (table: string, id: string) => `${id} IN (SELECT ${id} FROM ${table} ORDER BY random() LIMIT $1)`;

/** The product: its scheduler takes up by itself what is due. */
export function productVariant(base: Omit<Variant, 'begin' | 'end'>): Variant {
  return {
    ...base,
    begin: async (count) => {
      await base.db.query(
        `UPDATE credential SET next_refresh_at = now() - random() * interval '1 second' WHERE ${anyOf('credential', 'grant_id')}`,
        [count],
      );
    },
    end: async () => {
      // What is locked is being refreshed at this moment.
      await base.db.query(`
        UPDATE credential SET next_refresh_at = now() + interval '1 hour' WHERE grant_id IN (
          SELECT grant_id FROM credential WHERE next_refresh_at <= now() FOR UPDATE SKIP LOCKED)`);
      await untilQuiet(base.url);
    },
  };
}

/** The bare loop: told when to begin and when to stop. */
export function bareVariant(base: Omit<Variant, 'begin' | 'end' | 'pid'>, child: ChildProcess): Variant {
  const order = async (name: 'load' | 'run' | 'stop') => {
    child.send(name);
    await once(child, 'message');
  };
  return {
    ...base,
    pid: child.pid ?? 0,
    begin: async (count) => {
      await base.db.query(
        `UPDATE bench_bare SET due_at = now() - random() * interval '1 second' WHERE ${anyOf('bench_bare', 'id')}`,
        [count],
      );
      await order('load');
      await order('run');
    },
    end: async () => {
      await order('stop');
      await base.db.query('UPDATE bench_bare SET due_at = NULL WHERE due_at IS NOT NULL');
    },
  };
}

/** One measurement of the steady state. */
export async function measureRound(
  variant: Variant,
  plan: { due: number; warmUpSeconds: number; seconds: number },
): Promise<Round> {
  const look = async (pids: readonly number[]) => ({
    at: performance.now(),
    counts: await readCounts(variant.url),
    own: secondsOf([variant.pid]),
    endpoint: secondsOf([variant.endpointPid]),
    postgres: secondsOf(pids),
    self: process.cpuUsage(),
    machine: machineSeconds(),
  });
  const { count: first } = await readCounts(variant.url);
  /** Waits so long, or until so much of what was due is done, so that nothing is measured that had run dry. */
  const wait = async (seconds: number, share: number) => {
    const until = performance.now() + seconds * 1_000;
    while (performance.now() < until && (await readCounts(variant.url)).count - first < plan.due * share) {
      await sleep(Math.min(50, Math.max(0, until - performance.now())));
    }
  };
  await variant.begin(plan.due);
  while ((await readCounts(variant.url)).count === first) await sleep(20);
  await wait(plan.warmUpSeconds, 0.25);
  const pids = await postgresPids(variant.db);
  const before = await look(pids);
  await wait(plan.seconds, 0.9);
  const after = await look(pids);
  const resident = residentMegabytes(variant.pid);
  await variant.end();
  const refreshes = after.counts.count - before.counts.count;
  const seconds = (after.at - before.at) / 1_000;
  const used = (part: 'own' | 'endpoint' | 'postgres') => secondsBetween(before[part], after[part]);
  const self = process.cpuUsage(before.self);
  const ours = used('own') + used('endpoint') + used('postgres') + (self.user + self.system) / 1e6;
  return {
    perSecond: refreshes / seconds,
    refreshes,
    seconds,
    cpuMicros: (used('own') / refreshes) * 1e6,
    postgresMicros: (used('postgres') / refreshes) * 1e6,
    endpointMicros: (used('endpoint') / refreshes) * 1e6,
    residentMegabytes: resident,
    othersShare: Math.max(0, after.machine - before.machine - ours) / seconds,
    load: loadavg()[0] ?? 0,
  };
}
