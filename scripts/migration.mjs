// Compares prisma/schema.prisma with the migrations.
//   tsx scripts/migration.mjs --check   fails, with the SQL that is missing, when they differ
//   tsx scripts/migration.mjs NAME      writes that SQL as the next migration, for a person to review
import { mkdir, writeFile } from 'node:fs/promises';
import { PGlite } from '@electric-sql/pglite';
import { PrismaPGlite } from 'pglite-prisma-adapter';
import { migrationNames, missingMigration } from '../src/database/migrate.ts';

async function findMissing() {
  const scratch = await PGlite.create();
  try {
    return await missingMigration(new PrismaPGlite(scratch));
  } finally {
    await scratch.close();
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}

async function write(name, sql) {
  const time = new Date().toISOString().replace(/\D/g, '').slice(0, 14);
  const folder = `${time}_${name}`;
  const newest = (await migrationNames()).at(-1) ?? '';
  if (folder <= newest) fail(`${folder} would not come after ${newest}: is the clock right?`);
  await mkdir(new URL(`../prisma/migrations/${folder}/`, import.meta.url));
  await writeFile(new URL(`../prisma/migrations/${folder}/migration.sql`, import.meta.url), `${sql}\n`);
  console.log(`wrote prisma/migrations/${folder}/migration.sql: review it`);
}

const [argument = ''] = process.argv.slice(2);
const check = argument === '--check';
if (!check && !/^[a-z][a-z0-9_]*$/.test(argument)) {
  fail('Name the migration in lower case, for example: npm run migration -- add_audit_log');
}
const sql = await findMissing();
if (sql === '') console.log('prisma/schema.prisma and the migrations agree');
else if (check) fail(`The migrations lack this; write it with: npm run migration -- NAME\n\n${sql}`);
else await write(argument, sql);
// The engine keeps timers that nobody waits for.
process.exit();
