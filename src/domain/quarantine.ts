import { ZoomUnavailableError } from '../zoom/errors.js';
import type { Zoom } from '../zoom/zoom.js';
import type { Deployment } from './deployment.js';
import type { RefreshOutcome, Refresher } from './refresh.js';

const RETRY_SECONDS = 60;

type Call<A extends unknown[], R> = (...args: A) => Promise<R>;

/**
 * The provider behind a wall: in quarantine every request fails as one that was not sent. Whatever else may ask for one,
 * no token is spent.
 */
export function holdProvider<Z extends Zoom>(zoom: Z, { isQuarantined }: Pick<Deployment, 'isQuarantined'>): Z {
  const held =
    <A extends unknown[], R>(call: Call<A, R>): Call<A, R> =>
    async (...args) => {
      if (isQuarantined()) throw new ZoomUnavailableError('not-sent', RETRY_SECONDS);
      return call(...args);
    };
  const { meetings } = zoom;
  return {
    ...zoom,
    exchangeCode: held(zoom.exchangeCode),
    refresh: held(zoom.refresh),
    mintAccountToken: held(zoom.mintAccountToken),
    revoke: held(zoom.revoke),
    currentUser: held(zoom.currentUser),
    readAccount: held(zoom.readAccount),
    meetings: Object.fromEntries(
      Object.entries(meetings).map(([name, call]) => [name, held(call as Call<never, unknown>)]),
    ) as unknown as typeof meetings,
  };
}

/** A refresher that takes no lease in quarantine, so that no connection's health suffers from it. */
export function holdRefresher(refresher: Refresher, { isQuarantined }: Pick<Deployment, 'isQuarantined'>): Refresher {
  const refused: RefreshOutcome = {
    kind: 'failed',
    reason: 'PROVIDER_UNAVAILABLE',
    retryAfterSeconds: RETRY_SECONDS,
  };
  return {
    ...refresher,
    refresh: async (seen, options) => (isQuarantined() ? refused : refresher.refresh(seen, options)),
    refreshDue: async (limit) => !isQuarantined() && refresher.refreshDue(limit),
    // What lies in the spool waits: it may belong to another database than the one that is there.
    replay: async (options) => {
      if (!isQuarantined()) await refresher.replay(options);
    },
  };
}
