// Loaded before the server (`node --import`): writing a spool file fails in the way that LATCHKEY_CHAOS_DISK names. It is
// done to the file handle, so that the server meets what a disk would do to it, half-written files included.
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';

const { LATCHKEY_CHAOS_DISK: way } = process.env;

const fail = (code) => Promise.reject(Object.assign(new Error(code), { code, errno: -1, syscall: 'write' }));

const probe = await open(tmpdir(), 'r');
const prototype = Object.getPrototypeOf(probe);
await probe.close();

const { writeFile } = prototype;
const WAYS = {
  /** The disk fills up in the middle of the file. */
  ENOSPC: {
    async writeFile(data) {
      await writeFile.call(this, data.subarray(0, Math.floor(data.length / 2)));
      return fail('ENOSPC');
    },
  },
  'EIO on write': { writeFile: () => fail('EIO') },
  'EIO on fdatasync': { datasync: () => fail('EIO') },
  'EIO on fsync of the folder': { sync: () => fail('EIO') },
};

Object.assign(prototype, WAYS[way]);
