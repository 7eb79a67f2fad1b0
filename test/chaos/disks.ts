import { existsSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { calls, connectUser, expire, type Connection } from '../support/connections.js';
import { summary } from './client.js';
import { createCheck, type Experiment } from './experiment.js';
import { endedByItself, type Server, type StartOptions } from './stage.js';
import { connectMany } from './storms.js';
import { waitUntil } from './waiting.js';

const WAYS = ['ENOSPC', 'EIO on write', 'EIO on fdatasync', 'EIO on fsync of the folder'] as const;
const FIU = '/usr/lib/fiu';
const hasFiu = existsSync(`${FIU}/fiu_posix_preload.so`);
const READS = 12;

/** Half of what the C library is asked to sync fails; what that is of a kernel's fault, libfiu is of a call's. */
const syncsFailAtRandom: StartOptions = {
  settings: {
    LD_PRELOAD: `${FIU}/fiu_run_preload.so ${FIU}/fiu_posix_preload.so`,
    FIU_CTRL_FIFO: '',
    FIU_ENABLE: [
      'enable_random name=posix/io/sync/fsync,probability=0.5,failinfo=5',
      'enable_random name=posix/io/sync/fdatasync,probability=0.5,failinfo=28',
      '',
    ].join('\n'),
  },
};

const spoolOf = async ({ dataDir }: Server): Promise<string[]> => readdir(join(dataDir, 'spool')).catch(() => []);

const failing: Experiment = {
  id: 'X-23',
  injected: `the disk of the spool fails: ${WAYS.join(', ')}${hasFiu ? ', half of all syncs at random (libfiu)' : ''}; ${READS} refreshes at each process`,
  expected:
    'all are renewed with 1 call each and stored, without spool; the log says so; nothing is left in the spool, and nothing of it is taken up by a restart',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ deadline: 5, lease: 8 });
    const healthy = await stage.start();
    const ways: [string, StartOptions][] = WAYS.map((way) => [
      way,
      { preloads: ['spoil-disk.mjs'], settings: { LATCHKEY_CHAOS_DISK: way } },
    ]);
    if (hasFiu) ways.push(['libfiu', syncsFailAtRandom]);
    const told: string[] = [];
    const broken: Server[] = [];
    for (const [way, options] of ways) {
      const server = await stage.start(options);
      broken.push(server);
      const connections = await connectMany(healthy, READS);
      await expire(healthy, ...connections);
      const readings = [];
      for (const connection of connections) readings.push(await stage.read(server, connection));
      check.equal(way, summary(readings), `${READS} × Credential v2`);
      check.equal(`${way}: token requests`, calls(healthy, connections[0] as Connection).length, READS);
      const lines = server.process.output().split('tokens could not be written to the spool').length - 1;
      if (way === 'libfiu') check.that(lines > 0 && lines < READS, `${way}: the log told ${lines} times`);
      else check.equal(`${way}: lines of the log`, lines, READS);
      await waitUntil('the spool is empty', async () => (await spoolOf(server)).length === 0, 5).catch(async () =>
        check.that(false, `${way}: left ${(await spoolOf(server)).join(', ')}`),
      );
      told.push(`${way} told ${lines} times`);
    }
    for (const { dataDir, process } of broken) {
      process.signal('SIGTERM');
      await process.exited;
      const revived = await stage.start({ dataDir });
      check.that(!revived.process.output().includes('spooled tokens'), 'something was taken up by the restart');
    }
    return check.done(`${ways.length * READS} × Credential v2 with 1 call each; ${told.join(', ')}; spool empty`);
  },
};

/** What a file of the spool may look like after a disk has lost a part of it. */
const DAMAGES: Record<string, (file: Buffer) => Buffer> = {
  'cut in the middle': (file) => file.subarray(0, Math.floor(file.length / 2)),
  'cut by a byte': (file) => file.subarray(0, file.length - 1),
  empty: () => Buffer.alloc(0),
  'a block of zeros': (file) => Buffer.concat([file.subarray(0, file.length - 64), Buffer.alloc(64)]),
  'a bit turned': (file) => {
    const turned = Buffer.from(file);
    const at = Math.floor(turned.length * 0.7);
    turned[at] = (turned[at] ?? 0) ^ 1;
    return turned;
  },
};

const damaged: Experiment = {
  id: 'X-23',
  injected: `SIGKILL at P4, and before the restart the spooled file is ${Object.keys(DAMAGES).join(', ')}`,
  expected: 'no part of it is taken for an entry: it is put aside and told; the doubt is settled as without a spool',
  run: async ({ openStage }) => {
    const check = createCheck();
    const stage = await openStage({ refreshMode: 'tolerance' });
    const survivor = await stage.start({ settings: { LATCHKEY_ROLE: 'api' } });
    const seen = await Promise.all(
      Object.entries(DAMAGES).map(async ([name, damage]) => {
        const victim = await stage.start({ at: { point: 'spooled' }, settings: { LATCHKEY_ROLE: 'api' } });
        const connection = await connectUser(survivor);
        await expire(survivor, connection);
        const cut = stage.read(victim, connection);
        await endedByItself(victim);
        await cut;
        const [file = ''] = await spoolOf(victim);
        const path = join(victim.dataDir, 'spool', file);
        await writeFile(path, damage(await readFile(path)));
        const revived = await stage.start({ dataDir: victim.dataDir, settings: { LATCHKEY_ROLE: 'api' } });
        await waitUntil('the file is put aside', async () =>
          (await spoolOf(revived)).every((left) => left.endsWith('.damaged')),
        ).catch((error: Error) => check.that(false, `${name}: ${error.message}`));
        const isTold = revived.process.output().includes('a spool file is damaged and was put aside');
        check.that(isTold, `${name}: nothing was told`);
        const reading = await stage.read(revived, connection);
        check.equal(name, [reading.version, calls(survivor, connection).length], [2, 2]);
        return `${name}: put aside, ${summary([reading])}, 2 calls`;
      }),
    );
    return check.done(seen.join('; '));
  },
};

export const disks: readonly Experiment[] = [failing, damaged];
