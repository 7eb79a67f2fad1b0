import { randomBytes, randomUUID } from 'node:crypto';
import { chmod, mkdtemp, readdir, readFile, readlink, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RootKeyInvalidError } from '../src/vault/errors.js';
import { makeRootKeyFile, readPinFile, readRootKeyFile } from '../src/vault/root-key-file.js';

const rules = { production: true };
const value = randomBytes(32).toString('base64');

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'latchkey-root-key-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

async function fileWith(text: string, mode = 0o600): Promise<string> {
  const path = join(folder, randomUUID());
  await writeFile(path, text);
  await chmod(path, mode);
  return path;
}

/** What this process holds open in the folder, as Linux tells. */
async function openFiles(): Promise<string[]> {
  const paths = await Promise.all(
    (await readdir('/proc/self/fd')).map((name) => readlink(`/proc/self/fd/${name}`).catch(() => '')),
  );
  return paths.filter((path) => path.startsWith(folder));
}

describe('a root key file', () => {
  it.each([0o600, 0o400])('of mode %o is read', async (mode) => {
    const [key] = await readRootKeyFile(await fileWith(`${value}\n`, mode), rules);

    expect(key?.export().toString('base64')).toBe(value);
  });

  it.each([0o644, 0o640, 0o604, 0o660, 0o620, 0o610, 0o601, 0o444])('of mode %o is refused', async (mode) => {
    const path = await fileWith(value, mode);

    const reading = readRootKeyFile(path, rules);

    await expect(reading).rejects.toBeInstanceOf(RootKeyInvalidError);
    await expect(reading).rejects.toThrow(`The root key file ${path} cannot be used: its group or everyone may use it`);
  });

  it('of 64 KiB is read, and of one byte more is not', async () => {
    const path = await fileWith(value.padEnd(65_536));
    expect(await readRootKeyFile(path, rules)).toHaveLength(1);
    await writeFile(path, value.padEnd(65_537));
    await expect(readRootKeyFile(path, rules)).rejects.toThrow('it is too large.');
  });

  it('is not blamed for a mistake of ours', async () => {
    const mistake = new RangeError('ours');
    const broken = {
      get production(): boolean {
        throw mistake;
      },
    };
    await expect(readRootKeyFile(await fileWith(value), broken)).rejects.toBe(mistake);
  });

  it('is closed again, whatever came of it', async () => {
    await readRootKeyFile(await fileWith(value), rules);
    await readRootKeyFile(await fileWith(value, 0o644), rules).catch(() => undefined);
    await makeRootKeyFile(join(folder, 'closed', 'root-key'));
    expect(await openFiles()).toEqual([]);
  });

  it('that is missing, empty, too large or no file is refused by its path', async () => {
    const reading = (path: string) => readRootKeyFile(path, rules);

    await expect(reading(join(folder, 'none'))).rejects.toThrow(
      `${join(folder, 'none')} cannot be used: it does not exist.`,
    );
    await expect(reading(await fileWith('', 0o600))).rejects.toThrow('No root key is given.');
    await expect(reading(await fileWith('A'.repeat(70_000), 0o600))).rejects.toThrow('it is too large.');
    await expect(reading(folder)).rejects.toThrow(`${folder} cannot be used: the system answers EISDIR.`);
  });

  it('with a key that cannot be used is refused by path and position, without the key', async () => {
    const short = randomBytes(31).toString('base64');
    const path = await fileWith(`${value}\n${short}\n`, 0o600);

    const error = await readRootKeyFile(path, rules).catch((failure: unknown) => failure as Error);

    expect(String(error)).toContain(`${path} cannot be used: Root key 2 of 2 is base64 of 31 bytes`);
    expect(String(error)).not.toContain(short);
    expect(String(error)).not.toContain(value);
  });
});

describe('the root key file of development', () => {
  it('is made once, for its owner only, in a folder for its owner only', async () => {
    const path = join(folder, 'new', 'data', 'root-key');

    expect(await makeRootKeyFile(path)).toBe(true);
    const text = await readFile(path, 'utf8');
    expect(await makeRootKeyFile(path)).toBe(false);

    expect(await readFile(path, 'utf8')).toBe(text);
    expect((await stat(path)).mode & 0o777).toBe(0o600);
    expect((await stat(join(folder, 'new', 'data'))).mode & 0o777).toBe(0o700);
    expect(await readdir(join(folder, 'new', 'data'))).toEqual(['root-key']);
    expect(await readRootKeyFile(path, rules)).toHaveLength(1);
  });

  it('is the same for all that start at once, and exactly one of them made it', async () => {
    const path = join(folder, 'race', 'root-key');

    const starts = await Promise.all(
      Array.from({ length: 24 }, async () => {
        const made = await makeRootKeyFile(path);
        const [key] = await readRootKeyFile(path, rules);
        return { made, value: key?.export().toString('base64') };
      }),
    );

    expect(starts.filter(({ made }) => made)).toHaveLength(1);
    expect(new Set(starts.map(({ value }) => value)).size).toBe(1);
    expect(await readdir(join(folder, 'race'))).toEqual(['root-key']);
  });

  it('that cannot be made is told with the first thing that failed', async () => {
    await expect(makeRootKeyFile(join(folder, 'none/'))).rejects.toMatchObject({ code: 'ENOENT', syscall: 'open' });
  });

  it('is not replaced, whatever stands there', async () => {
    const path = join(folder, 'kept');
    await writeFile(path, 'something else');

    expect(await makeRootKeyFile(path)).toBe(false);
    expect(await readFile(path, 'utf8')).toBe('something else');
  });
});

describe('the file of a PIN', () => {
  it('gives the PIN without the white space around it', async () => {
    expect(await readPinFile(await fileWith(' \nSECRET 12 34\t\n'))).toBe('SECRET 12 34');
  });

  it('that is missing, empty or not for its owner alone is refused by its path', async () => {
    const blank = await fileWith(' \n');
    await expect(readPinFile(blank)).rejects.toEqual(
      new RootKeyInvalidError(`The PIN file ${blank} cannot be used: it is empty.`),
    );
    const shared = await fileWith('SECRET-1234', 0o640);
    await expect(readPinFile(shared)).rejects.toThrow(
      `The PIN file ${shared} cannot be used: its group or everyone may use it; set its mode to 0600 or 0400.`,
    );
    const none = join(folder, 'none');
    await expect(readPinFile(none)).rejects.toThrow(`The PIN file ${none} cannot be used: it does not exist.`);
  });
});
