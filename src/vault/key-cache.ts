import { LRUCache } from 'lru-cache';
import type { EnvelopeKey } from './envelope.js';
import { VaultUnavailableError } from './errors.js';

/** After a root key provider has failed, a key that is still at hand is used for so long before it is asked again. */
const RETRY_MS = 1_000;

export interface KeyCacheStats {
  /** Keys that were at hand when they were asked for. */
  hits: number;
  /** Questions to the root key provider. */
  unwraps: number;
  /** Keys held at the moment. */
  size: number;
}

export interface KeyName {
  owner: string;
  id: string;
  version: number;
}

/** Unwrapped tenant keys: bounded in number and in time. */
export interface KeyCache {
  /** One that may be used without a look at its row. */
  fresh(name: KeyName): EnvelopeKey | undefined;
  /**
   * A key whose row the caller has read. Concurrent callers share one `unwrap`. While the provider fails, a key that was
   * unwrapped less than twice its time ago still serves.
   *
   * @throws {VaultUnavailableError} from `unwrap`.
   */
  get(name: KeyName, unwrap: () => Promise<EnvelopeKey>): Promise<EnvelopeKey>;
  /** Forgets every key of an owner, also one that is being unwrapped. */
  forget(owner: string): void;
  stats(): KeyCacheStats;
}

interface Entry {
  key: EnvelopeKey;
  freshUntilMs: number;
}

/** @param options `ttlMs`: how long a key serves before its row and the provider are asked again. */
export function createKeyCache({ maxKeys, ttlMs }: { maxKeys: number; ttlMs: number }): KeyCache {
  const entries = new LRUCache<string, Entry>({ max: maxKeys, ttl: 2 * ttlMs });
  const unwrapping = new Map<string, Promise<EnvelopeKey>>();
  let hits = 0;
  let unwraps = 0;

  async function ask(name: string, unwrap: () => Promise<EnvelopeKey>): Promise<EnvelopeKey> {
    const former = entries.get(name);
    try {
      unwraps += 1;
      const running = unwrap();
      const key = await running;
      // Forgotten meanwhile: it serves those who asked before, and nobody after.
      if (unwrapping.has(name)) entries.set(name, { key, freshUntilMs: performance.now() + ttlMs });
      return key;
    } catch (error) {
      const isOutage = error instanceof VaultUnavailableError && error.reason === 'provider-failed';
      if (former === undefined || !isOutage || !entries.has(name)) throw error;
      former.freshUntilMs = performance.now() + Math.min(RETRY_MS, ttlMs);
      return former.key;
    }
  }

  function fresh(name: string): EnvelopeKey | undefined {
    const entry = entries.get(name);
    if (entry === undefined || entry.freshUntilMs <= performance.now()) return undefined;
    hits += 1;
    return entry.key;
  }

  return {
    fresh: (name) => fresh(nameOf(name)),
    get: (keyName, unwrap) => {
      const name = nameOf(keyName);
      const cached = fresh(name);
      if (cached !== undefined) return Promise.resolve(cached);
      let running = unwrapping.get(name);
      if (running === undefined) {
        running = ask(name, unwrap).finally(() => {
          if (unwrapping.get(name) === running) unwrapping.delete(name);
        });
        unwrapping.set(name, running);
      }
      return running;
    },
    forget: (owner) => {
      const prefix = `${owner}/`;
      for (const name of unwrapping.keys()) if (name.startsWith(prefix)) unwrapping.delete(name);
      for (const name of entries.keys()) if (name.startsWith(prefix)) entries.delete(name);
    },
    stats: () => ({ hits, unwraps, size: entries.size }),
  };
}

const nameOf = ({ owner, id, version }: KeyName): string => `${owner}/${id}/${version}`;
