import { cp, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import type { DatabaseIdentity } from '../src/database/database.js';
import { readFolderIdentity } from '../src/database/embedded.js';
import { deploymentNames, type DeploymentIdentity, findMismatch } from '../src/domain/deployment.js';

const DATABASE: DatabaseIdentity = { kind: 'postgres', systemIdentifier: '7', oid: '16384' };
const identity = (given: Partial<DeploymentIdentity>): DeploymentIdentity => ({
  deploymentId: null,
  publicUrl: null,
  database: DATABASE,
  ...given,
});
const mismatch = (row: Partial<DeploymentIdentity>, own: Partial<DeploymentIdentity>) =>
  findMismatch(identity(row), identity(own));
const url = (publicUrl: string) => deploymentNames({ deploymentId: null, publicUrl });

test('a restart, a new pod, a worker without a public URL and a failover are the same deployment', () => {
  const row = { publicUrl: 'https://latchkey.example.com' };
  expect(mismatch(row, row)).toBeNull();
  expect(mismatch(row, {})).toBeNull();
  expect(mismatch({}, row)).toBeNull();
});

test('on loopback the public URL tells nothing: ports differ from start to start', () => {
  expect(mismatch(url('http://localhost:4000'), url('http://localhost:52311'))).toBeNull();
  expect(mismatch(url('http://127.0.0.1:4000'), url('https://latchkey.example.com'))).toBeNull();
});

test('staging with a copy of the files, which keeps every mark of the database, has another public URL', () => {
  expect(mismatch(url('https://latchkey.example.com'), url('https://staging.example.com'))).toBe('other_deployment');
});

test('an id decides alone where both sides have one, and may be introduced while the former version runs', () => {
  const [production, staging] = ['https://latchkey.example.com', 'https://staging.example.com'];
  const named = { deploymentId: 'production', publicUrl: production };
  expect(mismatch({ publicUrl: production }, named)).toBeNull();
  expect(mismatch(named, { publicUrl: production })).toBeNull();
  expect(mismatch(named, { deploymentId: 'production', publicUrl: 'https://new.example.com' })).toBeNull();
  expect(mismatch(named, { deploymentId: 'staging', publicUrl: production })).toBe('other_deployment');
  expect(mismatch(named, { publicUrl: staging })).toBe('other_deployment');
});

test.each([
  [
    'a dump restored elsewhere, or a major upgrade of the server',
    { ...DATABASE, systemIdentifier: '8' },
    'other_database',
  ],
  ['a dump restored beside, in the same cluster', { ...DATABASE, oid: '16999' }, 'other_database'],
  ['a cluster that does not tell its identifier any more', { ...DATABASE, systemIdentifier: null }, null],
  ['another kind of database', { kind: 'embedded', path: '/data', inode: '1' }, 'other_database'],
  ['a database in memory', null, null],
] as const)('%s', (_case, database, expected) => {
  expect(mismatch({}, { database })).toBe(expected);
});

const folder = await mkdtemp(join(tmpdir(), 'latchkey-folders-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

test('the folder of an embedded database may be moved; a copy of it is another', async () => {
  const [first, moved, copy] = ['first', 'moved', 'copy'].map((name) => join(folder, name)) as [string, string, string];
  await mkdir(first);
  const database = await readFolderIdentity(first);
  expect(mismatch({ database }, { database: await readFolderIdentity(first) })).toBeNull();
  await rename(first, moved);
  expect(mismatch({ database }, { database: await readFolderIdentity(moved) })).toBeNull();
  await cp(moved, copy, { recursive: true });
  expect(mismatch({ database }, { database: await readFolderIdentity(copy) })).toBe('other_database');
});
