import { randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLog } from '../src/log.js';
import { encodeEntries, parseEntries, type SpoolEntry } from '../src/spool/spool-file.js';
import { createSpool } from '../src/spool/spool.js';
import { until } from './support/until.js';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'latchkey-spool-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

let count = 0;
const newFolder = () => join(base, `spool-${(count += 1)}`);

const newEntry = (): SpoolEntry => ({
  tenantId: randomUUID(),
  grantId: randomUUID(),
  version: 3,
  sealed: new Uint8Array(randomBytes(200)),
});

function newSpool(folder: string | null) {
  const lines: string[] = [];
  return { lines, spool: createSpool({ folder, log: createLog('info', { write: (line) => void lines.push(line) }) }) };
}

/** Files look as old as if their process had been gone for two minutes. */
async function age(folder: string): Promise<void> {
  const then = new Date(Date.now() - 120_000);
  for (const file of await readdir(folder)) await utimes(join(folder, file), then, then);
}

test('what is kept is whole on the disk before it counts as kept, for its owner alone', async () => {
  const folder = newFolder();
  const entry = newEntry();
  const kept = await newSpool(folder).spool.keep(entry);
  expect(kept.isDurable).toBe(true);
  const [file = ''] = await readdir(folder);
  expect(parseEntries(await readFile(join(folder, file), 'utf8'))).toEqual([entry]);
  expect((await stat(folder)).mode & 0o777).toBe(0o700);
  expect((await stat(join(folder, file))).mode & 0o777).toBe(0o600);
});

test('what is settled leaves nothing behind, and its file stays until the last of its entries is settled', async () => {
  const folder = newFolder();
  const { spool } = newSpool(folder);
  const kept = await Promise.all(Array.from({ length: 100 }, () => spool.keep(newEntry())));
  const files = await readdir(folder);
  // The first goes alone, the others wait for it and go together.
  expect(files).toHaveLength(2);
  for (const one of kept.slice(1)) one.settle();
  await until(async () => (await readdir(folder)).length === 1);
  kept[0]?.settle();
  await until(async () => (await readdir(folder)).length === 0);
});

test('what a process that died has left is found by the next one, once', async () => {
  const folder = newFolder();
  const entries = [newEntry(), newEntry()];
  const dead = newSpool(folder).spool;
  await Promise.all(entries.map((entry) => dead.keep(entry)));
  const { spool } = newSpool(folder);
  const found = await spool.unsettled({ all: true });
  expect(found.map(({ entry }) => entry)).toEqual(expect.arrayContaining(entries));
  expect(await spool.unsettled({ all: true })).toEqual([]);
  for (const one of found) one.settle();
  await until(async () => (await readdir(folder)).length === 0);
});

test('what another process has just written is left to it, and taken up when it has stayed a minute', async () => {
  const folder = newFolder();
  const entry = newEntry();
  await newSpool(folder).spool.keep(entry);
  const { spool } = newSpool(folder);
  expect(await spool.unsettled()).toEqual([]);
  await age(folder);
  expect((await spool.unsettled()).map((one) => one.entry)).toEqual([entry]);
});

test('what is postponed is given out again, and what is under way is not', async () => {
  const { spool } = newSpool(newFolder());
  const [busy, late] = [await spool.keep(newEntry()), await spool.keep(newEntry())];
  late.postpone();
  expect((await spool.unsettled({ all: true })).map(({ entry }) => entry)).toEqual([late.entry]);
  busy.settle();
});

test('a file that was cut off or changed anywhere gives no entry', () => {
  const text = encodeEntries([newEntry(), newEntry()]);
  fc.assert(
    fc.property(fc.nat(text.length - 1), (length) => {
      expect(parseEntries(text.slice(0, length))).toBeNull();
    }),
  );
  for (const broken of [text.replace('"version":3', '"version":"3"'), text.replace('end 2', 'end 3'), `${text}\n`]) {
    expect(parseEntries(broken)).toBeNull();
  }
});

test('a damaged file is put aside once, told, and never read again', async () => {
  const folder = newFolder();
  await newSpool(folder).spool.keep(newEntry());
  const [file = ''] = await readdir(folder);
  await writeFile(join(folder, file), (await readFile(join(folder, file), 'utf8')).slice(0, -20));
  const { spool, lines } = newSpool(folder);
  expect(await spool.unsettled({ all: true })).toEqual([]);
  expect(await spool.unsettled({ all: true })).toEqual([]);
  expect(lines.filter((line) => line.includes('damaged'))).toHaveLength(1);
  expect(await readdir(folder)).toEqual([`${file}.damaged`]);
});

test('what was being written when a process died is no entry, and is cleared away later', async () => {
  const folder = newFolder();
  await mkdir(folder);
  await writeFile(join(folder, '1-2-3.tmp'), encodeEntries([newEntry()]));
  const { spool } = newSpool(folder);
  expect(await spool.unsettled({ all: true })).toEqual([]);
  expect(await readdir(folder)).toHaveLength(1);
  await age(folder);
  expect(await spool.unsettled()).toEqual([]);
  expect(await readdir(folder)).toEqual([]);
});

test('a disk that fails is told and holds nothing up: what should be kept is kept in memory', async () => {
  const blocked = newFolder();
  await writeFile(blocked, 'a file where the folder should be');
  const { spool, lines } = newSpool(blocked);
  const entry = newEntry();
  const kept = await spool.keep(entry);
  expect(kept.isDurable).toBe(false);
  expect(lines.filter((line) => line.includes('could not be written to the spool'))).toHaveLength(1);
  kept.postpone();
  expect((await spool.unsettled()).map((one) => one.entry)).toEqual([entry]);
});

test('without a folder entries are kept in memory only', async () => {
  const { spool, lines } = newSpool(null);
  const kept = await spool.keep(newEntry());
  expect(kept.isDurable).toBe(false);
  kept.postpone();
  expect((await spool.unsettled()).map(({ entry }) => entry)).toEqual([kept.entry]);
  expect(lines).toEqual([]);
});
