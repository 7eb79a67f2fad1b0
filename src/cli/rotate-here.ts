import { randomBytes } from 'node:crypto';
import type { Config } from '../config.js';
import { rewrapBatch, rotateSystemKey } from '../domain/tenant-key.js';
import { createLog } from '../log.js';
import { asOperator } from './installation.js';
import { CliError, type Output } from './output.js';

export async function rotateSystem(config: Config, output: Output): Promise<void> {
  await asOperator(config, ({ db, vault }) => rotateSystemKey({ db, vault, log: createLog('silent') }));
  output.result({ rotated: 'system' }, () => 'a new version of the system key seals from now on');
}

/** Wraps every key with the newest of the given root keys. May be stopped anywhere and run again. */
export async function rotateRoot(config: Config, output: Output): Promise<void> {
  const rewrapped = await asOperator(config, async ({ db, vault }) => {
    for (let total = 0; ;) {
      const turn = await rewrapBatch({ db, vault });
      total += turn.rewrapped;
      if (turn.pending === 0) return total;
      if (turn.rewrapped === 0) throw new CliError(`${turn.pending} keys could not be wrapped. Run it again.`);
      output.note(`${total} keys wrapped, ${turn.pending} to go`);
    }
  });
  output.result(
    { rewrapped, pending: 0 },
    () => `${rewrapped} keys were wrapped anew: the newest root key wraps every key, others may go`,
  );
}

/** Prints a new root key, and nothing else, to standard output. */
export function generateRootKey(output: Output): void {
  const key = randomBytes(32).toString('base64');
  output.note('A new root key. It is kept nowhere else:');
  output.result({ rootKey: key }, () => key);
}
