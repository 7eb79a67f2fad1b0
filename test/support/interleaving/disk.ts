import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll } from 'vitest';
import { createSpool, type Spool, type SpoolCipher, type Spooled } from '../../../src/spool/spool.js';
import type { Actor } from './steps.js';
import { quiet } from './quiet.js';

/** The disk of one machine, on which one process after the other keeps its spool. */
export interface Disk {
  /** The product's own spool, each use of it a step. Removing a file is waited for before the folder is read. */
  spoolFor(actor: Actor, cipher: SpoolCipher, onKept: (spooled: Spooled) => Promise<void>): Spool;
  clear(): Promise<void>;
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/** An empty one, removed after the test file. */
export async function createDisk(): Promise<Disk> {
  const folder = await mkdtemp(join(tmpdir(), 'latchkey-disk-'));
  afterAll(() => rm(folder, { recursive: true, force: true }));
  let held = 0;

  /** What is settled is removed in the background. */
  async function settled(): Promise<void> {
    while ((await readdir(folder)).length > held) await turn();
  }

  const counting = (spooled: Spooled): Spooled => ({
    ...spooled,
    settle: () => {
      held -= 1;
      spooled.settle();
    },
  });

  return {
    spoolFor: (actor, cipher, onKept) => {
      const spool = createSpool({ disk: { folder, cipher }, log: quiet.log });
      return {
        prepare: async () => {
          const keep = await spool.prepare();
          return (entry) =>
            actor.step('spools', async () => {
              const spooled = await keep(entry);
              held += 1;
              await onKept(spooled);
              return counting(spooled);
            });
        },
        postponed: () => spool.postponed(),
        unsettled: (options) =>
          actor.step('looks into its spool', async () => {
            await settled();
            return (await spool.unsettled(options)).map(counting);
          }),
      };
    },
    clear: async () => {
      await settled();
      for (const file of await readdir(folder)) await rm(join(folder, file), { force: true });
      held = 0;
    },
  };
}
