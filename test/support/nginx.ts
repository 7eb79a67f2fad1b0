import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll } from 'vitest';
import { isListening, startChild } from './child.js';
import { until } from './until.js';

const PLACES = ['/usr/sbin/nginx', '/usr/bin/nginx', '/usr/local/sbin/nginx', '/opt/homebrew/bin/nginx'];

function findNginx(): string {
  const found = PLACES.find((place) => existsSync(place));
  if (found !== undefined) return found;
  throw new Error('The proxy test needs nginx: install it (apt-get install nginx-light).');
}

/** Whatever the documented file says, but for names that only a deployment has. */
async function documentedSite(folder: string, port: number, upstreams: readonly string[]): Promise<string> {
  const text = await readFile(new URL('../../docs/operations/nginx.conf', import.meta.url), 'utf8');
  const changes: [string | RegExp, string][] = [
    [/server api-1:4000(.*);/, `server ${upstreams[0]}$1;`],
    [/server api-2:4000(.*);/, `server ${upstreams[1]}$1;`],
    ['listen 443 ssl http2;', `listen 127.0.0.1:${port};`],
    [/ssl_\w+ .*;\n/g, '\n'],
    ['server_name latchkey.example.com;', 'server_name localhost;'],
    [/\/var\/log\/nginx\//g, `${folder}/`],
    // The test is one address.
    ['rate=200r/s', 'rate=10000r/s'],
    ['rate=5r/s', 'rate=500r/s'],
  ];
  return changes.reduce((site, [from, to]) => {
    const changed = site.replace(from, to);
    if (changed === site) throw new Error(`docs/operations/nginx.conf has no ${from} any more.`);
    return changed;
  }, text);
}

/** Runs nginx with the documented file in front of two servers until the test file ends. */
export async function startNginx(options: { folder: string; port: number; upstreams: readonly string[] }): Promise<{
  accessLog(): Promise<string>;
  errorLog(): Promise<string>;
  /** Sends no more requests to this server, as the documented file says to do before it is stopped. */
  takeOut(upstream: string): Promise<void>;
}> {
  const { folder, port, upstreams } = options;
  await mkdir(folder, { recursive: true });
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${folder}/${name};`)
    .join(' ');
  const main = `daemon off; worker_processes 1; pid ${folder}/nginx.pid; error_log stderr crit;
events { worker_connections 512; }
http { ${temporary} include ${folder}/site.conf; }
${process.getuid?.() === 0 ? 'user root;' : ''}
`;
  await writeFile(join(folder, 'site.conf'), await documentedSite(folder, port, upstreams));
  await writeFile(join(folder, 'nginx.conf'), main);
  const child = startChild('nginx', findNginx(), ['-p', folder, '-c', join(folder, 'nginx.conf')]);
  afterAll(() => child.end('SIGTERM'));
  await child.until(() => isListening(port));
  const read = (name: string) => readFile(join(folder, name), 'utf8');
  return {
    accessLog: () => read('latchkey.access.log'),
    errorLog: () => read('latchkey.error.log'),
    takeOut: async (upstream) => {
      const site = await read('site.conf');
      await writeFile(join(folder, 'site.conf'), site.replace(new RegExp(`(server ${upstream}.*);`), '$1 down;'));
      const before = await workersOf(child.pid);
      child.signal('SIGHUP');
      await until(async () => !(await workersOf(child.pid)).some((pid) => before.includes(pid)));
    },
  };
}

/** The processes that serve; those of before a reload end when they have answered what they took. */
async function workersOf(master: number): Promise<string[]> {
  const { stdout } = await promisify(execFile)('ps', ['-o', 'pid=', '--ppid', String(master)]).catch(() => ({
    stdout: '',
  }));
  return stdout.split(/\s+/).filter((pid) => pid !== '');
}
