import type { Clock } from '../clock.js';
import type { Faults } from './faults.js';
import type { Ledger } from './ledger.js';
import type { Mint } from './mint.js';
import type { State } from './state.js';
import type { WebhookSender } from './webhook-sender.js';

/** Where the sandbox says that something went wrong inside it. The process's own log fits. */
export interface SandboxLog {
  error(message: string, fields?: { route?: string }, error?: unknown): void;
}

/** What every handler works on. Handlers change `state` directly and call `changed` afterwards. */
export interface World {
  state: State;
  clock: Clock;
  mint: Mint;
  ledger: Ledger;
  faults: Faults;
  webhooks: WebhookSender;
  /** Scheme, host and port that the sandbox is reached at; known once it listens. */
  origin: string;
  changed(): void;
}

/** Epoch milliseconds on the sandbox's clock. */
export const nowMs = (world: { clock: Clock }): number => world.clock.now().getTime();
