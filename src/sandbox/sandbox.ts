import { setMaxListeners } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { Clock } from '../clock.js';
import { type Control, createControl } from './control.js';
import { createFaults } from './faults.js';
import { createLedger } from './ledger.js';
import { createMint } from './mint.js';
import { createSandboxServer } from './server.js';
import { freshState, restoreState, serializeState } from './state.js';
import { createStore, readSaved } from './store.js';
import { createWebhookSender } from './webhook-sender.js';
import type { SandboxLog, World } from './world.js';

export interface SandboxOptions {
  /** Address to listen on. The portal and the control API answer to this machine alone, whatever it is. */
  host: string;
  /** 0 takes any free port. */
  port: number;
  /** Decides lifetimes, waits and retries. */
  clock: Clock;
  /** File that the state is kept in, 0600; without it the sandbox forgets everything when it closes. */
  persistTo?: string;
  /** Puts `CANARY` into every secret that is minted, so that leaks can be searched for. */
  canary?: boolean;
  log?: SandboxLog;
}

export interface Sandbox {
  /** Base of OAuth (`{origin}/oauth/…`) and REST (`{origin}/v2/…`), without a slash at the end. */
  origin: string;
  /** The operations of the HTTP control API, in process. */
  control: Control;
  /**
   * Cuts connections, gives up waits, saves what is unsaved, and resolves when nothing runs any more. Rejects if the
   * state cannot be saved.
   */
  close(): Promise<void>;
}

function originOf({ address, family, port }: AddressInfo): string {
  if (address === '0.0.0.0' || address === '::') return `http://localhost:${port}`;
  return `http://${family === 'IPv6' ? `[${address}]` : address}:${port}`;
}

/**
 * Starts a strict stand-in for Zoom: authorization, tokens, REST and webhooks over plain HTTP, with the answers that
 * Zoom is known to give. It talks to nobody but the webhook URLs of its own apps.
 *
 * Apps, users, grants, tokens, knobs and pending webhooks survive a restart with the same `persistTo`; faults and the
 * ledger do not.
 *
 * @throws {Error} the address is taken, or the saved state cannot be read.
 * @see https://developers.zoom.us/docs/integrations/oauth/
 */
export async function createSandbox(options: SandboxOptions): Promise<Sandbox> {
  const { host, port, clock, persistTo, canary = false, log } = options;
  const saved = persistTo === undefined ? null : await readSaved(persistTo);
  const state = saved === null ? freshState() : restoreState(saved);
  const store = createStore(persistTo, {
    snapshot: () => serializeState(state),
    onError: (error) => log?.error('The sandbox could not save its state.', {}, error),
  });
  const closing = new AbortController();
  // Every delayed answer listens to it.
  setMaxListeners(0, closing.signal);
  const ledger = createLedger(clock);
  const base = { state, clock, ledger, changed: () => store.changed() };
  const world: World = {
    ...base,
    mint: createMint({ canary, signingKey: state.signingKey }),
    faults: createFaults(),
    webhooks: createWebhookSender(base, log),
    origin: '',
  };
  const control = createControl(world);
  const server = createSandboxServer(world, { control, store, signal: closing.signal, log });

  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, host, () => {
      server.off('error', reject);
      resolve();
    });
  });
  world.origin = originOf(server.address() as AddressInfo);
  store.changed();
  await store.flush();
  world.webhooks.resume();

  return {
    origin: world.origin,
    control,
    close: async () => {
      closing.abort();
      const closed = new Promise<void>((resolve) => server.close(() => resolve()));
      server.closeAllConnections();
      await closed;
      await world.webhooks.stop();
      ledger.close();
      await store.flush();
    },
  };
}
