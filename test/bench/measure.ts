import { fork, spawn, type ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';

export interface Sample {
  rps: number;
  total: number;
  p50: number;
  p99: number;
  failed: number;
  /** Processor time of the server for one request. */
  cpuMicros: number;
}

export interface Target {
  name: string;
  readonly pid: number;
  url: string;
  headers: Record<string, string>;
  requests: { method: 'GET' | 'POST'; path: string; body?: string }[];
}

/** Clock ticks of the kernel's accounting, a second. */
const TICKS = 100;

export function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]?.split(' ') ?? [];
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

export function residentMegabytes(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1_024;
}

/** Sends load to a target for some seconds. */
export async function sample(target: Target, connections: number, seconds: number): Promise<Sample> {
  const load = fork(new URL('load.ts', import.meta.url), { execArgv: ['--import', 'tsx'] });
  const before = cpuSeconds(target.pid);
  const answer = await new Promise<Omit<Sample, 'cpuMicros'>>((resolve, reject) => {
    load.once('message', resolve);
    load.once('error', reject);
    const { url, headers, requests } = target;
    load.send({ url, connections, seconds, headers, requests });
  });
  const cpuMicros = ((cpuSeconds(target.pid) - before) / answer.total) * 1e6;
  load.kill();
  return { ...answer, cpuMicros };
}

/** Starts a program and resolves when it prints a line that `ready` recognises. It does not outlive this process. */
export function startServer(
  args: readonly string[],
  env: Record<string, string>,
  ready: (line: string) => string | undefined,
): Promise<{ child: ChildProcess; pid: number; value: string }> {
  const child = spawn(process.execPath, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const kill = () => child.kill('SIGKILL');
  process.once('exit', kill);
  child.once('close', () => process.off('exit', kill));
  return new Promise((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`${args.join(' ')} ended with ${code}`)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      const value = ready(line);
      if (value !== undefined) resolve({ child, pid: child.pid ?? 0, value });
    });
  });
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? 0;
};
