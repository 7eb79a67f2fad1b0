// Part of npm test: the known-answer tests read what NIST and the RFCs publish from Debian's package of test vectors. It is
// taken apart and not installed, which would bring Python and take longer.
import { existsSync } from 'node:fs';
import { mkdtemp, mkdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { inPath } from './debian.mjs';
import { root, run, seconds } from './run.mjs';

const PACKAGE = 'python3-cryptography-vectors';
const VECTORS = join(root, '.reports/vectors');
const FILES = [
  'ciphers/AES/GCM/*256.rsp',
  'KDF/*HKDF-SHA256.txt',
  'KDF/hkdf-generated.txt',
  'HMAC/rfc-4231-sha256.txt',
];

if (!existsSync(VECTORS) && inPath('apt-get')) {
  const start = performance.now();
  process.stderr.write(`setup: download ${PACKAGE} for the known-answer tests ... `);
  await mkdir(join(root, '.reports'), { recursive: true });
  const draft = await mkdtemp(`${VECTORS}-`);
  const download = `cd ${draft} && apt-get download ${PACKAGE}`;
  // A machine may have no list of packages yet, and only its administrator may make one.
  const outcome = await run(`(${download}) || (apt-get update && ${download})`);
  const wanted = FILES.map((file) => `'*/${file}'`).join(' ');
  const unpack = `cd ${draft} && dpkg-deb --fsys-tarfile *.deb | tar -x --strip-components=6 --wildcards ${wanted} && rm *.deb`;
  const unpacked = outcome.ok ? await run(unpack) : outcome;
  if (unpacked.ok) await rename(draft, VECTORS);
  else await rm(draft, { recursive: true });
  process.stderr.write(unpacked.ok ? `${seconds(start)}\n` : `failed\n${unpacked.output}`);
}
