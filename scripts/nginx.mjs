// Part of npm test: the test of several processes behind a proxy needs nginx. Debian's package is installed where it is
// missing; the service that comes with it is not started by this.
import { existsSync } from 'node:fs';
import { inPath, installFromDebian } from './debian.mjs';

if (!existsSync('/usr/sbin/nginx') && !inPath('nginx')) await installFromDebian('nginx-light', 'the proxy test');
