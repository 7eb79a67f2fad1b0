import sql from 'sql-template-tag';
import { Secret } from '../secret.js';
import type { SpoolEntry } from '../spool/spool.js';
import type { Sealer } from '../vault/vault.js';
import type { TokenSet } from '../zoom/zoom.js';
import type { Deps, DomainSettings } from './deps.js';
import { probeDelaySeconds, REFRESH_TOKEN_DAYS, refreshDelaySeconds, sealTokens } from './grant.js';

/** Tokens that a refresh has obtained, and where they belong. They are the only ones that the provider still takes. */
export interface Renewal {
  grantId: string;
  tenantId: string;
  /** The lease they were obtained under, and the version of the credential that they follow. */
  fence: number;
  version: number;
  /** When the provider was asked for them, by the database's clock: their life began then. */
  issuedAt: Date;
  tokens: TokenSet;
  /** The provider sent a new refresh token; otherwise the former one is among the tokens, and goes on counting. */
  isRotated: boolean;
}

const place = ({ tenantId, grantId, version }: Pick<Renewal, 'tenantId' | 'grantId' | 'version'>) => ({
  tenantId,
  table: 'refresh_spool',
  column: 'renewal',
  recordId: grantId,
  version,
});

/** Seals a renewal for this machine's disk. */
export function sealRenewal(sealer: Sealer, renewal: Renewal): SpoolEntry {
  const { tenantId, grantId, version, tokens, ...rest } = renewal;
  const content = {
    ...rest,
    issuedAt: renewal.issuedAt.toISOString(),
    tokens: {
      ...tokens,
      accessToken: tokens.accessToken.reveal(),
      refreshToken: tokens.refreshToken?.reveal() ?? null,
    },
  };
  return { tenantId, grantId, version, sealed: sealer.seal(place(renewal), new Secret(JSON.stringify(content))) };
}

type Content = Omit<Renewal, 'tenantId' | 'grantId' | 'version' | 'issuedAt' | 'tokens'> & {
  issuedAt: string;
  tokens: Omit<TokenSet, 'accessToken' | 'refreshToken'> & { accessToken: string; refreshToken: string | null };
};

/**
 * @throws {VaultOpenError} it was not sealed by `sealRenewal` for this grant and version with a key of this database.
 * @throws {VaultUnavailableError} the key cannot be had at the moment.
 */
export async function openRenewal(deps: Pick<Deps, 'db' | 'vault'>, entry: SpoolEntry): Promise<Renewal> {
  const { tenantId, grantId, version } = entry;
  const opened = await deps.vault.open(deps.db, place(entry), entry.sealed);
  // Authentic, so ours, so of this shape.
  const { issuedAt, tokens, ...rest } = JSON.parse(opened.reveal()) as Content;
  return {
    ...rest,
    tenantId,
    grantId,
    version,
    issuedAt: new Date(issuedAt),
    tokens: {
      ...tokens,
      accessToken: new Secret(tokens.accessToken),
      refreshToken: tokens.refreshToken === null ? null : new Secret(tokens.refreshToken),
    },
  };
}

/** The row that a renewal becomes, sealed for the version that follows. */
export interface RenewedRow {
  grantId: string;
  fence: number;
  version: number;
  access: Uint8Array;
  refresh: Uint8Array | null;
  keyVersion: number;
  apiUrl: string;
  issuedAt: Date;
  lifeSeconds: number;
  refreshDelay: number;
  probeDelay: number | null;
  isRotated: boolean;
}

export function renewedRow(sealer: Sealer, settings: DomainSettings, renewal: Renewal): RenewedRow {
  const { grantId, tenantId, fence, version, issuedAt, tokens, isRotated } = renewal;
  const refreshDelay = refreshDelaySeconds(tokens.expiresInSeconds, settings.refreshMarginSeconds);
  return {
    ...sealTokens(sealer, { id: grantId, tenantId }, version + 1, tokens),
    grantId,
    fence,
    version,
    apiUrl: tokens.apiUrl,
    issuedAt,
    lifeSeconds: tokens.expiresInSeconds,
    refreshDelay,
    probeDelay: probeDelaySeconds(refreshDelay, settings.probeIntervalSeconds),
    isRotated,
  };
}

/** `new`: the rows as a table, for a statement that stores them. */
export const asTable = (rows: readonly RenewedRow[]) => sql`
  unnest(${rows.map((row) => row.grantId)}::uuid[], ${rows.map((row) => row.fence)}::int[],
    ${rows.map((row) => row.version)}::int[], ${rows.map((row) => row.access)}::bytea[],
    ${rows.map((row) => row.refresh)}::bytea[], ${rows.map((row) => row.keyVersion)}::int[],
    ${rows.map((row) => row.apiUrl)}::text[], ${rows.map((row) => row.issuedAt)}::timestamptz[],
    ${rows.map((row) => row.lifeSeconds)}::float8[], ${rows.map((row) => row.refreshDelay)}::float8[],
    ${rows.map((row) => row.probeDelay)}::float8[], ${rows.map((row) => row.isRotated)}::boolean[])
  AS new(grant_id, fence, version, access, refresh, key_version, api_url, issued_at, life, refresh_delay, probe_delay,
    is_rotated)`;

/** What storing a row of `new` sets, but for its scopes and fence. */
export const RENEW = sql`
  version = new.version + 1, sealed_access_token = new.access, sealed_refresh_token = new.refresh,
  key_version = new.key_version, api_url = new.api_url, issued_at = new.issued_at,
  expires_at = new.issued_at + make_interval(secs => new.life),
  refresh_expires_at = CASE WHEN new.is_rotated THEN new.issued_at + make_interval(days => ${REFRESH_TOKEN_DAYS})
    ELSE c.refresh_expires_at END,
  last_refreshed_at = now(), next_refresh_at = new.issued_at + make_interval(secs => new.refresh_delay),
  next_probe_at = now() + make_interval(secs => new.probe_delay), on_trial = false, refresh_state = 'IDLE',
  lease_until = NULL, failures = 0, failure_reason = NULL, retry_at = NULL`;
