import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { Secret } from '../secret.js';
import type { SpoolCipher, SpoolEntry } from '../spool/spool.js';
import { VaultOpenError } from '../vault/errors.js';
import type { Sealer, Vault } from '../vault/vault.js';
import type { TokenSet } from '../zoom/zoom.js';
import type { Deps, DomainSettings } from './deps.js';
import { credentialPlace, REFRESH_TOKEN_DAYS, sealTokens } from './grant.js';
import { probeDelaySeconds, refreshDelaySeconds } from './refresh-delay.js';
import type { TokensToRevoke } from './revocation-queue.js';

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

/** The row that a renewal becomes, sealed for the version that follows. */
export interface RenewedRow {
  tenantId: string;
  grantId: string;
  fence: number;
  version: number;
  access: Uint8Array;
  refresh: Uint8Array | null;
  keyVersion: number;
  apiUrl: string;
  scopes: string[];
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
    tenantId,
    grantId,
    fence,
    version,
    apiUrl: tokens.apiUrl,
    scopes: tokens.scopes,
    issuedAt,
    lifeSeconds: tokens.expiresInSeconds,
    refreshDelay,
    probeDelay: probeDelaySeconds(refreshDelay, settings.probeIntervalSeconds),
    isRotated,
  };
}

const PLACE = { tenantId: null, table: 'refresh_spool', column: 'file', version: 1 };

/**
 * Seals spool files with the system's key, a whole file at a time: it proves that they are ours. The tokens within are
 * sealed already, as their rows will hold them, so that what ends a tenant's key ends them as well.
 */
export function createSpoolCipher({ vault, db }: Pick<Deps, 'vault' | 'db'>): SpoolCipher {
  return {
    sealer: async () => {
      const { seal } = await vault.sealer(db, null);
      return (file, content) => seal({ ...PLACE, recordId: file }, new Secret(content));
    },
    open: async (file, sealed) => {
      try {
        return (await vault.open(db, { ...PLACE, recordId: file }, sealed)).reveal();
      } catch (error) {
        if (error instanceof VaultOpenError) return null;
        throw error;
      }
    },
  };
}

type Content = Omit<RenewedRow, 'tenantId' | 'grantId' | 'version' | 'access' | 'refresh' | 'issuedAt'> & {
  access: string;
  refresh: string | null;
  issuedAt: string;
};

/** What the spool keeps of a row that is not stored yet. */
export function spoolEntry({ tenantId, grantId, version, access, refresh, issuedAt, ...rest }: RenewedRow): SpoolEntry {
  const content: Content = {
    ...rest,
    issuedAt: issuedAt.toISOString(),
    access: toBase64(access),
    refresh: refresh && toBase64(refresh),
  };
  return { kind: 'renewal', tenantId, grantId, version, content: JSON.stringify(content) };
}

export function spooledRow({ tenantId, grantId, version, content }: SpoolEntry): RenewedRow {
  const { access, refresh, issuedAt, ...rest } = JSON.parse(content) as Content;
  return {
    ...rest,
    tenantId,
    grantId,
    version,
    issuedAt: new Date(issuedAt),
    access: fromBase64(access),
    refresh: refresh === null ? null : fromBase64(refresh),
  };
}

const toBase64 = (bytes: Uint8Array) =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('base64');
const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, 'base64'));

/**
 * @throws {VaultOpenError} the tenant's key is gone.
 * @throws {VaultUnavailableError} the key cannot be had at the moment.
 */
export async function openTokens(vault: Vault, db: Sql, row: RenewedRow): Promise<TokensToRevoke> {
  const grant = { id: row.grantId, tenantId: row.tenantId };
  const version = row.version + 1;
  return {
    accessToken: await vault.open(db, credentialPlace(grant, 'sealed_access_token', version), row.access),
    refreshToken:
      row.refresh && (await vault.open(db, credentialPlace(grant, 'sealed_refresh_token', version), row.refresh)),
    expiresAt: new Date(row.issuedAt.getTime() + row.lifeSeconds * 1_000),
  };
}

/**
 * A row that has lain in a spool, sealed with the version of its tenant's key that is active now: the one it was sealed
 * with may have been superseded, and is to be needed no longer.
 *
 * @throws {VaultOpenError} the tenant's key is gone.
 * @throws {VaultUnavailableError} the key cannot be had at the moment, or the tenant has none any more.
 */
export async function resealRow({ vault, db }: Pick<Deps, 'vault' | 'db'>, row: RenewedRow): Promise<RenewedRow> {
  const sealer = await vault.sealer(db, row.tenantId);
  if (sealer.keyVersion === row.keyVersion) return row;
  const tokens = await openTokens(vault, db, row);
  return { ...row, ...sealTokens(sealer, { id: row.grantId, tenantId: row.tenantId }, row.version + 1, tokens) };
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
