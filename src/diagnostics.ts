import { channel } from 'node:diagnostics_channel';

/**
 * Where a refresh has come to:
 *
 * - `leased`: the lease is committed, nothing is sent yet.
 * - `answered`: the whole answer of the provider is read and holds tokens.
 * - `spooled`: the sealed tokens are on this machine's disk. Left out where the spool cannot be written.
 * - `committing`: they are written within the transaction, which is not committed yet.
 * - `committed`: they are stored.
 */
export type RefreshStep = 'leased' | 'answered' | 'spooled' | 'committing' | 'committed';

/** What subscribers get. It holds no secret. */
export interface RefreshProgress {
  step: RefreshStep;
  grantId: string;
  fence: number;
}

/** Name of the channel, for `subscribe` of `node:diagnostics_channel`. Its subscribers run within the refresh. */
export const REFRESH_CHANNEL = 'latchkey:refresh';

const refreshes = channel(REFRESH_CHANNEL);

/** Tells whoever traces this process where a refresh has come to; costs nothing where nobody does. */
export function traceRefresh(step: RefreshStep, { grantId, fence }: { grantId: string; fence: number }): void {
  if (refreshes.hasSubscribers) refreshes.publish({ step, grantId, fence } satisfies RefreshProgress);
}
