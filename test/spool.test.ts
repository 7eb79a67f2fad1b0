import { createCipheriv, createDecipheriv, randomBytes, randomUUID } from 'node:crypto';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLog } from '../src/log.js';
import { createSpool, type Keep, type SpoolCipher, type SpoolEntry } from '../src/spool/spool.js';
import { until } from './support/until.js';

let base: string;
beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'latchkey-spool-'));
});
afterAll(() => rm(base, { recursive: true, force: true }));

let count = 0;
const newFolder = () => join(base, `spool-${(count += 1)}`);

const newEntry = (): SpoolEntry => ({
  kind: 'renewal',
  tenantId: randomUUID(),
  grantId: randomUUID(),
  version: 3,
  content: randomBytes(200).toString('base64'),
});

const key = randomBytes(32);

/** Authenticated, and bound to the file's name, as the vault's is. */
const cipher: SpoolCipher = {
  sealer: async () => (file, content) => {
    const nonce = randomBytes(12);
    const aes = createCipheriv('aes-256-gcm', key, nonce).setAAD(Buffer.from(file));
    return Buffer.concat([nonce, aes.update(content), aes.final(), aes.getAuthTag()]);
  },
  open: async (file, sealed) => {
    if (sealed.length < 28) return null;
    const aes = createDecipheriv('aes-256-gcm', key, sealed.subarray(0, 12), { authTagLength: 16 });
    aes.setAAD(Buffer.from(file)).setAuthTag(sealed.subarray(-16));
    try {
      return Buffer.concat([aes.update(sealed.subarray(12, -16)), aes.final()]).toString();
    } catch {
      return null;
    }
  },
};

function newSpool(folder: string | null, using = cipher) {
  const lines: string[] = [];
  const spool = createSpool({
    disk: folder === null ? null : { folder, cipher: using },
    log: createLog('info', { write: (line) => void lines.push(line) }),
  });
  const keep: Keep = async (entry) => (await spool.prepare())(entry);
  return { lines, spool, keep };
}

/** Files look as old as if their process had been gone for two minutes. */
async function age(folder: string): Promise<void> {
  const then = new Date(Date.now() - 120_000);
  for (const file of await readdir(folder)) await utimes(join(folder, file), then, then);
}

test('what is kept is whole on the disk before it counts as kept, for its owner alone', async () => {
  const folder = newFolder();
  const entry = newEntry();
  const kept = await newSpool(folder).keep(entry);
  expect(kept.isDurable).toBe(true);
  const [file = ''] = await readdir(folder);
  const text = await readFile(join(folder, file), 'latin1');
  for (const hidden of [entry.content, entry.grantId, entry.tenantId]) expect(text).not.toContain(hidden);
  expect((await newSpool(folder).spool.unsettled({ all: true })).map((one) => one.entry)).toEqual([entry]);
  expect((await stat(folder)).mode & 0o777).toBe(0o700);
  expect((await stat(join(folder, file))).mode & 0o777).toBe(0o600);
});

test('what is settled leaves nothing behind, and its file stays until the last of its entries is settled', async () => {
  const folder = newFolder();
  const { keep } = newSpool(folder);
  const kept = await Promise.all(Array.from({ length: 100 }, () => keep(newEntry())));
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
  const dead = newSpool(folder);
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
  await newSpool(folder).keep(entry);
  const { spool } = newSpool(folder);
  expect(await spool.unsettled()).toEqual([]);
  await age(folder);
  expect((await spool.unsettled()).map((one) => one.entry)).toEqual([entry]);
});

test('what is postponed is given out again, and what is under way is not', async () => {
  const { spool, keep } = newSpool(newFolder());
  const [busy, late] = [await keep(newEntry()), await keep(newEntry())];
  late.postpone();
  expect((await spool.unsettled({ all: true })).map(({ entry }) => entry)).toEqual([late.entry]);
  busy.settle();
});

test('a file that was cut off, changed or renamed gives no entry', async () => {
  const folder = newFolder();
  await newSpool(folder).keep(newEntry());
  const [file = ''] = await readdir(folder);
  const whole = await readFile(join(folder, file));
  const flipped = (at: number) => whole.map((byte, index) => (index === at ? byte ^ 1 : byte));
  const isRefused = async (name: string, bytes: Uint8Array) => {
    const place = newFolder();
    await mkdir(place);
    await writeFile(join(place, name), bytes);
    const found = await newSpool(place).spool.unsettled({ all: true });
    await rm(place, { recursive: true });
    return found.length === 0;
  };
  await fc.assert(
    fc.asyncProperty(fc.nat(whole.length - 1), async (at) => {
      expect(await isRefused(file, whole.subarray(0, at))).toBe(true);
      expect(await isRefused(file, flipped(at))).toBe(true);
    }),
  );
  expect(await isRefused(`1${file}`, whole)).toBe(true);
});

test('a file whose key cannot be had stays where it is until it can be opened', async () => {
  const folder = newFolder();
  const entry = newEntry();
  await newSpool(folder).keep(entry);
  let isAway = true;
  const open: SpoolCipher['open'] = (file, sealed) =>
    isAway ? Promise.reject(new Error('The keys are away.')) : cipher.open(file, sealed);
  const { spool } = newSpool(folder, { ...cipher, open });
  expect(await spool.unsettled({ all: true })).toEqual([]);
  isAway = false;
  expect((await spool.unsettled({ all: true })).map((one) => one.entry)).toEqual([entry]);
});

test('a damaged file is put aside once, told, and never read again', async () => {
  const folder = newFolder();
  await newSpool(folder).keep(newEntry());
  const [file = ''] = await readdir(folder);
  await writeFile(join(folder, file), (await readFile(join(folder, file))).subarray(0, -20));
  const { spool, lines } = newSpool(folder);
  expect(await spool.unsettled({ all: true })).toEqual([]);
  expect(await spool.unsettled({ all: true })).toEqual([]);
  expect(lines.filter((line) => line.includes('damaged'))).toHaveLength(1);
  expect(await readdir(folder)).toEqual([`${file}.damaged`]);
});

test('what was being written when a process died is no entry, and is cleared away later', async () => {
  const folder = newFolder();
  await mkdir(folder);
  await writeFile(join(folder, '1-2-3.tmp'), 'half an entry');
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
  const { spool, keep, lines } = newSpool(blocked);
  const entry = newEntry();
  const kept = await keep(entry);
  expect(kept.isDurable).toBe(false);
  expect(lines.filter((line) => line.includes('could not be written to the spool'))).toHaveLength(1);
  kept.postpone();
  expect((await spool.unsettled()).map((one) => one.entry)).toEqual([entry]);
});

test('without a folder entries are kept in memory only', async () => {
  const { spool, keep, lines } = newSpool(null);
  const kept = await keep(newEntry());
  expect(kept.isDurable).toBe(false);
  kept.postpone();
  expect((await spool.unsettled()).map(({ entry }) => entry)).toEqual([kept.entry]);
  expect(lines).toEqual([]);
});
