// Part of npm test: the browser tests need Chromium. Where there is none and Debian's package can be had, it is installed.
import { existsSync } from 'node:fs';
import { inPath, installFromDebian } from './debian.mjs';

const hasBrowser =
  Boolean(process.env.CHROMIUM_PATH) ||
  existsSync('/usr/bin/chromium') ||
  inPath('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable');

if (!hasBrowser) await installFromDebian('chromium', 'the browser tests');
