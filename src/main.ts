import { readFile } from 'node:fs/promises';
import { type Config, readConfig } from './config.js';
import { explain } from './explain.js';
import { type Latchkey, startLatchkey } from './latchkey.js';
import { createLog } from './log.js';

const print = (text: string) => process.stdout.write(`${text}\n`);
const complain = (text: string) => process.stderr.write(`${text}\n`);

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
