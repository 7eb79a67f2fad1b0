import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { builtinModules } from 'node:module';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { parse } from 'yaml';
import { readConfig } from '../src/config.js';

const ROOT = new URL('..', import.meta.url);
const file = (name: string) => readFileSync(new URL(name, ROOT), 'utf8');
const exists = (name: string) => existsSync(new URL(name, ROOT));

interface Compose {
  services: Record<
    string,
    {
      image: string;
      build?: { context: string; dockerfile: string };
      environment?: Record<string, string>;
      volumes?: string[];
      stop_grace_period?: string;
    }
  >;
  volumes: Record<string, unknown>;
}

const compose = parse(file('docs/operations/compose.yml'), { merge: true }) as Compose;
const ours = Object.entries(compose.services).filter(([, { image }]) => image === 'latchkey');
const image = file('docs/operations/Containerfile');
const settingsText = file('src/settings.ts') + file('src/root-key-settings.ts');
const knownSettings = new Set(settingsText.match(/\b[A-Z][A-Z0-9]*(_[A-Z0-9]+)*(?=:)/g));

test('the image is made of paths that there are, and starts what npm start starts', () => {
  const copied = [...image.matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, paths = '']) => paths.split(' '));
  expect(copied).toContain('src');
  expect(copied.filter((path) => !exists(path))).toEqual([]);
  expect(image).toContain('CMD ["node", "dist/main.js"]');
  expect(file('scripts/start.mjs')).toContain("import('../dist/main.js')");
  const packageJson = JSON.parse(file('package.json')) as { engines: { node: string } };
  expect(packageJson.engines.node).toMatch(new RegExp(`^>=${/node:(\d+)-/.exec(image)?.[1]}\\.`));
});

test('the server imports nothing that a production install leaves out', () => {
  const { dependencies } = JSON.parse(file('package.json')) as { dependencies: Record<string, string> };
  const sources = readdirSync(new URL('src', ROOT), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.parentPath.includes('/generated'))
    .map((entry) => readFileSync(`${entry.parentPath}/${entry.name}`, 'utf8'));
  const imported = sources.flatMap((text) =>
    [...text.matchAll(/^(?:import|export) (?!type )[^;]*?from '([^.'][^']*)'/gm)].map(([, name = '']) => name),
  );
  const packages = new Set(imported.map((name) => /^(@[^/]+\/)?[^/]+/.exec(name)?.[0] ?? name));
  expect(packages).toContain('prom-client');
  const absent = [...packages].filter(
    (name) => !name.startsWith('node:') && !builtinModules.includes(name) && !(name in dependencies),
  );
  expect(absent).toEqual([]);
});

test('every process of the compose file has settings that a start accepts, and one role is not forgotten', () => {
  const roles = ours.map(([, { environment = {} }]) => {
    expect(Object.keys(environment).filter((name) => !knownSettings.has(name))).toEqual([]);
    const config = readConfig({
      ...environment,
      DATABASE_URL: 'postgres://latchkey:x@postgres/latchkey',
      LATCHKEY_ADMIN_KEY: 'a'.repeat(64),
    });
    expect(config).toMatchObject({ production: true, host: '0.0.0.0', metrics: { host: '0.0.0.0', port: 9464 } });
    return config.role;
  });
  expect(roles.toSorted()).toEqual(['api', 'api', 'worker']);
});

test('a container is given more time to end than its refreshes and its proxy may take', () => {
  for (const [, { environment = {}, stop_grace_period: grace = '0s' }] of ours) {
    const drain = Number(environment['LATCHKEY_DRAIN_SECONDS']);
    expect(Number.parseInt(grace, 10)).toBeGreaterThanOrEqual(30 + drain);
  }
});

test('what the compose file mounts is there or said to be made, and every spool has a volume of its own', () => {
  const mounts = Object.values(compose.services).flatMap(({ volumes = [] }) => volumes);
  const files = mounts.filter((mount) => mount.startsWith('./')).map((mount) => mount.split(':')[0]?.slice(2) ?? '');
  const toBeMade = /^(secrets|tls)(\/|$)/;
  expect(files.filter((name) => !toBeMade.test(name) && !exists(`docs/operations/${name}`))).toEqual([]);
  const named = mounts.filter((mount) => !mount.startsWith('.')).map((mount) => mount.split(':')[0] ?? '');
  expect(new Set(named).size).toBe(named.length);
  expect(named.toSorted()).toEqual(Object.keys(compose.volumes).toSorted());
  const { build } = ours[0]![1];
  expect(fileURLToPath(new URL(`docs/operations/${build?.context}/`, ROOT))).toBe(fileURLToPath(ROOT));
  expect(exists(build?.dockerfile ?? '')).toBe(true);
});

test('proxy and Prometheus name the processes of the compose file, by the ports that these listen on', () => {
  const upstreams = [...file('docs/operations/nginx.conf').matchAll(/^ {2}server (\S+) /gm)].map(([, host]) => host);
  const answering = ours.filter(([, { environment }]) => environment?.['LATCHKEY_ROLE'] === 'api');
  expect(upstreams).toEqual(answering.map(([name, { environment }]) => `${name}:${environment?.['PORT']}`));
  const prometheus = parse(file('docs/operations/prometheus.yml')) as {
    rule_files: string[];
    scrape_configs: { static_configs: { targets: string[] }[] }[];
  };
  expect(prometheus.scrape_configs[0]?.static_configs[0]?.targets).toEqual(
    ours.map(([name, { environment }]) => `${name}:${environment?.['LATCHKEY_METRICS_PORT']}`),
  );
  expect(prometheus.rule_files.filter((name) => !exists(`docs/operations/${name}`))).toEqual([]);
});

test("the operator's page names only settings, figures, operations and files that there are", () => {
  const page = file('docs/operations.md');
  const settings = new Set(page.match(/\b(LATCHKEY|ZOOM|DATABASE)_[A-Z_]+\b/g));
  expect([...settings].filter((name) => !knownSettings.has(name))).toEqual([]);
  const meters = file('src/metrics/meters.ts');
  const figures = new Set([...page.matchAll(/\blatchkey_([a-z_]+)\b/g)].map(([, name]) => name));
  expect([...figures].filter((name) => !meters.includes(`'${name}'`))).toEqual([]);
  const operations = new Set([...page.matchAll(/`((?:update|revoke|register)[A-Z]\w+)`/g)].map(([, name]) => name));
  expect([...operations].filter((name) => !new RegExp(`^  ${name}\\b`, 'm').test(file('schema.graphql')))).toEqual([]);
  const links = [...page.matchAll(/\]\(([^)#:]+)(?:#[^)]*)?\)/g)].map(([, path]) => path);
  expect(links.filter((path) => !exists(`docs/${path}`))).toEqual([]);
});
