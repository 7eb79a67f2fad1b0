import { readFile } from 'node:fs/promises';
import { type Config, ConfigError, readConfig } from './config.js';
import { FolderLockedError } from './database/folder-lock.js';
import { DatabaseUnreachableError } from './database/postgres.js';
import { ListenError } from './http/listener.js';
import { type Latchkey, startLatchkey } from './latchkey.js';
import { createLog } from './log.js';
import { RootKeyInvalidError, RootKeyMismatchError, VaultUnavailableError } from './vault/errors.js';

const print = (text: string) => process.stdout.write(`${text}\n`);
const complain = (text: string) => process.stderr.write(`${text}\n`);

const FOLDER_TROUBLES = new Set(['EACCES', 'EEXIST', 'EIO', 'ENOENT', 'ENOSPC', 'ENOTDIR', 'EPERM', 'EROFS']);

/** A sentence for the operator, where the failure is one that they can mend. */
function explain(error: unknown): string | null {
  const known = [
    ConfigError,
    DatabaseUnreachableError,
    FolderLockedError,
    ListenError,
    RootKeyInvalidError,
    RootKeyMismatchError,
  ];
  if (known.some((type) => error instanceof type)) return (error as Error).message;
  if (error instanceof VaultUnavailableError) {
    const { message, cause } = error;
    return cause instanceof Error ? `${message} (${cause.message}).` : `${message}.`;
  }
  const { code, path } = error as NodeJS.ErrnoException;
  if (code !== undefined && FOLDER_TROUBLES.has(code)) {
    return `The data folder cannot be used: the system answers ${code}${path === undefined ? '' : ` for ${path}`}. Set LATCHKEY_DATA_DIR to a folder that can be written.`;
  }
  // PostgreSQL's classes 28 (authorization) and 3D (no such database).
  if (code !== undefined && /^(28|3D)/.test(code))
    return `The database does not let us in (${code}). Check DATABASE_URL.`;
  return null;
}

async function welcome(latchkey: Latchkey): Promise<void> {
  const { publicUrl, sandbox, metricsUrl, adminKeyFile, adminKeyIsNew, database } = latchkey;
  print(`\nLatchkey is running at ${publicUrl} (${database === 'embedded' ? 'embedded database' : 'PostgreSQL'})\n`);
  print(`  GraphiQL       ${publicUrl}/graphql`);
  if (sandbox !== null) print(`  Zoom sandbox   ${sandbox.origin}  (a stand-in for Zoom: apps, users, consent)`);
  if (metricsUrl !== null) print(`  Metrics        ${metricsUrl}`);
  if (adminKeyFile !== null && adminKeyIsNew) {
    const key = (await readFile(adminKeyFile, 'utf8')).trim();
    print(`  Admin key      ${key}`);
    print(`                 shown once; kept in ${adminKeyFile}. Send it as "Authorization: Bearer <key>".`);
  } else if (adminKeyFile !== null) {
    print(`  Admin key      in ${adminKeyFile}`);
  }
  print(sandbox === null ? '' : `\n  Try next: npm run demo   (in a second terminal; plays the whole story)\n`);
}

/** Ends the process at once: timers that libraries have left behind would hold it for seconds. */
function fail(error: unknown): never {
  const sentence = explain(error);
  complain(sentence ?? `Latchkey cannot start: ${error instanceof Error ? (error.stack ?? error.message) : 'unknown'}`);
  process.exit(1);
}

function configure(): Config {
  try {
    return readConfig();
  } catch (error) {
    return fail(error);
  }
}

async function run(): Promise<void> {
  const config = configure();
  const started = startLatchkey(config, createLog(config.logLevel)).catch(fail);
  let stopping = false;
  const stop = () => {
    // A second signal does not cut the wait for refreshes short: that is what loses connections.
    if (stopping) return;
    stopping = true;
    if (!config.production) print('\nStopping: waiting for what is running.');
    void started.then((latchkey) => latchkey.close()).then(() => process.exit(0));
  };
  // From the first moment on: a start that is interrupted in its middle is finished and then undone.
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  const latchkey = await started;
  if (!stopping && !config.production) await welcome(latchkey);
}

await run();
