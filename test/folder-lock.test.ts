import { link, mkdir, mkdtemp, readdir, rm, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { FolderLockedError, lockFolder } from '../src/database/folder-lock.js';
import { startChild } from './support/child.js';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'latchkey-lock-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

let count = 0;
const newFolder = () => join(base, `folder-${(count += 1)}`);

/** A process that holds the lock of `folder` until it is killed. */
async function holdElsewhere(folder: string) {
  const source = new URL('../src/database/folder-lock.ts', import.meta.url).href;
  const script = `
    const { lockFolder } = await import(${JSON.stringify(source)});
    await lockFolder(${JSON.stringify(folder)});
    process.stdout.write('held');
    setInterval(() => undefined, 1000);`;
  const child = startChild('The holder', process.execPath, ['--import', 'tsx', '--input-type=module', '-e', script]);
  await child.tells(/(held)/);
  return { kill: () => child.end('SIGKILL') };
}

test('the folder is made, for its owner alone', async () => {
  const folder = join(newFolder(), 'inner');
  const lock = await lockFolder(folder);
  expect((await stat(folder)).mode & 0o777).toBe(0o700);
  await lock.release();
});

test('a folder is locked once, also under another name, until it is released', async () => {
  const folder = newFolder();
  const lock = await lockFolder(folder);
  const alias = newFolder();
  await symlink(folder, alias);
  await expect(lockFolder(folder)).rejects.toThrow(FolderLockedError);
  await expect(lockFolder(`${folder}/../${folder.split('/').at(-1)}`)).rejects.toThrow(`Another process is using`);
  await expect(lockFolder(alias)).rejects.toThrow(FolderLockedError);
  await lock.release();
  await (await lockFolder(folder)).release();
  expect(await readdir(folder)).toEqual([]);
});

test('of many who ask at once exactly one gets it', async () => {
  const folder = newFolder();
  const tries = await Promise.allSettled(Array.from({ length: 20 }, () => lockFolder(folder)));
  const held = tries.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  expect(held).toHaveLength(1);
  expect(
    tries.filter((outcome) => outcome.status === 'rejected' && outcome.reason instanceof FolderLockedError),
  ).toHaveLength(19);
  await held[0]?.release();
});

test('another living process keeps it; one that was killed does not', async () => {
  const folder = newFolder();
  const holder = await holdElsewhere(folder);
  await expect(lockFolder(folder)).rejects.toThrow(FolderLockedError);
  await holder.kill();
  expect(await readdir(folder)).toContain('lock.sock');
  const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(folder)));
  const held = tries.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  expect(held.length).toBeLessThanOrEqual(1);
  for (const lock of held) await lock.release();
  await (await lockFolder(folder)).release();
  expect(await readdir(folder)).toEqual([]);
});

test('a lock left behind by the dead is never taken by two, however many clear it away at once', async () => {
  for (let round = 0; round < 150; round += 1) {
    const folder = newFolder();
    await mkdir(folder);
    await leaveDeadLock(join(folder, 'lock.sock'));
    const tries = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(folder)));
    const held = tries.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    expect(held.length).toBeLessThanOrEqual(1);
    for (const outcome of tries)
      if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(FolderLockedError);
    for (const lock of held) await lock.release();
    await (await lockFolder(folder)).release();
  }
});

/** A socket that nobody listens on any more. */
async function leaveDeadLock(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.own`, resolve));
  await link(`${path}.own`, path);
  await new Promise((resolve) => server.close(resolve));
}

test('a path too long for a socket can be locked all the same', async () => {
  const folder = join(newFolder(), 'x'.repeat(100));
  const lock = await lockFolder(folder);
  await expect(lockFolder(folder)).rejects.toThrow(FolderLockedError);
  await lock.release();
  await (await lockFolder(folder)).release();
});

test('a file where the folder should be is reported as the system does', async () => {
  const path = newFolder();
  await writeFile(path, '');
  await expect(lockFolder(path)).rejects.toMatchObject({ code: 'EEXIST' });
  await expect(lockFolder(join(path, 'inner'))).rejects.toMatchObject({ code: 'ENOTDIR' });
});

test('what else lies in the folder stays', async () => {
  const folder = newFolder();
  await mkdir(folder);
  await writeFile(join(folder, 'data'), 'kept');
  await (await lockFolder(folder)).release();
  expect(await readdir(folder)).toEqual(['data']);
});
