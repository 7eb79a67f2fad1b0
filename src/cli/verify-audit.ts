import { readFile } from 'node:fs/promises';
import sql from 'sql-template-tag';
import { z } from 'zod';
import type { Config } from '../config.js';
import type { Database } from '../database/database.js';
import { type ChainVerification, type KnownHead, verifyAudit } from '../domain/audit-verification.js';
import { withVault } from './installation.js';
import { CliError, EXIT, type ExitCode, type Output } from './output.js';

export interface VerifyAuditOptions {
  tenant?: string;
  heads?: string;
}

const Verified = z.object({
  chains: z.array(z.object({ chain: z.string(), head: z.object({ sequence: z.int(), hash: z.string() }) })),
});

/** The heads of an earlier run, as `--json` printed them. */
async function readHeads(file: string | undefined): Promise<Record<string, KnownHead>> {
  if (file === undefined) return {};
  try {
    const { chains } = Verified.parse(JSON.parse(await readFile(file, 'utf8')));
    return Object.fromEntries(chains.map(({ chain, head }) => [chain, head]));
  } catch {
    throw new CliError(`${file} is not what latchkey verify-audit --json printed.`, EXIT.usage);
  }
}

async function tenantRow(db: Database, externalId: string): Promise<string> {
  const [row] = await db.query<{ id: string }>(sql`SELECT id FROM tenant WHERE external_id = ${externalId}`);
  if (row === undefined) throw new CliError('There is no such tenant.', EXIT.usage);
  return row.id;
}

function lineOf({ chain, tenantExternalId, count, firstSequence, head, fault }: ChainVerification): string {
  const name = tenantExternalId === null ? chain : `${tenantExternalId} (${chain})`;
  if (fault !== null) return `${name}: WRONG at event ${fault.sequence}: ${fault.kind}`;
  return `${name}: ${count} events, ${firstSequence} to ${head.sequence}, head ${head.hash.slice(0, 16)}`;
}

/** Reads the audit trail through and says whether anything of it was removed or altered. */
export async function verifyAuditTrail(
  config: Config,
  output: Output,
  { tenant, heads }: VerifyAuditOptions,
): Promise<ExitCode> {
  const knownHeads = await readHeads(heads);
  const chains = await withVault(config, async ({ db, vault }) => {
    const only = tenant === undefined ? {} : { tenantId: await tenantRow(db, tenant) };
    return verifyAudit({ db, vault }, { ...only, knownHeads });
  });
  output.result({ chains }, () => chains.map(lineOf).join('\n'));
  return chains.some(({ fault }) => fault !== null) ? EXIT.failed : EXIT.done;
}
