import { appendFileSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

const HEARTBEAT_MS = 2_000;
const SILENCE_MS = 300_000;

function isAlive(pid) {
  try {
    process.kill(pid, 0);
    return pid !== process.pid;
  } catch (error) {
    return error.code === 'EPERM';
  }
}

/**
 * Whether all processes that the lock file names are dead or, since process ids are reused, none has touched it for
 * long. A file that is gone, or not written yet, is not abandoned.
 */
function isAbandoned(file) {
  try {
    const pids = readFileSync(file, 'utf8').split('\n').filter(Boolean).map(Number);
    return (pids.length > 0 && !pids.some(isAlive)) || Date.now() - statSync(file).mtimeMs > SILENCE_MS;
  } catch (error) {
    if (error.code === 'ENOENT') return false;
    throw error;
  }
}

/** Whether the lock file is there and ours. */
function isOurs(file) {
  try {
    return readFileSync(file, 'utf8') === `${process.pid}\n`;
  } catch (error) {
    if (error.code === 'ENOENT') return false;
    throw error;
  }
}

async function acquire(file) {
  let told = false;
  for (;;) {
    try {
      writeFileSync(file, `${process.pid}\n`, { flag: 'wx' });
      // Two that waited may both have removed an abandoned lock, one of them the other's new one: the later one has it.
      await sleep(50);
      if (isOurs(file)) return;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      if (isAbandoned(file)) {
        rmSync(file, { force: true });
        continue;
      }
    }
    if (!told) process.stderr.write('setup: another one is at work, waiting for it\n');
    told = true;
    await sleep(200);
  }
}

/**
 * Runs `work` while no other process runs its own under the same lock file. `work` gets a function that makes a child
 * process a holder too: were this process killed, the child would go on, and the lock with it.
 */
export async function withLock(file, work) {
  await acquire(file);
  const release = () => rmSync(file, { force: true });
  process.once('exit', release);
  const heartbeat = setInterval(() => utimesSync(file, new Date(), new Date()), HEARTBEAT_MS);
  try {
    return await work((child) => appendFileSync(file, `${child.pid}\n`));
  } finally {
    clearInterval(heartbeat);
    process.off('exit', release);
    release();
  }
}
