import { randomBytes } from 'node:crypto';
import { cp, mkdtemp, readFile, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { createPostgresDatabase } from '../support/database.js';
import { spawnServer } from '../support/process.js';
import { TEST_ADMIN_KEY } from '../support/server.js';

const ROOT = new URL('../../', import.meta.url);
const databaseUrl = await createPostgresDatabase();
const folder = await mkdtemp(join(tmpdir(), 'latchkey-image-'));
afterAll(() => rm(folder, { recursive: true, force: true }));

test('the server runs from what the image holds, and nothing else of the repository', async () => {
  const image = await readFile(new URL('docs/operations/Containerfile', ROOT), 'utf8');
  const held = [...image.matchAll(/^COPY --from=build \/app\/(\S+) /gm)].map(([, path = '']) => path);
  expect(held).toEqual(['package.json', 'node_modules', 'prisma', 'dist']);
  for (const path of held) {
    const from = new URL(path, ROOT).pathname;
    if (path === 'node_modules') await symlink(from, join(folder, path));
    else await cp(from, join(folder, path), { recursive: true });
  }
  const process = spawnServer(
    {
      NODE_ENV: 'production',
      DATABASE_URL: databaseUrl,
      LATCHKEY_PUBLIC_URL: 'https://latchkey.example.com',
      LATCHKEY_ROOT_KEY: randomBytes(32).toString('base64'),
      LATCHKEY_ADMIN_KEY: TEST_ADMIN_KEY,
      LATCHKEY_DATA_DIR: join(folder, 'data'),
      LATCHKEY_ROLE: 'api',
    },
    folder,
  );
  const url = await process.listening;
  expect((await fetch(`${url}/livez`)).status).toBe(200);
  expect((await fetch(`${url}/readyz`)).status).toBe(200);
  process.kill('SIGTERM');
  expect((await process.exited).code).toBe(0);
});
