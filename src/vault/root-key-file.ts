import { randomBytes, type KeyObject } from 'node:crypto';
import { link, mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { KEY_BYTES } from './aead.js';
import { RootKeyInvalidError } from './errors.js';
import { parseRootKeys, type RootKeyRules } from './root-key.js';

const OWNER_ONLY = 0o600;
const OWNER_ONLY_FOLDER = 0o700;
const GROUP_AND_WORLD = 0o077;
/** Room for hundreds of keys; guards against a path that was meant for something else. */
const MAX_FILE_BYTES = 65_536;

/**
 * Reads root keys from a file, written as for `parseRootKeys`.
 *
 * @throws {RootKeyInvalidError} it cannot be read, others than its owner may use it, or a key in it cannot be used.
 */
export async function readRootKeyFile(path: string, rules: RootKeyRules): Promise<KeyObject[]> {
  try {
    return parseRootKeys(await readOwnFile(path), rules);
  } catch (error) {
    throw new RootKeyInvalidError(`The root key file ${path} cannot be used: ${explain(error)}`);
  }
}

/**
 * Reads the PIN of a token from a file; white space around it does not count.
 *
 * @throws {RootKeyInvalidError} it cannot be read, is empty, or others than its owner may use it.
 */
export async function readPinFile(path: string): Promise<string> {
  try {
    const pin = (await readOwnFile(path)).trim();
    if (pin === '') throw new RootKeyInvalidError('it is empty.');
    return pin;
  } catch (error) {
    throw new RootKeyInvalidError(`The PIN file ${path} cannot be used: ${explain(error)}`);
  }
}

async function readOwnFile(path: string): Promise<string> {
  const file = await open(path, 'r');
  try {
    return await readPrivately(file);
  } finally {
    await file.close();
  }
}

/** Looks at the very file that is open, so that it cannot be exchanged between the look and the read. */
async function readPrivately(file: FileHandle): Promise<string> {
  const { mode, size } = await file.stat();
  if ((mode & GROUP_AND_WORLD) !== 0) {
    throw new RootKeyInvalidError('its group or everyone may use it; set its mode to 0600 or 0400.');
  }
  if (size > MAX_FILE_BYTES) throw new RootKeyInvalidError('it is too large.');
  return file.readFile('utf8');
}

function explain(error: unknown): string {
  if (error instanceof RootKeyInvalidError) return error.message;
  const { code } = error as NodeJS.ErrnoException;
  if (code === undefined) throw error;
  return code === 'ENOENT' ? 'it does not exist.' : `the system answers ${code}.`;
}

/**
 * Makes a file with one random root key where there is none, and its folder: for development, where losing the key
 * costs nothing that matters.
 *
 * The file appears under its name in one step and complete, so processes that start at once end up with the same key,
 * and a crash leaves none or a whole one. Durable when it resolves.
 *
 * @returns whether this call made it.
 */
export async function makeRootKeyFile(path: string): Promise<boolean> {
  const folder = dirname(path);
  await mkdir(folder, { recursive: true, mode: OWNER_ONLY_FOLDER });
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await writeDraft(draft);
    return await linkUnlessThere(draft, path);
  } finally {
    await rm(draft, { force: true });
    await syncFolder(folder);
  }
}

async function writeDraft(draft: string): Promise<void> {
  const file = await open(draft, 'wx', OWNER_ONLY);
  try {
    await file.writeFile(`${randomBytes(KEY_BYTES).toString('base64')}\n`);
    await file.sync();
  } finally {
    await file.close();
  }
}

/** Unlike a rename, a link never replaces a file that another process has put there meanwhile. */
async function linkUnlessThere(draft: string, path: string): Promise<boolean> {
  try {
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
