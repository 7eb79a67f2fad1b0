// Part of npm run chaos: the library that puts clocks wrong for PostgreSQL, and the one that lets system calls fail.
import { existsSync } from 'node:fs';
import { installFromDebian } from './debian.mjs';

const hasFakeTime = ['x86_64', 'aarch64'].some((architecture) =>
  existsSync(`/usr/lib/${architecture}-linux-gnu/faketime/libfaketime.so.1`),
);
if (!hasFakeTime) await installFromDebian('libfaketime', 'clocks that are wrong');
if (!existsSync('/usr/lib/fiu/fiu_posix_preload.so')) await installFromDebian('fiu-utils', 'disks that fail');
