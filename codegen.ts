// Prints schema.graphql from the code. With --check it only compares, and fails when the committed file differs.
import { readFile, writeFile } from 'node:fs/promises';
import { lexicographicSortSchema, printSchema } from 'graphql';
import { schema } from './src/graphql/schema.js';

const FILE = new URL('schema.graphql', import.meta.url);

const printed = `${printSchema(lexicographicSortSchema(schema))}\n`;

async function readCommitted(): Promise<string> {
  try {
    return await readFile(FILE, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

if (process.argv.includes('--check')) {
  const committed = await readCommitted();
  if (committed !== printed) {
    const [theirs, ours] = [committed.split('\n'), printed.split('\n')];
    const index = ours.findIndex((line, at) => line !== theirs[at]);
    const at = index === -1 ? ours.length : index;
    console.error(`schema.graphql differs from the code at line ${at + 1}; write it with: npm run schema`);
    console.error(`  committed: ${theirs[at] ?? '(end of file)'}\n  code:      ${ours[at] ?? '(end of file)'}`);
    process.exitCode = 1;
  }
} else {
  await writeFile(FILE, printed);
}
