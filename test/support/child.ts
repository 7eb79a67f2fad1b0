import { spawn } from 'node:child_process';
import { connect } from 'node:net';
import { until } from './until.js';

/** What the server's log says when it has begun, and where. */
export const LISTENING = /"url":"([^"]+)".*"msg":"listening"/;

/** How a program ended. */
export interface Ending {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** A program in a process of its own, which outlives neither this one nor the test file that starts it. */
export interface Child {
  readonly pid: number;
  /** Everything that it wrote so far, on both streams. */
  output(): string;
  /** The same, apart. */
  readonly written: { stdout: string; stderr: string };
  /** Resolves when it has ended and everything that it wrote was read. */
  readonly exited: Promise<Ending>;
  isRunning(): boolean;
  /** The first group of `pattern` where what it writes holds it; rejects if it ends before it does. */
  tells(pattern: RegExp): Promise<string>;
  /** Waits until `attempt` holds; rejects if it ends before it does. */
  until(attempt: () => boolean | Promise<boolean>): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Sends the signal and waits for the end. */
  end(signal: NodeJS.Signals): Promise<void>;
}

export interface ChildOptions {
  cwd?: string;
  /** Absent: this process's. */
  env?: NodeJS.ProcessEnv;
  uid?: number;
  gid?: number;
  argv0?: string;
  /** Nothing that it writes is kept. */
  silent?: boolean;
  /** What it is sent when the test file or this process ends: SIGKILL, but where it has children that have to end with it. */
  lastSignal?: NodeJS.Signals;
}

interface Running {
  exited: Promise<Ending>;
  end(): void;
}

const running = new Set<Running>();

process.once('exit', () => {
  for (const { end } of running) end();
});

/** Ends what is left running; `each-file.ts` does it when a test file ends. */
export async function endChildren(): Promise<void> {
  await Promise.all(
    [...running].map(({ end, exited }) => {
      end();
      return exited;
    }),
  );
}

/** Starts `program`, of which messages speak as `name`. */
export function startChild(
  name: string,
  program: string,
  args: readonly string[],
  { silent = false, lastSignal = 'SIGKILL', ...options }: ChildOptions = {},
): Child {
  const kept = silent ? 'ignore' : 'pipe';
  const child = spawn(program, args, { ...options, stdio: ['ignore', kept, kept] });
  const written = { stdout: '', stderr: '' };
  let output = '';
  let isRunning = true;
  const readers = new Set<() => void>();
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream]?.setEncoding('utf8').on('data', (text: string) => {
      written[stream] += text;
      output += text;
      for (const read of readers) read();
    });
  }
  child.once('error', (error) => (output += error.message)).once('exit', () => (isRunning = false));
  const exited = new Promise<Ending>((resolve) =>
    child.once('close', (code, signal) => {
      isRunning = false;
      running.delete(entry);
      resolve({ code, signal });
    }),
  );
  const entry: Running = { exited, end: () => void child.kill(lastSignal) };
  running.add(entry);
  const ended = ({ code, signal }: Ending) => new Error(`${name} ended (${code ?? signal}):\n${output}`);
  return {
    pid: child.pid ?? 0,
    output: () => output,
    written,
    exited,
    isRunning: () => isRunning,
    tells: (pattern) =>
      new Promise((resolve, reject) => {
        const read = () => {
          const found = pattern.exec(output)?.[1];
          if (found === undefined) return;
          readers.delete(read);
          resolve(found);
        };
        readers.add(read);
        read();
        void exited.then((ending) => reject(ended(ending)));
      }),
    until: (attempt) =>
      until(async () => {
        if (!isRunning) throw ended(await exited);
        return attempt();
      }),
    signal: (signal) => void child.kill(signal),
    end: async (signal) => {
      child.kill(signal);
      await exited;
    },
  };
}

/** Whether something takes connections at this port of this machine. */
export const isListening = (port: number): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
