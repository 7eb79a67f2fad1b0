import { randomUUID } from 'node:crypto';
import { Secret } from '../secret.js';
import type { SpoolEntry } from '../spool/spool.js';
import type { Sealer } from '../vault/vault.js';
import type { TokenSet } from '../zoom/zoom.js';
import type { Deps } from './deps.js';

/**
 * Tokens that were obtained elsewhere and have been renewed here, and what is to become of them. They are the only ones
 * that the provider still takes.
 */
export interface PendingImport {
  id: string;
  tenantId: string;
  appId: string;
  /** Null: an installation. */
  externalUserId: string | null;
  /** The provider user that the access token given along spoke for; null where it told nothing. */
  claimedUserId: string | null;
  /** When the provider was asked for the tokens, by the database's clock: their life began then. */
  issuedAt: Date;
  tokens: TokenSet & { refreshToken: Secret };
}

export const newImportId = (): string => randomUUID();

const place = ({ tenantId, id }: { tenantId: string; id: string }) => ({
  tenantId,
  table: 'import_spool',
  column: 'import',
  recordId: id,
  version: 1,
});

/** Seals an import with its tenant's key, for this machine's disk. */
export function sealImport(sealer: Sealer, pending: PendingImport): SpoolEntry {
  const { id, tenantId, tokens, ...rest } = pending;
  const content = {
    ...rest,
    issuedAt: pending.issuedAt.toISOString(),
    tokens: { ...tokens, accessToken: tokens.accessToken.reveal(), refreshToken: tokens.refreshToken.reveal() },
  };
  const sealed = sealer.seal(place(pending), new Secret(JSON.stringify(content)));
  return { kind: 'import', tenantId, grantId: id, version: 0, content: Buffer.from(sealed).toString('base64') };
}

type Content = Omit<PendingImport, 'id' | 'tenantId' | 'issuedAt' | 'tokens'> & {
  issuedAt: string;
  tokens: Omit<TokenSet, 'accessToken' | 'refreshToken'> & { accessToken: string; refreshToken: string };
};

/**
 * @throws {VaultOpenError} it was not sealed by `sealImport` for this tenant with a key of this database.
 * @throws {VaultUnavailableError} the key cannot be had at the moment.
 */
export async function openImport(deps: Pick<Deps, 'db' | 'vault'>, entry: SpoolEntry): Promise<PendingImport> {
  const { tenantId, grantId: id } = entry;
  const opened = await deps.vault.open(deps.db, place({ tenantId, id }), Buffer.from(entry.content, 'base64'));
  // Authentic, so ours, so of this shape.
  const { issuedAt, tokens, ...rest } = JSON.parse(opened.reveal()) as Content;
  return {
    ...rest,
    id,
    tenantId,
    issuedAt: new Date(issuedAt),
    tokens: {
      ...tokens,
      accessToken: new Secret(tokens.accessToken),
      refreshToken: new Secret(tokens.refreshToken),
    },
  };
}
