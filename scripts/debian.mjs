// What only tests need and Debian has: installed where it is missing, and where this user may.
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run, seconds } from './run.mjs';

/** Whether one of these programs can be started by its name. */
export const inPath = (...names) =>
  (process.env.PATH || '').split(delimiter).some((folder) => names.some((name) => existsSync(join(folder, name))));

/** @param purpose ends "install … for …". */
export async function installFromDebian(packageName, purpose) {
  if (process.getuid?.() !== 0 || !inPath('apt-get')) return;
  const start = performance.now();
  process.stderr.write(`setup: install ${packageName} for ${purpose} ... `);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const update = await run('apt-get update', { env });
  const install = update.ok ? await run(`apt-get install -y --no-install-recommends ${packageName}`, { env }) : update;
  process.stderr.write(install.ok ? `${seconds(start)}\n` : `failed\n${install.output}`);
}
