import { readdir, readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { bindMigrationAwareSqlAdapterFactory } from '@prisma/driver-adapter-utils';
import type { SqlMigrationAwareDriverAdapterFactory } from '@prisma/driver-adapter-utils';
import * as engineBindings from '@prisma/schema-engine-wasm/schema_engine_bg';

const MIGRATIONS = new URL('../../prisma/migrations/', import.meta.url);
const SCHEMA = new URL('../../prisma/schema.prisma', import.meta.url);
const NO_FILTER = { externalTables: [], externalEnums: [] };

type SchemaEngine = Awaited<ReturnType<typeof engineBindings.SchemaEngine.new>>;

type WasmExports = { __wbindgen_start(): void };

/** Node's own types leave WebAssembly to the browser's library, which this code must not see. */
const { WebAssembly } = globalThis as unknown as {
  WebAssembly: { instantiate(bytes: Uint8Array, imports: object): Promise<{ instance: { exports: WasmExports } }> };
};

let loading: Promise<void> | undefined;

/**
 * Loads Prisma's schema engine from its WebAssembly package, so that migrations need no engine binary. The package's
 * interface is internal to Prisma: its version is pinned exactly and nothing outside this file knows it. Its bindings
 * are global to the process, hence loaded once.
 */
async function loadBindings(): Promise<void> {
  // The engine reports panics through a registry it expects to find here.
  const registry = {
    message: '',
    get: () => registry.message,
    set_message: (text: string) => (registry.message = text),
  };
  Object.assign(globalThis, { PRISMA_WASM_PANIC_REGISTRY: registry });
  const path = createRequire(import.meta.url).resolve('@prisma/schema-engine-wasm/schema_engine_bg');
  const { instance } = await WebAssembly.instantiate(await readFile(path.replace(/\.js$/, '.wasm')), {
    './schema_engine_bg.js': engineBindings,
  });
  const bindings = engineBindings as unknown as { __wbg_set_wasm(exports: WasmExports): void };
  bindings.__wbg_set_wasm(instance.exports);
  instance.exports.__wbindgen_start();
}

async function createEngine(factory: SqlMigrationAwareDriverAdapterFactory, datamodel?: string): Promise<SchemaEngine> {
  await (loading ??= loadBindings());
  const datamodels: [string, string][] | undefined =
    datamodel === undefined ? undefined : [['schema.prisma', datamodel]];
  return engineBindings.SchemaEngine.new({ datamodels }, () => undefined, bindMigrationAwareSqlAdapterFactory(factory));
}

async function readMigrations() {
  const names = (await readdir(MIGRATIONS, { withFileTypes: true })).filter((entry) => entry.isDirectory());
  const migrationDirectories = await Promise.all(
    names
      .map((entry) => entry.name)
      .sort()
      .map(async (path) => ({
        path,
        migrationFile: {
          path: 'migration.sql',
          content: { tag: 'ok' as const, value: await readFile(new URL(`${path}/migration.sql`, MIGRATIONS), 'utf8') },
        },
      })),
  );
  return {
    baseDir: MIGRATIONS.pathname,
    lockfile: { path: 'migration_lock.toml', content: 'provider = "postgresql"\n' },
    shadowDbInitScript: '',
    migrationDirectories,
  };
}

/** Names of the migrations that this version brings, oldest first. */
export async function migrationNames(): Promise<string[]> {
  return (await readMigrations()).migrationDirectories.map(({ path }) => path);
}

/**
 * Applies the migrations that the database does not have yet, in order.
 *
 * @returns their names; empty when the database was up to date. Run it under a lock that other processes respect.
 */
export async function applyMigrations(factory: SqlMigrationAwareDriverAdapterFactory): Promise<string[]> {
  const engine = await createEngine(factory);
  const migrationsList = await readMigrations();
  const { appliedMigrationNames } = await engine.applyMigrations({ migrationsList, filters: NO_FILTER });
  return appliedMigrationNames;
}

/**
 * The SQL that would bring the migrations up to `schema.prisma`; empty when they agree. For the development gate and
 * for writing the next migration.
 *
 * @param factory an adapter of an empty scratch database, in which the migrations are replayed.
 */
export async function missingMigration(factory: SqlMigrationAwareDriverAdapterFactory): Promise<string> {
  const schema = { files: [{ path: 'schema.prisma', content: await readFile(SCHEMA, 'utf8') }] };
  const engine = await createEngine(factory, schema.files[0]?.content);
  const { stdout } = await engine.diff({
    from: { tag: 'migrations', ...(await readMigrations()) },
    to: { tag: 'schemaDatamodel', ...schema },
    script: true,
    exitCode: null,
    filters: NO_FILTER,
  });
  const script = stdout ?? '';
  return script.includes('This is an empty migration') ? '' : script.trim();
}
