import { execFile } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const fileOf = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url));
const folder = await mkdtemp(join(tmpdir(), 'latchkey-schema-'));
const released = await readFile(fileOf('docs/schema/released.graphql'), 'utf8');

/** Compares the released schema with another one. @returns what is complained of; empty where nothing is. */
async function compare(present: string, acknowledged: unknown[] = []): Promise<string> {
  const [schema, list] = [join(folder, 'schema.graphql'), join(folder, 'acknowledged.json')];
  await Promise.all([writeFile(schema, present), writeFile(list, JSON.stringify(acknowledged))]);
  const script = fileOf('scripts/breaking-changes.mjs');
  return new Promise((resolve) => {
    const args = [script, fileOf('docs/schema/released.graphql'), schema, list];
    execFile(process.execPath, args, (error, _stdout, stderr) => resolve(error === null ? '' : stderr));
  });
}

const without = released.replace(/\n {2}"""[^"]*"""\n {2}tokenType: String!\n/, '\n');
const REMOVED = { type: 'FIELD_REMOVED', path: 'Credential.tokenType' };

test('a field that is taken away is a breaking change, unless it is acknowledged with a reason', async () => {
  expect(without).not.toBe(released);
  expect(await compare(without)).toContain('FIELD_REMOVED Credential.tokenType');
  expect(await compare(without, [{ ...REMOVED, reason: '' }])).toContain('FIELD_REMOVED');
  expect(await compare(without, [{ ...REMOVED, reason: 'It was always the same.' }])).toBe('');
});

test('an acknowledgement of what did not happen is complained of', async () => {
  expect(await compare(released, [{ ...REMOVED, reason: 'x' }])).toContain('no such change was made');
});

test('a new field breaks nobody, a new required argument does', async () => {
  expect(await compare(released.replace('type Viewer {', 'type Viewer {\n  more: String'))).toBe('');
  const required = released.replace(/\n {2}viewer: Viewer!/, '\n  viewer(of: String!): Viewer!');
  expect(await compare(required)).toContain('Query.viewer');
});
