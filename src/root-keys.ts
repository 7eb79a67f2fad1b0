import type { Config } from './config.js';
import { readRootKeys } from './development.js';
import type { RootKeySource } from './root-key-settings.js';
import { RootKeyInvalidError } from './vault/errors.js';
import { createAwsKmsRootKeys } from './vault/root-key-aws-kms.js';
import { createPkcs11RootKeys } from './vault/root-key-pkcs11.js';
import { joinRootKeys } from './vault/root-key-set.js';
import { createLocalRootKeys, type RootKeyProvider } from './vault/root-key.js';

/**
 * The root keys as configured, of one provider or of several.
 *
 * @throws {RootKeyInvalidError} one cannot be used. One sentence for the operator.
 */
export async function openRootKeys(config: Config): Promise<RootKeyProvider> {
  const opened: RootKeyProvider[] = [];
  try {
    for (const source of config.rootKeySources) opened.push(await openSource(config, source));
    const [newest, ...others] = opened;
    if (newest === undefined) throw new RootKeyInvalidError('No root key is given.');
    return await joinRootKeys([newest, ...others]);
  } catch (error) {
    await Promise.all(opened.map((provider) => provider.close()));
    throw error;
  }
}

async function openSource(config: Config, source: RootKeySource): Promise<RootKeyProvider> {
  const { rootKeyTimeoutMs: timeoutMs } = config;
  switch (source.kind) {
    case 'pkcs11':
      return createPkcs11RootKeys({ ...source, timeoutMs });
    case 'aws-kms':
      return createAwsKmsRootKeys({ ...source, timeoutMs });
    default:
      return createLocalRootKeys(await readRootKeys(config, source.kind));
  }
}
