import { access } from 'node:fs/promises';
import { join } from 'node:path';
import type { Config } from '../config.js';
import { openRootKeys } from '../root-keys.js';
import { RootKeyInvalidError } from '../vault/errors.js';
import type { RootKeyProvider } from '../vault/root-key.js';
import { failed, type Finding, passed, warned } from './doctor-finding.js';

const REMEDY =
  'Give base64 of 32 random bytes (latchkey rotate root --generate), in a file of mode 0600 or in LATCHKEY_ROOT_KEY.';

/** The root keys at hand; null where there are none that can be used. Makes none. */
export async function findRootKeys(config: Config): Promise<{ finding: Finding; rootKeys: RootKeyProvider | null }> {
  const isMade = config.rootKeySources.every(({ kind }) => kind === 'file') && config.rootKeyFile === null;
  if (isMade) {
    const path = join(config.dataDir, 'root-key');
    const isThere = await access(path).then(
      () => true,
      () => false,
    );
    if (!isThere) {
      const hint = 'For a server that others use, set LATCHKEY_ROOT_KEY or LATCHKEY_ROOT_KEY_FILE.';
      return { finding: warned('root key', `none yet; the first start makes one in ${path}`, hint), rootKeys: null };
    }
  }
  try {
    const rootKeys = await openRootKeys(config);
    const given = await rootKeys.describe();
    return { finding: passed('root key', `given: ${given.map(({ id }) => id).join(', ')}`), rootKeys };
  } catch (error) {
    if (!(error instanceof RootKeyInvalidError)) throw error;
    return { finding: failed('root key', error.message, REMEDY), rootKeys: null };
  }
}
