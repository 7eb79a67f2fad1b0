import sql, { join, raw, type Sql as SqlStatement } from 'sql-template-tag';
import { isSealedBefore } from '../vault/envelope.js';

/** A table with sealed columns, as far as re-sealing has to know it. */
export interface SealedTable {
  name: string;
  id: string;
  columns: readonly string[];
  /** The column that holds the version the seals are bound to; null: they are bound to 1. */
  rowVersion: string | null;
  /** The column that repeats which key version sealed the row; null: the envelopes alone say it. */
  keyVersion: string | null;
  /** A condition: the row `t` belongs to this owner (null: the system). */
  ownedBy(tenantId: string | null): SqlStatement;
}

const NOBODY = sql`FALSE`;

/** Every table that holds secrets sealed with a key of a tenant's or the system's. */
export const SEALED_TABLES: readonly SealedTable[] = [
  {
    name: 'credential',
    id: 'grant_id',
    columns: ['sealed_access_token', 'sealed_refresh_token'],
    rowVersion: 'version',
    keyVersion: 'key_version',
    ownedBy: (tenantId) => (tenantId === null ? NOBODY : sql`t.tenant_id = ${tenantId}::uuid`),
  },
  {
    name: 'provider_revocation',
    id: 'id',
    columns: ['sealed_token'],
    rowVersion: null,
    keyVersion: 'key_version',
    ownedBy: (tenantId) => (tenantId === null ? sql`t.tenant_id IS NULL` : sql`t.tenant_id = ${tenantId}::uuid`),
  },
  {
    name: 'url_signing_key',
    id: 'tenant_id',
    columns: ['sealed_key'],
    rowVersion: 'version',
    keyVersion: 'key_version',
    ownedBy: (tenantId) => (tenantId === null ? NOBODY : sql`t.tenant_id = ${tenantId}::uuid`),
  },
  {
    name: 'audit_key',
    id: 'id',
    columns: ['sealed_key'],
    rowVersion: null,
    keyVersion: null,
    ownedBy: (tenantId) => (tenantId === null ? sql`TRUE` : NOBODY),
  },
  {
    name: 'webhook_endpoint',
    id: 'id',
    columns: ['sealed_secret', 'sealed_former_secret'],
    rowVersion: 'secret_version',
    keyVersion: 'key_version',
    ownedBy: (tenantId) => (tenantId === null ? sql`t.tenant_id IS NULL` : sql`t.tenant_id = ${tenantId}::uuid`),
  },
  {
    name: 'authorization_session',
    id: 'id',
    columns: ['sealed_code_verifier', 'sealed_code'],
    rowVersion: null,
    keyVersion: null,
    ownedBy: (tenantId) => (tenantId === null ? NOBODY : sql`t.tenant_id = ${tenantId}::uuid`),
  },
  {
    name: 'provider_app',
    id: 'id',
    columns: [
      'sealed_client_secret',
      'sealed_former_client_secret',
      'sealed_webhook_secret',
      'sealed_former_webhook_secret',
    ],
    rowVersion: 'secret_version',
    keyVersion: null,
    ownedBy: (tenantId) => (tenantId === null ? sql`TRUE` : NOBODY),
  },
];

const column = (name: string): SqlStatement => raw(`t.${name}`);

/** A condition: something in the row `t` is sealed with an older key version than this. */
export const isStale = (table: SealedTable, keyVersion: number): SqlStatement =>
  table.keyVersion === null
    ? sql`(${join(
        table.columns.map((name) => isSealedBefore(column(name), keyVersion)),
        ' OR ',
      )})`
    : sql`${column(table.keyVersion)} < ${keyVersion}`;

/** How many ciphertexts of the row `t` are sealed with an older key version than this. */
export const staleCiphertexts = (table: SealedTable, keyVersion: number): SqlStatement =>
  join(
    table.columns.map((name) => sql`(${isSealedBefore(column(name), keyVersion)} IS TRUE)::int`),
    ' + ',
  );
