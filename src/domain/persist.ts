import type { Sql } from '../database/database.js';
import { DomainError } from '../errors.js';
import type { Deps } from './deps.js';

const FIRST_WAIT_MS = 100;
const LONGEST_WAIT_MS = 500;

/**
 * Commits what cannot be had again: tokens that the provider has just handed out. A failing transaction is tried until
 * it commits or `patienceMs` has passed, because giving up loses the grant.
 *
 * `run` must stand being repeated: if a commit succeeded but its answer was lost, it runs once more.
 *
 * @param options `hurry`: once it aborts, the attempt under way is the last one.
 * @throws the last failure; a DomainError at once, since trying again would not change it.
 */
export async function persist<T>(
  deps: Pick<Deps, 'db' | 'clock' | 'log'>,
  { patienceMs, hurry }: { patienceMs: number; hurry?: AbortSignal },
  run: (tx: Sql) => Promise<T>,
): Promise<T> {
  const deadline = deps.clock.now().getTime() + patienceMs;
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
    try {
      return await deps.db.transaction(run);
    } catch (error) {
      const over = hurry?.aborted || deps.clock.now().getTime() + wait > deadline;
      if (error instanceof DomainError || over) throw error;
      deps.log.error('tokens could not be stored yet; trying again', {}, error);
      await deps.clock.sleep(wait, hurry);
    }
  }
}
