import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { AlreadyExistsError, InvalidInputError, NotFoundError } from '../errors.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';

const MAX_EXTERNAL_ID = 200;
const MAX_NAME = 200;
const MAX_ORIGINS = 50;

/** Printable and without spaces, so that an identifier looks the same wherever it is shown. */
const EXTERNAL_ID = /^[\x21-\x7e]+$/;

/** @throws {InvalidInputError} empty, too long, or with characters outside printable ASCII. */
export function requireExternalId(value: string, path: readonly string[]): void {
  if (value.length > MAX_EXTERNAL_ID || !EXTERNAL_ID.test(value)) {
    throw new InvalidInputError(`Give 1 to ${MAX_EXTERNAL_ID} printable ASCII characters without spaces.`, path);
  }
}

/** @throws {InvalidInputError} empty, too long, or with control characters. */
export function requireName(value: string | null | undefined, path: readonly string[]): void {
  if (value === null || value === undefined) return;
  if (value.trim() === '' || value.length > MAX_NAME || /\p{Cc}/u.test(value)) {
    throw new InvalidInputError(`Give 1 to ${MAX_NAME} characters in one line.`, path);
  }
}

const LOOPBACK = new Set(['localhost', '127.0.0.1', '[::1]']);

/**
 * Reads exact web origins: https, or http on the loopback interface, with nothing behind the host and port.
 *
 * @returns them as `URL.origin` prints them, without duplicates.
 * @throws {InvalidInputError} one is something else.
 */
function parseOrigins(values: readonly string[], path: readonly string[]): string[] {
  if (values.length > MAX_ORIGINS) throw new InvalidInputError(`Give at most ${MAX_ORIGINS} origins.`, path);
  const origins = values.map((value, index) => {
    const url = URL.canParse(value) ? new URL(value) : null;
    // The parser takes much for an origin that nobody would write, and a star for part of a name.
    const isOrigin = url !== null && url.href === `${url.origin}/` && /^https?:\/\/[^/\s\\@#?*%]+\/?$/i.test(value);
    const isAllowed = url?.protocol === 'https:' || (url?.protocol === 'http:' && LOOPBACK.has(url.hostname));
    if (url === null || !isOrigin || !isAllowed || url.hostname.endsWith('.')) {
      throw new InvalidInputError(
        'Give an exact origin such as https://app.example.com: https (http for loopback only), no path.',
        [...path, String(index)],
      );
    }
    return url.origin;
  });
  return [...new Set(origins)];
}

/** @returns the new tenant's id. */
export async function createTenant(
  deps: Pick<Deps, 'db' | 'vault'>,
  input: { externalId: string; name?: string | null | undefined; allowedOrigins: readonly string[] },
): Promise<string> {
  requireExternalId(input.externalId, ['input', 'externalId']);
  requireName(input.name, ['input', 'name']);
  const allowedOrigins = parseOrigins(input.allowedOrigins, ['input', 'allowedOrigins']);
  const id = randomUUID();
  await deps.db.transaction(async (tx) => {
    const [created] = await tx.query(sql`
      INSERT INTO tenant (id, external_id, name, allowed_origins)
      VALUES (${id}::uuid, ${input.externalId}, ${input.name ?? null}, ${allowedOrigins}::text[])
      ON CONFLICT (external_id) DO NOTHING RETURNING id`);
    if (created === undefined) throw new AlreadyExistsError('A tenant with this externalId exists.');
    await deps.vault.createTenantKey(tx, id);
    noteAudit(tx, { tenantId: id, subject: `Tenant:${id}` });
  });
  return id;
}

/** Fields that are absent stay as they are; a null name removes it. @returns the tenant's id. */
export async function updateTenant(
  deps: Pick<Deps, 'db'>,
  input: { tenantId: string; name?: string | null | undefined; allowedOrigins?: readonly string[] | null | undefined },
): Promise<string> {
  requireName(input.name, ['input', 'name']);
  const allowedOrigins = input.allowedOrigins ? parseOrigins(input.allowedOrigins, ['input', 'allowedOrigins']) : null;
  return deps.db.transaction(async (tx) => {
    const [row] = await tx.query<{ id: string }>(sql`
      UPDATE tenant
      SET name = CASE WHEN ${input.name !== undefined} THEN ${input.name ?? null} ELSE name END,
        allowed_origins = coalesce(${allowedOrigins}::text[], allowed_origins)
      WHERE external_id = ${input.tenantId} RETURNING id`);
    if (row === undefined) throw new NotFoundError('No such tenant exists.');
    return row.id;
  });
}

export interface TenantRow {
  id: string;
  allowedOrigins: string[];
}

/** @throws {NotFoundError} there is no tenant with this external id. */
export async function requireTenant(sqlClient: Sql, externalId: string): Promise<TenantRow> {
  const [row] = await sqlClient.query<TenantRow>(sql`
    SELECT id, allowed_origins AS "allowedOrigins" FROM tenant WHERE external_id = ${externalId}`);
  if (row === undefined) throw new NotFoundError('No such tenant exists.');
  return row;
}
