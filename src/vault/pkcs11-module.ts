import { createRequire } from 'node:module';
import type * as Binding from 'pkcs11js';
import { RootKeyInvalidError } from './errors.js';

/** A shared library of a token's maker, as PKCS#11 knows it: one state for the whole process. */
export interface Pkcs11Module {
  binding: typeof Binding;
  library: Binding.PKCS11;
  /** Runs one after another whatever uses the library: a session does one operation at a time. */
  inTurn<T>(run: () => Promise<T>): Promise<T>;
  /** Begins anew, so that tokens that have come, gone or come back are seen. Every session and login ends. */
  restart(): void;
}

const loaded = new Map<string, Pkcs11Module>();

/**
 * Loads a library, once for the process.
 *
 * @throws {RootKeyInvalidError} it cannot be loaded, or the package that does so is not there.
 */
export function loadPkcs11Module(path: string): Pkcs11Module {
  const known = loaded.get(path);
  if (known !== undefined) return known;
  const binding = loadBinding();
  const library = new binding.PKCS11();
  try {
    library.load(path);
    initialize(binding, library);
  } catch (error) {
    throw new RootKeyInvalidError(`The PKCS#11 library ${path} cannot be used: ${codeOf(error)}.`);
  }
  let last: Promise<unknown> = Promise.resolve();
  const pkcs11: Pkcs11Module = {
    binding,
    library,
    inTurn: (run) => {
      const turn = last.then(run);
      // The next one begins whatever becomes of this one, which tells its own caller.
      last = turn.catch(() => undefined);
      return turn;
    },
    restart: () => {
      try {
        library.C_Finalize();
      } catch {
        // It was not running: a restart before this one came only so far.
      }
      initialize(binding, library);
    },
  };
  loaded.set(path, pkcs11);
  return pkcs11;
}

function loadBinding(): typeof Binding {
  try {
    return createRequire(import.meta.url)('pkcs11js') as typeof Binding;
  } catch {
    throw new RootKeyInvalidError(
      'PKCS#11 needs the package pkcs11js with its native part: npm rebuild pkcs11js --ignore-scripts=false',
    );
  }
}

function initialize(binding: typeof Binding, library: Binding.PKCS11): void {
  try {
    // Operations run on other threads, so that a slow token does not hold the process up.
    library.C_Initialize({ flags: binding.CKF_OS_LOCKING_OK });
  } catch (error) {
    if (codeOf(error) !== 'CKR_CRYPTOKI_ALREADY_INITIALIZED') throw error;
  }
}

/** `CKR_…`, or another short word: the messages of the package are nothing else. */
export function codeOf(error: unknown): string {
  const { message } = error as Error;
  return /^CKR_[A-Z0-9_]+$/.test(message) ? message : 'it does not load';
}
