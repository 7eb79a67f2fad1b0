// Part of npm test: the test of root keys in a token needs SoftHSM, a program that makes keys in it, and the native part
// of pkcs11js. What is missing is installed from Debian's packages, and built.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { inPath, installFromDebian } from './debian.mjs';
import { root, run, seconds } from './run.mjs';

if (!inPath('softhsm2-util')) await installFromDebian('softhsm2', 'the root key test');
if (!inPath('pkcs11-tool')) await installFromDebian('opensc', 'the root key test');

const addon = join(root, 'node_modules/pkcs11js/build/Release/pkcs11.node');
if (!existsSync(addon)) {
  if (!inPath('c++', 'g++')) await installFromDebian('g++', 'the root key test');
  if (!inPath('make')) await installFromDebian('make', 'the root key test');
  if (!inPath('python3')) await installFromDebian('python3-minimal', 'the root key test');
  const start = performance.now();
  process.stderr.write('setup: build pkcs11js ... ');
  // Node's own headers, where they came with it; node-gyp would download them.
  const prefix = dirname(dirname(process.execPath));
  const env = existsSync(join(prefix, 'include/node/node_api.h')) ? { npm_config_nodedir: prefix } : {};
  const { ok, output } = await run('npm rebuild pkcs11js --ignore-scripts=false', { env });
  process.stderr.write(ok && existsSync(addon) ? `${seconds(start)}\n` : `failed\n${output}`);
}
