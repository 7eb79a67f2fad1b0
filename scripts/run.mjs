import { spawn } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Folder of the repository, with a slash at its end. */
export const root = fileURLToPath(new URL('..', import.meta.url));

const path = [join(root, 'node_modules/.bin'), dirname(process.execPath), process.env.PATH].join(delimiter);

/**
 * Runs a command line of ours in the repository, with its tools on the path. A signal to this process goes to the
 * command, and ends this process once the command has ended.
 *
 * @param onStart gets the child process.
 * @returns whether it succeeded and what it printed, which is '' when `inherit` let it print by itself.
 */
export function run(command, { env = {}, inherit = false, onStart = () => undefined } = {}) {
  return new Promise((resolve, reject) => {
    const output = inherit ? 'inherit' : 'pipe';
    const child = spawn(command, {
      cwd: root,
      shell: true,
      env: { ...process.env, PATH: path, ...env },
      stdio: ['ignore', output, output],
      // A process group of its own, so that a signal reaches the tool behind the shell as well.
      detached: !inherit,
    });
    const chunks = [];
    if (!inherit) for (const stream of [child.stdout, child.stderr]) stream.on('data', (chunk) => chunks.push(chunk));
    let signalled = 0;
    const stop = (signal, number) => {
      // npm takes its time to tidy up; who asks twice does not want to wait for it.
      const sent = signalled > 0 ? 'SIGKILL' : signal;
      if (child.pid === undefined || child.exitCode !== null) return;
      if (inherit) child.kill(sent);
      else process.kill(-child.pid, sent);
      signalled = number;
    };
    process.on('SIGINT', stop).on('SIGTERM', stop);
    child.once('spawn', () => onStart(child)).once('error', reject);
    child.once('close', (code) => {
      process.off('SIGINT', stop).off('SIGTERM', stop);
      if (signalled > 0) process.exit(128 + signalled);
      resolve({ ok: code === 0, output: Buffer.concat(chunks).toString() });
    });
  });
}

/** Seconds since `start`, a reading of `performance.now()`, to one decimal. */
export function seconds(start) {
  return `${((performance.now() - start) / 1000).toFixed(1)} s`;
}
