import { createSecretKey, randomBytes, randomUUID } from 'node:crypto';
import sql, { join } from 'sql-template-tag';
import { expect, test } from 'vitest';
import { Secret } from '../src/secret.js';
import { isSealedBefore, prepareKey, sealEnvelope } from '../src/vault/envelope.js';
import { openTestDatabase } from './support/database.js';

const place = { tenantId: null, table: 'a', column: 'b', recordId: 'c', version: 1 };

function sealedWith(version: number): Uint8Array {
  const key = prepareKey({ id: randomUUID(), version, owner: 'system', key: createSecretKey(randomBytes(32)) });
  return sealEnvelope(key, place, new Secret('SECRET-token'));
}

test('the database tells an envelope of an older version of its key from one of the same or a newer', async () => {
  const database = await openTestDatabase();
  const versions = [1, 2, 3, 255, 256, 257, 65_535, 65_536, 2_147_483_646, 2_147_483_647];
  for (const version of versions) {
    const envelope = sql`${sealedWith(version)}::bytea`;
    const columns = versions.map((asked) => isSealedBefore(envelope, asked));
    const [row] = await database.query<{ answers: boolean[] }>(sql`
      SELECT ARRAY[${join(columns)}] AS answers`);
    expect(row?.answers).toEqual(versions.map((asked) => version < asked));
  }
});
