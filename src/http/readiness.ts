import sql from 'sql-template-tag';
import { migrationNames } from '../database/migrate.js';
import { readClockOffset } from '../domain/clock-offset.js';
import type { Deps } from '../domain/deps.js';
import type { VerifiableVault } from '../vault/vault.js';

/** Beyond this, times that two machines compare are wrong by more than what they are compared for. */
const MAX_CLOCK_OFFSET_SECONDS = 30;
/** Why requests should go to another process. */
export type NotReadyReason =
  | 'draining'
  | 'quarantined'
  | 'database_unreachable'
  | 'database_read_only'
  | 'migrations_missing'
  | 'root_key_mismatch'
  | 'root_keys_unreachable'
  | 'clock';

export interface Readiness {
  /** Empty: ready. Never rejects. */
  reasons(): Promise<readonly NotReadyReason[]>;
  /** From here on it is not ready. */
  drain(): void;
}

/**
 * Whether requests may be sent here: the database can be written and has this version's migrations and root key, the
 * provider of root keys answers or unwrapped keys still make up for it, the clocks agree, the database is this
 * deployment's own, and the process is not ending. A newer version's migrations are no hindrance: both run for a while.
 */
export function createReadiness(
  deps: Pick<Deps, 'db' | 'clock'> & { vault: VerifiableVault; isQuarantined: () => boolean },
): Readiness {
  let draining = false;
  let checking: Promise<readonly NotReadyReason[]> | null = null;

  async function check(): Promise<readonly NotReadyReason[]> {
    try {
      const [row] = await deps.db.query<{ readOnly: string }>(sql`
        SELECT current_setting('transaction_read_only') AS "readOnly"`);
      const failed: [NotReadyReason, boolean][] = [
        ['database_read_only', row?.readOnly !== 'off'],
        ['migrations_missing', await lacksMigrations(deps)],
        ['root_key_mismatch', !(await deps.vault.fits(deps.db))],
        ['quarantined', deps.isQuarantined()],
        ['root_keys_unreachable', !deps.vault.rootKeyHealth().isBridged],
        ['clock', Math.abs(await readClockOffset(deps)) > MAX_CLOCK_OFFSET_SECONDS],
      ];
      return failed.filter(([, isSo]) => isSo).map(([reason]) => reason);
    } catch {
      // Whoever asks wants nothing more; what needs the database writes why into the log.
      return ['database_unreachable'];
    }
  }

  return {
    reasons: async () => {
      if (draining) return ['draining'];
      // Whoever asks meanwhile shares the look: the path needs no key, so it must not be a way to load the database.
      checking ??= check().finally(() => (checking = null));
      const reasons = await checking;
      return draining ? ['draining'] : reasons;
    },
    drain: () => {
      draining = true;
    },
  };
}

let expected: Promise<string[]> | undefined;

async function lacksMigrations({ db }: Pick<Deps, 'db'>): Promise<boolean> {
  const names = await (expected ??= migrationNames());
  const [row] = await db.query<{ applied: number }>(sql`
    SELECT count(DISTINCT migration_name)::int AS applied FROM _prisma_migrations
    WHERE migration_name = ANY(${names}::text[]) AND finished_at IS NOT NULL AND rolled_back_at IS NULL`);
  return row?.applied !== names.length;
}
