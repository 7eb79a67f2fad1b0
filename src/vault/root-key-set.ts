import { VaultUnavailableError } from './errors.js';
import type { RootKeyProvider } from './root-key.js';

/**
 * Several providers as one, so that root keys can move from one to another: the first wraps, each unwraps what it has
 * wrapped.
 *
 * @param providers newest first; at least one.
 */
export async function joinRootKeys(
  providers: readonly [RootKeyProvider, ...RootKeyProvider[]],
): Promise<RootKeyProvider> {
  const [newest, ...others] = providers;
  if (others.length === 0) return newest;
  const described = await Promise.all(
    providers.map(async (provider) => ({ provider, keys: await provider.describe() })),
  );
  const providerOf = new Map(described.flatMap(({ provider, keys }) => keys.map(({ id }) => [id, provider] as const)));
  return {
    wrap: newest.wrap,
    unwrap: async (rootKeyId, blob, context) => {
      const provider = providerOf.get(rootKeyId);
      if (provider === undefined) throw new VaultUnavailableError('root-key-missing');
      return provider.unwrap(rootKeyId, blob, context);
    },
    describe: async () => described.flatMap(({ keys }) => keys),
    health: async () => {
      await Promise.all(providers.map((provider) => provider.health()));
    },
    close: async () => {
      await Promise.all(providers.map((provider) => provider.close()));
    },
  };
}
