import { LRUCache } from 'lru-cache';
import type { Sql } from '../database/database.js';
import type { ProviderEnvironment } from '../generated/prisma/enums.js';
import type { Secret } from '../secret.js';
import type { Sealed, Vault } from '../vault/vault.js';
import { ZoomClientRejectedError } from '../zoom/errors.js';
import type { ZoomClient } from '../zoom/zoom.js';
import type { Deps } from './deps.js';

const COLUMNS = {
  clientSecret: 'sealed_client_secret',
  formerClientSecret: 'sealed_former_client_secret',
  webhookSecret: 'sealed_webhook_secret',
  formerWebhookSecret: 'sealed_former_webhook_secret',
} as const;

export type AppSecretName = keyof typeof COLUMNS;

/** The sealed columns of a provider app. */
export interface SealedAppSecrets {
  id: string;
  secretVersion: number;
  sealedClientSecret: Sealed;
  sealedFormerClientSecret: Sealed | null;
  sealedWebhookSecret: Sealed | null;
  sealedFormerWebhookSecret: Sealed | null;
}

const place = (app: { id: string; secretVersion: number }, name: AppSecretName) => ({
  tenantId: null,
  table: 'provider_app',
  column: COLUMNS[name],
  recordId: app.id,
  version: app.secretVersion,
});

/** Seals the secrets of an app for one version of its row. */
export async function sealAppSecrets(
  vault: Vault,
  sql: Sql,
  app: { id: string; secretVersion: number },
  secrets: Record<AppSecretName, Secret | null>,
): Promise<Record<AppSecretName, Sealed | null>> {
  const seal = async (name: AppSecretName) => {
    const secret = secrets[name];
    return secret === null ? null : (await vault.seal(sql, place(app, name), secret)).sealed;
  };
  return {
    clientSecret: await seal('clientSecret'),
    formerClientSecret: await seal('formerClientSecret'),
    webhookSecret: await seal('webhookSecret'),
    formerWebhookSecret: await seal('formerWebhookSecret'),
  };
}

/** @returns null where the app has no such secret. */
export async function openAppSecret(
  vault: Vault,
  sql: Sql,
  app: SealedAppSecrets,
  name: AppSecretName,
): Promise<Secret | null> {
  const sealed = {
    clientSecret: app.sealedClientSecret,
    formerClientSecret: app.sealedFormerClientSecret,
    webhookSecret: app.sealedWebhookSecret,
    formerWebhookSecret: app.sealedFormerWebhookSecret,
  }[name];
  return sealed === null ? null : vault.open(sql, place(app, name), sealed);
}

/** What is needed to speak to the provider in an app's name. */
export interface AppClient {
  id: string;
  environment: ProviderEnvironment;
  clientId: string;
  secretVersion: number;
  sealedClientSecret: Sealed;
  /** Null also when it is retired. */
  sealedFormerClientSecret: Sealed | null;
}

/** Client secrets that are used again and again, opened; by app, version and name. */
export type OpenedSecrets = LRUCache<string, Secret>;

const OPENED_MS = 10_000;
const MAX_OPENED = 1_000;

export const createOpenedSecrets = (): OpenedSecrets => new LRUCache({ max: MAX_OPENED, ttl: OPENED_MS });

/**
 * Calls the provider with the app's client secret, and once more with the former one if the new one is refused and the
 * former is not retired: at the provider either may be the right one while they are being changed.
 */
export async function callAsApp<T>(
  deps: Pick<Deps, 'db' | 'vault'> & { openedSecrets?: OpenedSecrets },
  app: AppClient,
  call: (client: ZoomClient) => Promise<T>,
): Promise<T> {
  const sealed = { ...app, sealedWebhookSecret: null, sealedFormerWebhookSecret: null };
  const clientWith = async (name: AppSecretName): Promise<ZoomClient | null> => {
    const id = `${app.id}/${app.secretVersion}/${name}`;
    const opened = deps.openedSecrets?.get(id);
    const clientSecret = opened ?? (await openAppSecret(deps.vault, deps.db, sealed, name));
    if (opened === undefined && clientSecret !== null) deps.openedSecrets?.set(id, clientSecret);
    return clientSecret === null ? null : { environment: app.environment, clientId: app.clientId, clientSecret };
  };
  const current = await clientWith('clientSecret');
  if (current === null) throw new ZoomClientRejectedError();
  try {
    return await call(current);
  } catch (error) {
    if (!(error instanceof ZoomClientRejectedError)) throw error;
    const former = await clientWith('formerClientSecret');
    if (former === null) throw error;
    return call(former);
  }
}
