import { VaultUnavailableError, type VaultUnavailableReason } from './errors.js';
import type { RootKeyProvider } from './root-key.js';

/** These say something about the provider; the others about the one key that was asked for. */
const FAILURES: ReadonlySet<VaultUnavailableReason> = new Set(['provider-failed', 'root-key-denied']);

export interface RootKeyWatch {
  /** Does what the provider does, and is watched. */
  rootKeys: RootKeyProvider;
  /**
   * For how long the provider has not answered, by what it said last; 0: it does. Never waits: where the last answer is
   * old, the provider is asked in the background.
   */
  failingMs(): number;
}

/**
 * Watches whether a provider answers.
 *
 * @param askAfterMs how old its last answer may be. Whoever may ask for its state cannot load it more than that.
 */
export function watchRootKeys(provider: RootKeyProvider, { askAfterMs = 10_000 } = {}): RootKeyWatch {
  let answeredMs = performance.now();
  let failingSinceMs: number | null = null;
  let isAsking = false;

  function note(error: unknown): void {
    answeredMs = performance.now();
    const isAnswer = error instanceof VaultUnavailableError && !FAILURES.has(error.reason);
    failingSinceMs = error === null || isAnswer ? null : (failingSinceMs ?? answeredMs);
  }

  const noting =
    <A extends unknown[], R>(call: (...args: A) => Promise<R>) =>
    async (...args: A): Promise<R> => {
      try {
        const answer = await call(...args);
        note(null);
        return answer;
      } catch (error) {
        note(error);
        throw error;
      }
    };

  const rootKeys: RootKeyProvider = {
    ...provider,
    wrap: noting(provider.wrap),
    unwrap: noting(provider.unwrap),
    health: noting(provider.health),
  };

  async function ask(): Promise<void> {
    isAsking = true;
    try {
      await rootKeys.health();
    } catch {
      // Noted; whoever asks for the state is told for how long it has been so.
    } finally {
      isAsking = false;
    }
  }

  return {
    rootKeys,
    failingMs: () => {
      if (!isAsking && performance.now() - answeredMs >= askAfterMs) void ask();
      return failingSinceMs === null ? 0 : performance.now() - failingSinceMs;
    },
  };
}
