import type { Spooled } from '../spool/spool.js';
import { VaultOpenError, VaultUnavailableError } from '../vault/errors.js';
import type { Deps } from './deps.js';
import { resumeImport } from './import-settlement.js';
import { settleRenewal } from './refresh-commit.js';
import { resealRow, spooledRow } from './renewal.js';

/** Stores one answer that was found on this machine's disk, or leaves it there. Never rejects for a refresh. */
export async function settleSpooled(deps: Deps, spooled: Spooled): Promise<void> {
  const { entry } = spooled;
  if (entry.kind === 'import') return resumeImport(deps, spooled);
  try {
    const row = await resealRow(deps, spooledRow(entry));
    const outcome = await settleRenewal(deps, row, { patienceMs: 0 });
    deps.log.info('spooled tokens were looked into', { grantId: entry.grantId, reason: outcome });
    if (outcome === 'undecided') spooled.postpone();
    else spooled.settle();
  } catch (error) {
    deps.log.error('spooled tokens could not be stored', { grantId: entry.grantId, job: 'replay-spool' }, error);
    // What does not open now never will: its tenant's keys are gone.
    const isLost = error instanceof VaultOpenError;
    if (isLost || (error instanceof VaultUnavailableError && error.reason === 'no-tenant-key')) spooled.settle();
    else spooled.postpone();
  }
}
