// Part of npm test: the tests behind a connection pooler need PgBouncer. Debian's package is installed where it is
// missing; the service that comes with it is not started by this.
import { existsSync } from 'node:fs';
import { inPath, installFromDebian } from './debian.mjs';

if (!existsSync('/usr/sbin/pgbouncer') && !inPath('pgbouncer')) await installFromDebian('pgbouncer', 'the pooler test');
