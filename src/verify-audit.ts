import { readFile } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import sql from 'sql-template-tag';
import { z } from 'zod';
import { readConfig } from './config.js';
import type { Database } from './database/database.js';
import { openEmbedded } from './database/embedded.js';
import { openPostgres } from './database/postgres.js';
import { readRootKeys } from './development.js';
import { type ChainVerification, type KnownHead, verifyAudit } from './domain/audit-verification.js';
import { createLog } from './log.js';
import { createLocalRootKeys } from './vault/root-key.js';
import { createVault } from './vault/vault.js';

/** Exit codes: something is wrong with the trail; it could not be verified. */
const ALTERED = 1;
const NOT_VERIFIED = 2;

const Verified = z.object({
  chains: z.array(z.object({ chain: z.string(), head: z.object({ sequence: z.int(), hash: z.string() }) })),
});

/** The heads of an earlier run, as `--json` printed them. */
async function readHeads(file: string | undefined): Promise<Record<string, KnownHead>> {
  if (file === undefined) return {};
  const { chains } = Verified.parse(JSON.parse(await readFile(file, 'utf8')));
  return Object.fromEntries(chains.map(({ chain, head }) => [chain, head]));
}

async function tenantRow(db: Database, externalId: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${externalId}`);
  if (row === undefined) throw new Error('There is no such tenant.');
  return row.id;
}

function lineOf({ chain, tenantExternalId, count, firstSequence, head, fault }: ChainVerification): string {
  const name = tenantExternalId === null ? chain : `${tenantExternalId} (${chain})`;
  if (fault !== null) return `${name}: WRONG at event ${fault.sequence}: ${fault.kind}`;
  return `${name}: ${count} events, ${firstSequence} to ${head.sequence}, head ${head.hash.slice(0, 16)}`;
}

/** npm run audit:verify -- [--tenant ID] [--heads FILE] [--json], with the settings of the server. */
async function main(): Promise<number> {
  const { values } = parseArgs({
    options: { tenant: { type: 'string' }, heads: { type: 'string' }, json: { type: 'boolean', default: false } },
  });
  const knownHeads = await readHeads(values.heads);
  const config = readConfig();
  const rootKeys = createLocalRootKeys(await readRootKeys(config));
  const { databaseUrl: connectionString, dataDir } = config;
  const log = createLog('silent');
  const db = await (connectionString === null ? openEmbedded(dataDir) : openPostgres({ connectionString, log }));
  try {
    const vault = createVault({ rootKeys });
    await vault.verify(db);
    const tenantId = values.tenant === undefined ? {} : { tenantId: await tenantRow(db, values.tenant) };
    const chains = await verifyAudit({ db, vault }, { ...tenantId, knownHeads });
    process.stdout.write(
      values.json ? `${JSON.stringify({ chains }, null, 2)}\n` : `${chains.map(lineOf).join('\n')}\n`,
    );
    return chains.some(({ fault }) => fault !== null) ? ALTERED : 0;
  } finally {
    await db.close();
  }
}

try {
  process.exit(await main());
} catch (error) {
  process.stderr.write(`The audit trail could not be verified: ${(error as Error).message}\n`);
  process.exit(NOT_VERIFIED);
}
