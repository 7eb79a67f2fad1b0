import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll } from 'vitest';

const run = promisify(execFile);
const PIN = 'SECRET-4321';

/** A token of SoftHSM of its own, in a folder that goes with the test file. */
export interface SoftHsm {
  module: string;
  tokenLabel: string;
  pinFile: string;
  /** As docs/keys.md tells operators to. */
  createKey(label: string, ...more: string[]): Promise<void>;
  deleteKey(label: string): Promise<void>;
  changePin(from: string, to: string): Promise<void>;
  /** The files of the token go away, and come back. */
  hide(): Promise<void>;
  show(): Promise<void>;
}

/** Sets this process's SOFTHSM2_CONF, which the library reads: once for a test file. */
export async function createSoftHsm(): Promise<SoftHsm> {
  const module = [
    '/usr/lib/softhsm/libsofthsm2.so',
    '/usr/local/lib/softhsm/libsofthsm2.so',
    '/usr/lib64/pkcs11/libsofthsm2.so',
  ].find((path) => existsSync(path));
  if (module === undefined) throw new Error('SoftHSM is missing: node scripts/softhsm.mjs installs it on Debian.');
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-softhsm-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  const tokens = join(folder, 'tokens');
  const pinFile = join(folder, 'pin');
  const tokenLabel = 'latchkey';
  await mkdir(tokens);
  await writeFile(pinFile, `${PIN}\n`, { mode: 0o600 });
  const config = join(folder, 'softhsm2.conf');
  await writeFile(config, `directories.tokendir = ${tokens}\nobjectstore.backend = file\nlog.level = ERROR\n`);
  process.env['SOFTHSM2_CONF'] = config;
  await run('softhsm2-util', ['--init-token', '--free', '--label', tokenLabel, '--so-pin', 'so-4321', '--pin', PIN]);
  const tool = (...options: string[]) =>
    run('pkcs11-tool', ['--module', module, '--token-label', tokenLabel, '--login', '--pin', PIN, ...options]);
  return {
    module,
    tokenLabel,
    pinFile,
    createKey: async (label, ...more) => {
      await tool('--keygen', '--key-type', 'aes:32', '--label', label, ...(more.length > 0 ? more : ['--sensitive']));
    },
    deleteKey: async (label) => {
      await tool('--delete-object', '--type', 'secrkey', '--label', label);
    },
    changePin: async (from, to) => {
      const login = ['--module', module, '--token-label', tokenLabel, '--login', '--pin', from];
      await run('pkcs11-tool', [...login, '--change-pin', '--new-pin', to]);
    },
    hide: () => rename(tokens, `${tokens}-away`),
    show: () => rename(`${tokens}-away`, tokens),
  };
}
