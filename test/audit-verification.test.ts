import { randomBytes } from 'node:crypto';
import sql, { raw, type Sql as Statement } from 'sql-template-tag';
import { beforeEach, describe, expect, test } from 'vitest';
import { actingAs, bySystem, noteAudit, withAudit } from '../src/domain/audit.js';
import { createAuditKey } from '../src/domain/audit-key.js';
import { closeChain, eraseDetails, pruneAudit } from '../src/domain/audit-retention.js';
import { createAuditTrail } from '../src/domain/audit-trail.js';
import { type AuditFault, verifyAudit } from '../src/domain/audit-verification.js';
import { resealStale } from '../src/domain/reseal.js';
import { rotateSystemKey } from '../src/domain/tenant-key.js';
import { createLog } from '../src/log.js';
import { createLocalRootKeys, parseRootKeys } from '../src/vault/root-key.js';
import { createVault } from '../src/vault/vault.js';
import { openTestDatabase } from './support/database.js';

const plain = await openTestDatabase();
const log = createLog('silent');
const rootKeys = createLocalRootKeys(parseRootKeys(randomBytes(32).toString('base64'), { production: false }));
const vault = createVault({ rootKeys });
await vault.verify(plain);
await vault.createTenantKey(plain, null);
await createAuditKey(vault, plain);
const db = withAudit(plain, createAuditTrail({ vault }));

let tenantId = '';

const principal = { ...bySystem('test'), externalUserId: 'user_1', clientAddress: '192.0.2.1' };

/** One transaction with so many events of the tenant. */
const record = (count: number, to = db) =>
  actingAs(to, { principal }).transaction(async (tx) => {
    for (let n = 0; n < count; n += 1) noteAudit(tx, { tenantId, action: 'test.done', reference: String(n) });
  });

/** As somebody who owns the tables, and has the triggers out of the way. */
async function tamper(...statements: Statement[]): Promise<void> {
  for (const table of ['audit_event', 'audit_chain'])
    await db.query(sql`ALTER TABLE ${raw(table)} DISABLE TRIGGER USER`);
  for (const statement of statements) await db.query(statement);
  for (const table of ['audit_event', 'audit_chain'])
    await db.query(sql`ALTER TABLE ${raw(table)} ENABLE TRIGGER USER`);
}

async function verify(knownHeads = {}) {
  const chains = await verifyAudit({ db, vault }, { tenantId, knownHeads });
  expect(chains).toHaveLength(1);
  return chains[0]!;
}

beforeEach(async () => {
  tenantId = crypto.randomUUID();
  await db.query(sql`
    INSERT INTO tenant (id, external_id, allowed_origins) VALUES (${tenantId}::uuid, ${`org_${tenantId}`}, '{}')`);
  await record(5);
});

test('a chain that nobody touched is verified to its end, and the system tells of every chain', async () => {
  expect(await verify()).toMatchObject({
    chain: tenantId,
    count: 5,
    firstSequence: 1,
    fault: null,
    head: { sequence: 5 },
  });
  const all = await verifyAudit({ db, vault });
  expect(all.filter(({ fault }) => fault !== null)).toEqual([]);
  expect(all.map(({ chain }) => chain)).toContain('system');
});

const event = () => sql`chain_id = ${tenantId}::uuid AND sequence`;

const TAMPERING: [string, () => Statement[], { sequence: number; kind: AuditFault }][] = [
  [
    'an action is changed',
    () => [sql`UPDATE audit_event SET action = 'x' WHERE ${event()} = 3`],
    { sequence: 3, kind: 'altered' },
  ],
  [
    'a user is changed',
    () => [sql`UPDATE audit_event SET external_user_id = 'user_2' WHERE ${event()} = 2`],
    { sequence: 2, kind: 'altered' },
  ],
  [
    'a user is erased while the tenant is there',
    () => [
      sql`UPDATE audit_event SET external_user_id = NULL, client_address = NULL, detail_salt = NULL WHERE ${event()} = 2`,
    ],
    { sequence: 2, kind: 'erased' },
  ],
  ['an event is removed', () => [sql`DELETE FROM audit_event WHERE ${event()} = 3`], { sequence: 3, kind: 'removed' }],
  ['the first is removed', () => [sql`DELETE FROM audit_event WHERE ${event()} = 1`], { sequence: 1, kind: 'removed' }],
  [
    'the last is removed',
    () => [sql`DELETE FROM audit_event WHERE ${event()} = 5`],
    { sequence: 5, kind: 'truncated' },
  ],
  [
    'the last is removed, and the head put back',
    () => [
      sql`DELETE FROM audit_event WHERE ${event()} = 5`,
      sql`UPDATE audit_chain c SET sequence = 4, hash = e.hash, recorded_at = e.recorded_at
        FROM audit_event e WHERE e.chain_id = c.id AND e.sequence = 4 AND c.id = ${tenantId}::uuid`,
    ],
    { sequence: 4, kind: 'head-altered' },
  ],
  [
    'two change places',
    () => [
      sql`UPDATE audit_event SET sequence = 99 WHERE ${event()} = 2`,
      sql`UPDATE audit_event SET sequence = 2 WHERE ${event()} = 3`,
      sql`UPDATE audit_event SET sequence = 3 WHERE ${event()} = 99`,
    ],
    { sequence: 2, kind: 'reordered' },
  ],
  [
    'one is removed and those behind it move up',
    () => [
      sql`DELETE FROM audit_event WHERE ${event()} = 3`,
      sql`UPDATE audit_event SET sequence = 3 WHERE ${event()} = 4`,
      sql`UPDATE audit_event SET sequence = 4 WHERE ${event()} = 5`,
    ],
    { sequence: 3, kind: 'altered' },
  ],
  [
    'one is added behind the last',
    () => [
      sql`INSERT INTO audit_event (chain_id, sequence, recorded_at, occurred_at, last_occurred_at, action, outcome,
          principal_kind, principal_id, count, hash)
        SELECT chain_id, 6, recorded_at, occurred_at, last_occurred_at, action, outcome, principal_kind, principal_id,
          count, hash FROM audit_event WHERE ${event()} = 5`,
    ],
    { sequence: 6, kind: 'inserted' },
  ],
  [
    'the anchor moves past events',
    () => [
      sql`UPDATE audit_chain c SET anchor_sequence = 2, anchor_hash = e.hash FROM audit_event e
        WHERE e.chain_id = c.id AND e.sequence = 2 AND c.id = ${tenantId}::uuid`,
      sql`DELETE FROM audit_event WHERE ${event()} <= 2`,
    ],
    { sequence: 5, kind: 'head-altered' },
  ],
  [
    'the whole chain is removed',
    () => [
      sql`DELETE FROM audit_event WHERE ${event()} > 0`,
      sql`DELETE FROM audit_chain WHERE id = ${tenantId}::uuid`,
    ],
    { sequence: 1, kind: 'missing' },
  ],
];

describe('somebody who owns the database, but not the key, is found out where', () => {
  test.each(TAMPERING)('%s', async (_what, statements, fault) => {
    await tamper(...statements());
    expect((await verify()).fault).toEqual(fault);
  });
});

test('a chain that was put back whole, with its head, shows by what an earlier verification has seen', async () => {
  const columns = sql`sequence, hash, recorded_at, seal`;
  const [former] = await db.query<{ sequence: number; hash: Uint8Array; recorded_at: Date; seal: Uint8Array }>(sql`
    SELECT ${columns} FROM audit_chain WHERE id = ${tenantId}::uuid`);
  await record(3);
  const { chain, head } = await verify();
  const known = { [chain]: head };
  await record(1);
  expect((await verify(known)).fault).toBeNull();
  await tamper(
    sql`DELETE FROM audit_event WHERE ${event()} > 5`,
    sql`UPDATE audit_chain SET sequence = ${former?.sequence}, hash = ${former?.hash},
      recorded_at = ${former?.recorded_at}, seal = ${former?.seal} WHERE id = ${tenantId}::uuid`,
  );
  expect((await verify()).fault).toBeNull();
  expect((await verify(known)).fault).toEqual({ sequence: 6, kind: 'rolled-back' });
});

test('nothing is appended behind a head that was changed without the key', async () => {
  await tamper(sql`UPDATE audit_chain SET recorded_at = now() WHERE id = ${tenantId}::uuid`);
  await expect(record(1)).rejects.toMatchObject({ name: 'AuditUnavailableError' });
});

test('the database itself lets nobody change or remove events, or make a chain shorter', async () => {
  const refused = [
    sql`UPDATE audit_event SET action = 'x' WHERE ${event()} = 1`,
    sql`UPDATE audit_event SET external_user_id = NULL, client_address = NULL, detail_salt = NULL WHERE ${event()} = 1`,
    sql`DELETE FROM audit_event WHERE ${event()} = 1`,
    sql`TRUNCATE audit_event`,
    sql`UPDATE audit_chain SET sequence = 1 WHERE id = ${tenantId}::uuid`,
    sql`DELETE FROM audit_chain WHERE id = ${tenantId}::uuid`,
    sql`TRUNCATE audit_chain`,
  ];
  for (const statement of refused) await expect(db.query(statement)).rejects.toMatchObject({ code: '42501' });
});

test('events that have served their time are removed from the start, and the rest stays verifiable', async () => {
  await tamper(
    sql`DELETE FROM audit_event WHERE chain_id = ${tenantId}::uuid`,
    sql`DELETE FROM audit_chain WHERE id = ${tenantId}::uuid`,
  );
  const ago = async (to: string) => {
    // Another clock: what is recorded by it is old by the database's own.
    const old = {
      ...db,
      transaction: <T>(run: (tx: typeof plain) => Promise<T>) =>
        plain.transaction(async (tx) => {
          const shifted = {
            query: async <Row>(statement: Statement) => {
              const rows = await tx.query<Row & { now?: Date }>(statement);
              for (const row of rows) if (row.now) row.now = new Date(row.now.getTime() - Number(to) * 86_400_000);
              return rows as Row[];
            },
          };
          return run(shifted as never);
        }),
    };
    return withAudit(old as never, createAuditTrail({ vault }));
  };
  await record(3, await ago('40'));
  await record(2);
  await pruneAudit({ db, log }, 30);
  expect(await verify()).toMatchObject({ count: 3, firstSequence: 4, fault: null, head: { sequence: 6 } });
  const [pruned] = await db.query<{ reference: string }>(sql`
    SELECT reference FROM audit_event WHERE ${event()} = 6 AND action = 'audit.pruned'`);
  expect(pruned?.reference).toBe('3');
  await pruneAudit({ db, log }, 30);
  expect((await verify()).head.sequence).toBe(6);
});

test('a closed chain is verifiable without what it told about persons, and takes in nothing about them', async () => {
  await db.transaction((tx) => closeChain(tx, tenantId));
  while ((await db.transaction((tx) => eraseDetails(tx, tenantId))) > 0);
  await record(1);
  const told = await db.query(sql`
    SELECT 1 FROM audit_event WHERE chain_id = ${tenantId}::uuid
      AND (external_user_id IS NOT NULL OR client_address IS NOT NULL OR detail_salt IS NOT NULL)`);
  expect(told).toEqual([]);
  expect(await verify()).toMatchObject({ count: 7, fault: null });
});

test('a new system key seals the key of the trail anew, and what was chained before is still verifiable', async () => {
  const sealed = async () =>
    (await db.query<{ key: Uint8Array }>(sql`SELECT sealed_key AS key FROM audit_key`)).map(({ key }) =>
      Buffer.from(key).toString('hex'),
    );
  const before = await sealed();
  await rotateSystemKey({ db, vault, log });
  while (await resealStale({ db, vault, log }));
  expect(await sealed()).not.toEqual(before);
  await record(1, withAudit(plain, createAuditTrail({ vault })));
  expect(await verify()).toMatchObject({ count: 6, fault: null });
});

test('a transaction that fails leaves no event, and no gap', async () => {
  const failing = db.transaction(async (tx) => {
    noteAudit(tx, { tenantId, action: 'test.failed' });
    throw new Error('after all not');
  });
  await expect(failing).rejects.toThrow('after all not');
  await record(1);
  expect(await verify()).toMatchObject({ count: 6, fault: null });
});
