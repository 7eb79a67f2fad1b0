import { existsSync, readFileSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import type pg from 'pg';
import { cpuSeconds } from './measure.js';

/** Clock ticks of the kernel's accounting, a second. */
const TICKS = 100;

export const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Processor time that the whole machine has used. */
export function machineSeconds(): number {
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = readFileSync('/proc/stat', 'utf8')
    .split('\n', 1)[0]!
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) / TICKS;
}

/** Processor time of each of some processes; those that are gone, or run elsewhere, are left out. */
export const secondsOf = (pids: readonly number[]): Map<number, number> =>
  new Map(pids.filter((pid) => existsSync(`/proc/${pid}/stat`)).map((pid) => [pid, cpuSeconds(pid)]));

/** What processes that were there both times have used in between. */
export const secondsBetween = (before: ReadonlyMap<number, number>, after: ReadonlyMap<number, number>): number =>
  [...after].reduce((sum, [pid, seconds]) => sum + seconds - (before.get(pid) ?? seconds), 0);

/** Processes of the PostgreSQL server. */
export async function postgresPids(client: pg.Client): Promise<number[]> {
  const { rows } = await client.query<{ pid: number }>('SELECT pid FROM pg_stat_activity');
  return rows.map(({ pid }) => pid);
}

/** What the figures were measured on. */
export async function describeMachine(client: pg.Client) {
  const show = async (name: string) => {
    const { rows } = await client.query<Record<string, string>>(`SHOW ${name}`);
    return Object.values(rows[0] ?? {})[0] ?? '';
  };
  return {
    at: new Date(),
    cpus: cpus().length,
    model: cpus()[0]?.model ?? 'unknown',
    node: process.version,
    postgres: await show('server_version'),
    fsync: await show('fsync'),
    synchronousCommit: await show('synchronous_commit'),
    sharedBuffers: await show('shared_buffers'),
    load: loadavg(),
  };
}
