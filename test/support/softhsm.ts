import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CKF_SERIAL_SESSION, PKCS11 } from 'pkcs11js';
import { afterAll } from 'vitest';

const run = promisify(execFile);
export const PIN = 'SECRET-4321';
export const SO_PIN = 'so-4321';

/** A token of SoftHSM of its own, in a folder that goes with the test file. */
export interface SoftHsm {
  module: string;
  tokenLabel: string;
  pinFile: string;
  /** As docs/keys.md tells operators to. */
  createKey(label: string, ...more: string[]): Promise<void>;
  deleteKey(label: string): Promise<void>;
  changePin(from: string, to: string): Promise<void>;
  /** Another token, without keys, under any label. */
  createToken(label: string): Promise<void>;
  /** The files of the token go away, and come back. */
  hide(): Promise<void>;
  show(): Promise<void>;
  /** The token is taken out of its slot, and put back. */
  takeOut(): Promise<void>;
  putBack(): Promise<void>;
  /** The library as another part of the process uses it; something must have begun it. */
  library: PKCS11;
  /** Whether somebody in this process is logged in at the token. */
  isLoggedIn(): boolean;
  /** A library of its own, which has begun nowhere. */
  copyLibrary(): Promise<string>;
  /** Runs `work` while what begins finds no configuration. */
  withoutConfig<T>(work: () => Promise<T>): Promise<T>;
  /** OpenSC's library that writes down every call and makes it at this one. */
  createSpy(): Promise<{ module: string; calls(): Promise<string> }>;
}

/** `CKS_RO_USER_FUNCTIONS` of PKCS#11. */
const USER_IS_LOGGED_IN = 1;

const SPIES = ['/usr/lib/x86_64-linux-gnu/pkcs11-spy.so', '/usr/lib/aarch64-linux-gnu/pkcs11-spy.so'];

/**
 * Sets this process's SOFTHSM2_CONF, which the library reads when it begins: once for a test file. What another file of the
 * process had begun ends.
 */
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
  const library = new PKCS11();
  library.load(module);
  try {
    library.C_Finalize();
  } catch {
    // Nothing had begun it.
  }
  const createToken = async (label: string) => {
    await run('softhsm2-util', ['--init-token', '--free', '--label', label, '--so-pin', SO_PIN, '--pin', PIN]);
  };
  await createToken(tokenLabel);
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
    createToken,
    hide: () => rename(tokens, `${tokens}-away`),
    show: () => rename(`${tokens}-away`, tokens),
    takeOut: async () => {
      await rename(tokens, `${tokens}-out`);
      await mkdir(tokens);
    },
    putBack: async () => {
      await rm(tokens, { recursive: true });
      await rename(`${tokens}-out`, tokens);
    },
    library,
    isLoggedIn: () => {
      const slot = library.C_GetSlotList(true).find((each) => library.C_GetTokenInfo(each).label.trim() === tokenLabel);
      if (slot === undefined) throw new Error('The token is not there.');
      const session = library.C_OpenSession(slot, CKF_SERIAL_SESSION);
      const { state } = library.C_GetSessionInfo(session);
      library.C_CloseSession(session);
      return state === USER_IS_LOGGED_IN;
    },
    copyLibrary: async () => {
      const copy = join(folder, 'copy.so');
      await copyFile(module, copy);
      return copy;
    },
    withoutConfig: async (work) => {
      process.env['SOFTHSM2_CONF'] = join(folder, 'none');
      try {
        return await work();
      } finally {
        process.env['SOFTHSM2_CONF'] = config;
      }
    },
    createSpy: async () => {
      const spy = SPIES.find((path) => existsSync(path));
      if (spy === undefined)
        throw new Error('pkcs11-spy.so is missing: node scripts/softhsm.mjs installs it on Debian.');
      // A copy is a library of its own, which reads where it writes to.
      const [copy, log] = [join(folder, 'spy.so'), join(folder, 'spy.log')];
      await copyFile(spy, copy);
      process.env['PKCS11SPY'] = module;
      process.env['PKCS11SPY_OUTPUT'] = log;
      return { module: copy, calls: () => readFile(log, 'utf8') };
    },
  };
}
