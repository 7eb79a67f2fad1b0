// Part of npm test: the tests of signals between processes start a Redis of their own. Debian's redis-tools has the server's
// program, by another name, and brings no service.
import { existsSync } from 'node:fs';
import { inPath, installFromDebian } from './debian.mjs';

const found = inPath('redis-server', 'valkey-server') || existsSync('/usr/bin/redis-check-rdb');
if (!found) await installFromDebian('redis-tools', 'the tests of signals between processes');
