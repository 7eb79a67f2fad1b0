import { createHash, randomBytes } from 'node:crypto';
import { link, mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { createConnection, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** The longest address of a Unix socket that every platform takes. */
const MAX_SOCKET_PATH = 85;

/** Ends the name that says that its socket's process has the folder. */
const MARK = '.held';

/** Another living process has the folder. */
export class FolderLockedError extends Error {
  readonly folder: string;

  constructor(folder: string) {
    super(`Another process is using the data folder ${folder}.`);
    this.name = 'FolderLockedError';
    this.folder = folder;
  }
}

/** Named by the folder's identity, so that a symbolic link or another spelling of the path finds the same lock. */
async function socketPath(folder: string): Promise<string> {
  const inside = join(folder, 'lock.sock');
  if (inside.length <= MAX_SOCKET_PATH) return inside;
  const { dev, ino } = await stat(folder);
  return join(tmpdir(), `latchkey-${createHash('sha256').update(`${dev}:${ino}`).digest('hex').slice(0, 16)}.sock`);
}

function listen(path: string): Promise<Server> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.unref();
    server.once('error', reject);
    server.listen(path, () => resolve(server));
  });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = createConnection(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('close', () => socket.destroy());
  });
}

/**
 * Moves a lock that nobody answers on out of the way.
 *
 * Between the look and the move another contender may have put its own living lock there; it answers from its new
 * place too, and is put back.
 *
 * @returns whether the lock was really dead.
 */
async function buryDeadLock(path: string, grave: string): Promise<boolean> {
  try {
    await rename(path, grave);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return true;
    throw error;
  }
  const alive = await answers(grave);
  // Where a third contender was faster, it finds the living one by its mark.
  if (alive) await linkUnlessThere(grave, path);
  await rm(grave, { force: true });
  return !alive;
}

/** @returns false where the name is taken. */
async function linkUnlessThere(from: string, to: string): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Lets one of several contenders through, normally. */
async function contend(path: string, own: string): Promise<boolean> {
  for (let attempt = 0; attempt < 4; attempt += 1) {
    if (await linkUnlessThere(own, path)) return true;
    if ((await answers(path)) || !(await buryDeadLock(path, `${own}.dead`))) return false;
  }
  return false;
}

/** Whether somebody else has marked the folder and lives. Marks of the dead are removed: no name is used twice. */
async function isMarkedByOther(stem: string, mark: string): Promise<boolean> {
  const folder = dirname(stem);
  const prefix = `${basename(stem)}.`;
  for (const name of await readdir(folder)) {
    const other = join(folder, name);
    if (!name.startsWith(prefix) || !name.endsWith(MARK) || other === mark) continue;
    if (await answers(other)) return true;
    await rm(other, { force: true });
  }
  return false;
}

/**
 * Takes a folder for this process alone, until released or until the process dies, however it dies.
 *
 * The lock is a listening Unix socket: the kernel closes it with the process, so a lock left behind is told from a
 * living one by connecting to it, without trusting process ids or the age of a file. The socket is bound under a name
 * of its own and then linked to the lock's name, which only one contender can do.
 *
 * Where a dead lock is in the way, the link alone would not do: while several contenders clear it away, a living one can
 * be moved and replaced. Therefore who has the link marks the folder under a name of its own, and then looks for other
 * marks. Of two that marked, the later sees the earlier and withdraws; both may, but never neither.
 *
 * @throws {FolderLockedError} a living process holds it, or takes it right now.
 */
export async function lockFolder(folder: string): Promise<{ release(): Promise<void> }> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const path = await socketPath(folder);
  const stem = path.slice(0, -'.sock'.length);
  const own = `${stem}.${randomBytes(3).toString('hex')}`;
  const mark = `${own}${MARK}`;
  const server = await listen(own);
  const close = () => new Promise<void>((resolve) => server.close(() => resolve()));
  let hasLink = false;
  try {
    hasLink = await contend(path, own);
    if (!hasLink) throw new FolderLockedError(folder);
    // Only now: a socket that is bound but does not listen yet looks dead.
    await rename(own, mark);
    if (await isMarkedByOther(stem, mark)) throw new FolderLockedError(folder);
  } catch (error) {
    await Promise.all([rm(own, { force: true }), rm(mark, { force: true })]);
    if (hasLink) await rm(path, { force: true });
    await close();
    throw error;
  }
  return {
    release: async () => {
      await rm(path, { force: true });
      await rm(mark, { force: true });
      await close();
    },
  };
}
