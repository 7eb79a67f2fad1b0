// Brings a clone to where it can run: packages, generated code and, with --build, the compiled server. It uses nothing
// but Node's own modules, and costs a few milliseconds when there is nothing to do.
import { createHash } from 'node:crypto';
import {
  chmodSync,
  existsSync,
  readFileSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { withLock } from './lock.mjs';
import { root, run, seconds } from './run.mjs';

const OLDEST_NODE = [20, 19];

/** Generating needs no schema engine, but looks for one to download unless it is given something that can be run. */
const generateOffline = { PRISMA_SCHEMA_ENGINE_BINARY: process.execPath, CHECKPOINT_DISABLE: '1' };

const at = (path) => join(root, path);

function hash(...parts) {
  const sum = createHash('sha256');
  for (const part of parts) sum.update(part).update('\0');
  return sum.digest('hex');
}

function read(path) {
  try {
    return readFileSync(at(path), 'utf8');
  } catch (error) {
    if (error.code === 'ENOENT') return '';
    throw error;
  }
}

/** Paths and contents of the files below `folder`, but for those below `except`. */
function sources(folder, except) {
  return readdirSync(at(folder), { withFileTypes: true })
    .map((entry) => ({ entry, path: `${folder}/${entry.name}` }))
    .filter(({ path }) => path !== except)
    .sort((a, b) => (a.path < b.path ? -1 : 1))
    .flatMap(({ entry, path }) => (entry.isDirectory() ? sources(path, except) : [path, read(path)]));
}

/** Whether node_modules, though not installed by this script, holds what package-lock.json asks for. */
function installedAlready() {
  const installed = JSON.parse(read('node_modules/.package-lock.json') || '{}').packages || {};
  return Object.entries(JSON.parse(read('package-lock.json')).packages).every(([path, wanted]) => {
    if (path === '') return true;
    return installed[path] ? installed[path].version === wanted.version : wanted.optional || wanted.devOptional;
  });
}

function npm(runTool, command) {
  const path = process.env.npm_execpath || '';
  const program = path.endsWith('npm-cli.js') ? `"${process.execPath}" "${path}"` : 'npm';
  // The development packages hold the compiler, so they are needed whatever NODE_ENV says.
  return runTool(`${program} ${command} --include=dev --include=optional`);
}

/**
 * What a clone needs, in order. Each step leaves the hash of what it was made from inside of what it made, so the two
 * vanish together.
 */
const steps = [
  {
    title: 'install the packages',
    stamp: 'node_modules/.latchkey',
    inputs: () => hash(read('package-lock.json')),
    isDone: installedAlready,
    make: (runTool) => npm(runTool, 'ci'),
  },
  {
    title: 'generate the database client',
    stamp: 'src/generated/.stamp',
    inputs: () =>
      hash(
        read('prisma/schema.prisma'),
        read('prisma/prisma.config.ts'),
        ...['prisma', '@prisma/client', '@pothos/plugin-prisma'].map((name) =>
          read(`node_modules/${name}/package.json`),
        ),
      ),
    make: (runTool) => runTool('prisma generate --config prisma/prisma.config.ts', { env: generateOffline }),
  },
  {
    title: 'compile the server',
    stamp: 'dist/.stamp',
    only: 'build',
    inputs: () =>
      hash(
        read('tsconfig.json'),
        read('tsconfig.build.json'),
        read('node_modules/.latchkey'),
        read('src/generated/.stamp'),
        ...sources('src', 'src/generated'),
      ),
    make: build,
  },
];

/** Compiles beside dist/ and then swaps, so that a server running from dist/ never finds half of it. */
async function build(runTool) {
  const fresh = `.dist-${process.pid}`;
  const result = await runTool(`tsc -p tsconfig.build.json --outDir ${fresh}`);
  if (result.ok) {
    chmodSync(at(`${fresh}/cli/main.js`), 0o755);
    rmSync(at('dist'), { recursive: true, force: true });
    renameSync(at(fresh), at('dist'));
  }
  rmSync(at(fresh), { recursive: true, force: true });
  return result;
}

const isStale = (step) => read(step.stamp) !== step.inputs();

async function carryOut(step, runTool) {
  const inputs = step.inputs();
  if (!(step.isDone && step.isDone())) {
    const start = performance.now();
    process.stderr.write(`setup: ${step.title} ... `);
    rmSync(at(step.stamp), { force: true });
    const { ok, output } = await step.make(runTool);
    process.stderr.write(ok ? `${seconds(start)}\n` : `failed\n${output}`);
    if (!ok) process.exit(1);
  }
  writeFileSync(at(step.stamp), inputs);
}

/** Does what is missing; ends the process, with the failed tool's output, when that cannot be done. */
export async function setup({ build: withBuild = false } = {}) {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major < OLDEST_NODE[0] || (major === OLDEST_NODE[0] && minor < OLDEST_NODE[1])) {
    process.stderr.write(
      `Latchkey needs Node.js ${OLDEST_NODE.join('.')} or later; this is ${process.versions.node}.\n`,
    );
    process.exit(1);
  }
  const wanted = steps.filter((step) => withBuild || step.only !== 'build');
  if (!wanted.some(isStale)) return;
  await withLock(at('.setup.lock'), async (share) => {
    const runTool = (command, options) => run(command, { ...options, onStart: share });
    for (const step of wanted) if (isStale(step)) await carryOut(step, runTool);
  });
}

if (existsSync(process.argv[1]) && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await setup({ build: process.argv.includes('--build') });
}
