import { randomBytes } from 'node:crypto';
import sql from 'sql-template-tag';
import { expect, test } from 'vitest';
import { watchClock } from '../src/domain/clock-offset.js';
import { createReadiness } from '../src/http/readiness.js';
import type { Clock } from '../src/clock.js';
import { systemClock } from '../src/clock.js';
import { createLocalRootKeys, parseRootKeys } from '../src/vault/root-key.js';
import { createVault } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';
import { startTestServer } from './support/server.js';

const db = await openTestDatabase();
const newVault = () =>
  createVault({
    rootKeys: createLocalRootKeys(parseRootKeys(randomBytes(32).toString('base64'), { production: false })),
  });
const vault = newVault();
await vault.verify(db);

const aheadBy = (seconds: number): Clock => ({
  ...systemClock,
  now: () => new Date(Date.now() + seconds * 1_000),
});

const reasons = (given: Partial<Parameters<typeof createReadiness>[0]> = {}) =>
  createReadiness({ db, vault, clock: systemClock, isQuarantined: () => false, ...given }).reasons();

test('a process is ready whose database can be written and has its migrations and root key', async () => {
  expect(await reasons()).toEqual([]);
});

test('a process is not ready while the database cannot be written', async () => {
  await db.query(sql`SET default_transaction_read_only = on`);
  const found = await reasons();
  await db.query(sql`SET default_transaction_read_only = off`);
  expect(found).toEqual(['database_read_only']);
});

test('a process is not ready while the database cannot be reached', async () => {
  const query = () => Promise.reject(new Error('connection refused'));
  expect(await reasons({ db: { ...db, query } })).toEqual(['database_unreachable']);
});

test('a process is not ready on a database that lacks one of its migrations, and is on one that has more', async () => {
  await db.query(sql`
    INSERT INTO _prisma_migrations (id, checksum, migration_name, finished_at, applied_steps_count)
    VALUES ('later', 'x', '29990101000000_of_a_later_version', now(), 1)`);
  expect(await reasons()).toEqual([]);
  await db.query(sql`DELETE FROM _prisma_migrations WHERE id = 'later'`);
  await db.query(sql`
    UPDATE _prisma_migrations SET rolled_back_at = now()
    WHERE migration_name = (SELECT max(migration_name) FROM _prisma_migrations)`);
  expect(await reasons()).toEqual(['migrations_missing']);
  await db.query(sql`UPDATE _prisma_migrations SET rolled_back_at = NULL`);
});

test('a process is not ready on a database that was put in the place of its own and has another root key', async () => {
  expect(await reasons({ vault: newVault() })).toEqual(['root_key_mismatch']);
});

test('a process is not ready whose clock is more than 30 s from the clock of the database', async () => {
  expect(await reasons({ clock: aheadBy(29) })).toEqual([]);
  expect(await reasons({ clock: aheadBy(31) })).toEqual(['clock']);
  expect(await reasons({ clock: aheadBy(-31) })).toEqual(['clock']);
});

test('a process that ends is not ready, whatever its database says', async () => {
  const readiness = createReadiness({ db, vault, clock: systemClock, isQuarantined: () => false });
  readiness.drain();
  expect(await readiness.reasons()).toEqual(['draining']);
});

test('those who ask at the same time share one look at the database', async () => {
  let asked = 0;
  const query: typeof db.query = (statement) => {
    asked += 1;
    return db.query(statement);
  };
  const readiness = createReadiness({ db: { ...db, query }, vault, clock: systemClock, isQuarantined: () => false });
  await readiness.reasons();
  const alone = asked;
  await Promise.all(Array.from({ length: 50 }, () => readiness.reasons()));
  expect(asked - alone).toBe(alone);
});

test('a server that ends says so before it stops listening, and still answers meanwhile', async () => {
  const server = await startTestServer({ LATCHKEY_DRAIN_SECONDS: '1' });
  expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
  const ended = server.close();
  const answer = await fetch(`${server.url}/readyz`);
  expect([answer.status, await answer.json()]).toEqual([503, { ready: false }]);
  expect(answer.headers.get('connection')).toBe('close');
  expect((await fetch(`${server.url}/livez`)).status).toBe(200);
  expect((await server.graphql('{ viewer { kind } }')).status).toBe(200);
  await ended;
  await expect(fetch(`${server.url}/livez`)).rejects.toThrow();
});

test('a process whose clock is wrong by more than 2 s tells the operator', async () => {
  const told: number[] = [];
  const log = { debug: () => undefined, info: () => undefined, error: () => undefined };
  const warn = (_message: string, fields?: { durationMs?: number }) => void told.push(fields?.durationMs ?? 0);
  await watchClock({ db, clock: aheadBy(1), log: { ...log, warn } });
  expect(told).toEqual([]);
  await watchClock({ db, clock: aheadBy(-3), log: { ...log, warn } });
  expect(told).toHaveLength(1);
  expect(told[0]).toBeGreaterThan(-3_500);
  expect(told[0]).toBeLessThan(-2_500);
});
