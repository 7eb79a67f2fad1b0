import type { KeyObject } from 'node:crypto';
import { randomBytes } from 'node:crypto';
import { link, mkdir, open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from './config.js';
import { Secret } from './secret.js';
import { parseRootKeys } from './vault/root-key.js';
import { makeRootKeyFile, readRootKeyFile } from './vault/root-key-file.js';

/** The root keys as configured; in development one that is made once and kept in the data folder. */
export async function readRootKeys(config: Config, source: 'env' | 'file'): Promise<KeyObject[]> {
  const rules = { production: config.production };
  if (source === 'env' && config.rootKey !== null) return parseRootKeys(config.rootKey.reveal(), rules);
  if (config.rootKeyFile !== null) return readRootKeyFile(config.rootKeyFile, rules);
  const path = join(config.dataDir, 'root-key');
  await makeRootKeyFile(path);
  return readRootKeyFile(path, rules);
}

/** The admin key as configured; in development one that is made once and kept in the data folder, mode 0600. */
export async function readDevelopmentAdminKey(
  config: Config,
): Promise<{ adminKey: Secret; adminKeyFile: string | null; adminKeyIsNew: boolean }> {
  if (config.adminKey !== null) return { adminKey: config.adminKey, adminKeyFile: null, adminKeyIsNew: false };
  const adminKeyFile = join(config.dataDir, 'admin-key');
  await mkdir(config.dataDir, { recursive: true, mode: 0o700 });
  const adminKeyIsNew = await writeOnce(adminKeyFile, `latchkey_admin_${randomBytes(24).toString('base64url')}`);
  const adminKey = new Secret((await readFile(adminKeyFile, 'utf8')).trim());
  return { adminKey, adminKeyFile, adminKeyIsNew };
}

/**
 * Makes a file that appears under its name complete: a crash leaves none or a whole one.
 *
 * @returns false where the file is there already.
 */
async function writeOnce(path: string, content: string): Promise<boolean> {
  const draft = `${path}.${randomBytes(6).toString('hex')}`;
  const file = await open(draft, 'wx', 0o600);
  try {
    await file.writeFile(`${content}\n`);
    await file.sync();
    await link(draft, path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  } finally {
    await file.close();
    await rm(draft, { force: true });
  }
}
