import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { openTestDatabase } from './support/database.js';

const database = await openTestDatabase();

test('rows have the same types on both databases', async () => {
  const [row] = await database.query<Record<string, unknown>>(sql`
    SELECT 5::int8 AS "int8", now() AS "timestamptz", ${Buffer.from('a')}::bytea AS "bytea",
      ${['a', 'b']}::text[] AS "texts", ${'00000000-0000-4000-8000-000000000000'}::uuid AS "uuid", ${null}::int AS "nothing"`);
  expect(row?.['int8']).toBe(5);
  expect(row?.['timestamptz']).toBeInstanceOf(Date);
  expect(row?.['bytea']).toBeInstanceOf(Uint8Array);
  expect(row?.['texts']).toEqual(['a', 'b']);
  expect(row?.['uuid']).toBe('00000000-0000-4000-8000-000000000000');
  expect(row?.['nothing']).toBeNull();
});

test('a transaction that throws leaves nothing behind', async () => {
  const insert = sql`INSERT INTO root_key (id, check_value) VALUES ('gone', ${Buffer.from('a')})`;
  await expect(
    database.transaction(async (tx) => {
      await tx.query(insert);
      throw new Error('stop');
    }),
  ).rejects.toThrow('stop');
  expect(await database.prisma.rootKey.count({ where: { id: 'gone' } })).toBe(0);
});
