// Prints schema.graphql from the code, and the manifest of the guide's documents as a frontend's own code generation
// does. With --check it only compares, and fails when a committed file differs.
import { readFile, writeFile } from 'node:fs/promises';
import { preset } from '@graphql-codegen/client-preset';
import { codegen } from '@graphql-codegen/core';
import { lexicographicSortSchema, parse, printSchema } from 'graphql';
import { schema } from './src/graphql/schema.js';

const fileOf = (name: string): URL => new URL(name, import.meta.url);

const DOCUMENTS = 'docs/frontend.graphql';

async function readCommitted(name: string): Promise<string> {
  try {
    return await readFile(fileOf(name), 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw error;
  }
}

/** Runs the client preset of GraphQL Code Generator for the one file of it that is wanted here. */
async function printManifest(printedSchema: string): Promise<string> {
  const rawSDL = await readFile(fileOf(DOCUMENTS), 'utf8');
  const sections = await preset.buildGeneratesSection({
    baseOutputDir: 'generated/',
    schema: parse(printedSchema),
    schemaAst: schema,
    documents: [{ location: DOCUMENTS, document: parse(rawSDL), rawSDL }],
    config: {},
    presetConfig: { persistedDocuments: { hashAlgorithm: 'sha256' } },
    plugins: [],
    pluginMap: {},
  });
  // One of them waits for what another finds.
  const contents = await Promise.all(sections.map((section) => codegen(section)));
  const index = sections.findIndex(({ filename }) => filename.endsWith('persisted-documents.json'));
  return `${contents[index] ?? ''}\n`;
}

async function compare(name: string, printed: string): Promise<void> {
  const committed = await readCommitted(name);
  if (committed === printed) return;
  const [theirs, ours] = [committed.split('\n'), printed.split('\n')];
  const index = ours.findIndex((line, at) => line !== theirs[at]);
  const at = index === -1 ? ours.length : index;
  console.error(`${name} differs from the code at line ${at + 1}; write it with: npm run schema`);
  console.error(`  committed: ${theirs[at] ?? '(end of file)'}\n  code:      ${ours[at] ?? '(end of file)'}`);
  process.exitCode = 1;
}

const printedSchema = `${printSchema(lexicographicSortSchema(schema))}\n`;
const printed: Record<string, string> = {
  'schema.graphql': printedSchema,
  'docs/frontend.documents.json': await printManifest(printedSchema),
};
for (const [name, text] of Object.entries(printed)) {
  if (process.argv.includes('--check')) await compare(name, text);
  else await writeFile(fileOf(name), text);
}
