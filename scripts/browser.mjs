// Part of npm test: the browser tests need Chromium. Where there is none and Debian's package can be had, it is installed.
import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { run, seconds } from './run.mjs';

const inPath = (name) => (process.env.PATH || '').split(delimiter).some((folder) => existsSync(join(folder, name)));

const NAMES = ['chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable'];

const hasBrowser = () => Boolean(process.env.CHROMIUM_PATH) || existsSync('/usr/bin/chromium') || NAMES.some(inPath);

if (!hasBrowser() && process.getuid?.() === 0 && inPath('apt-get')) {
  const start = performance.now();
  process.stderr.write('setup: install Chromium for the browser tests ... ');
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  const update = await run('apt-get update', { env });
  const install = update.ok ? await run('apt-get install -y --no-install-recommends chromium', { env }) : update;
  process.stderr.write(install.ok ? `${seconds(start)}\n` : `failed\n${install.output}`);
}
