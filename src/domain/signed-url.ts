import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Sql } from '../database/database.js';
import { InvalidInputError, NotFoundError } from '../errors.js';
import { Secret } from '../secret.js';
import type { Sealed } from '../vault/vault.js';
import { noteAudit } from './audit.js';
import type { Deps } from './deps.js';
import { normalMeetingId } from './meeting-host.js';
import { requireTenant } from './tenant.js';
import { findGrant } from './user-grant.js';

/** What a URL gives to whoever fetches it. */
export const TOKEN_KINDS = ['access', 'local-recording', 'zak', 'on-behalf-of'] as const;
export type TokenKind = (typeof TOKEN_KINDS)[number];

/** One thing to fetch a token for. Nothing but what is here is signed, or used of a signed request. */
export interface TokenTarget {
  kind: TokenKind;
  /** A grant by its row, or a meeting by its number. */
  of: 'grants' | 'meetings';
  id: string;
  /** The meeting to join on behalf of the grant's user; null for other kinds. */
  meetingId: string | null;
}

const MIN_TTL_SECONDS = 60;
/** Bots are planned days ahead. */
const MAX_TTL_SECONDS = 2_592_000;
const KEY_BYTES = 32;
/** Separates these signatures from any others, and from those of a later form. */
const PURPOSE = 'latchkey token url 1';

const keyPlace = (tenantId: string, version: number) => ({
  tenantId,
  table: 'url_signing_key',
  column: 'sealed_key',
  recordId: tenantId,
  version,
});

interface KeyRow {
  version: number;
  sealedKey: Sealed;
}

const freshKey = () => new Secret(randomBytes(KEY_BYTES).toString('base64'));

const readKey = async (tx: Sql, tenantId: string): Promise<KeyRow | undefined> => {
  const [row] = await tx.query<KeyRow>(sql`
    SELECT version, sealed_key AS "sealedKey" FROM url_signing_key WHERE tenant_id = ${tenantId}::uuid`);
  return row;
};

/** The tenant's key, made when the first URL is signed; of two that make it at once, both use the same. */
async function signingKey(deps: Pick<Deps, 'vault'>, tx: Sql, tenantId: string): Promise<Secret> {
  let row = await readKey(tx, tenantId);
  if (row === undefined) {
    const { sealed, keyVersion } = await deps.vault.seal(tx, keyPlace(tenantId, 1), freshKey());
    await tx.query(sql`
      INSERT INTO url_signing_key (tenant_id, version, sealed_key, key_version)
      VALUES (${tenantId}::uuid, 1, ${sealed}, ${keyVersion}) ON CONFLICT (tenant_id) DO NOTHING`);
    row = await readKey(tx, tenantId);
  }
  if (row === undefined) throw new Error('The signing key is gone.');
  return deps.vault.open(tx, keyPlace(tenantId, row.version), row.sealedKey);
}

/** What a signed URL is called where it must not be told: nothing leads back to it. */
export const signedUrlReference = (signature: string): string =>
  `url:${createHash('sha256').update(signature).digest('hex').slice(0, 32)}`;

/** HMAC-SHA256 over the tenant's row, the target and the end, as JSON, so that no two targets read the same. */
function signatureOf(key: Secret, tenantId: string, target: TokenTarget, expiresAtSeconds: number): Buffer {
  const { kind, of, id, meetingId } = target;
  const message = JSON.stringify([PURPOSE, tenantId, kind, of, id, meetingId, expiresAtSeconds]);
  return createHmac('sha256', Buffer.from(key.reveal(), 'base64')).update(message).digest();
}

function checkTarget({ kind, of, meetingId }: TokenTarget): void {
  if (kind === 'local-recording' && of !== 'meetings') {
    throw new InvalidInputError('A token for local recording is for a meeting.', ['input', 'meetingId']);
  }
  if (kind !== 'access' && kind !== 'local-recording' && of !== 'grants') {
    throw new InvalidInputError('Name the connection whose user it is for.', ['input', 'grantId']);
  }
  if ((kind === 'on-behalf-of') !== (meetingId !== null)) {
    const message = kind === 'on-behalf-of' ? 'Name the meeting to join.' : 'Name a connection or a meeting, not both.';
    throw new InvalidInputError(message, ['input', 'meetingId']);
  }
}

/**
 * Makes a URL at which anybody can fetch a token of one tenant, for one connection or meeting, until it ends: the URL
 * is as good as a key for that. `pathId` is how the path names the target.
 *
 * @throws {NotFoundError} no such tenant, or none of the caller's.
 * @throws {GrantNotFoundError} the connection is not the tenant's.
 */
export async function createSignedUrl(
  deps: Pick<Deps, 'db' | 'vault' | 'settings'>,
  input: { tenantId: string; onlyTenantId: string | null; target: TokenTarget; pathId: string; ttlSeconds: number },
): Promise<{ url: Secret; expiresAt: Date }> {
  const { target, ttlSeconds } = input;
  checkTarget(target);
  if (ttlSeconds < MIN_TTL_SECONDS || ttlSeconds > MAX_TTL_SECONDS) {
    throw new InvalidInputError(`Give ${MIN_TTL_SECONDS} to ${MAX_TTL_SECONDS} seconds.`, ['input', 'ttlSeconds']);
  }
  for (const number of [target.meetingId, target.of === 'meetings' ? target.id : null]) {
    if (number !== null && normalMeetingId(number) !== number) {
      throw new InvalidInputError('A meeting number has 8 to 15 digits.', ['input', 'meetingId']);
    }
  }
  const tenant = await requireOwnTenant(deps, input.tenantId, input.onlyTenantId);
  if (target.of === 'grants') await findGrant(deps, target.id, tenant.id);
  return deps.db.transaction(async (tx) => {
    const key = await signingKey(deps, tx, tenant.id);
    const [row] = await tx.query<{ expires: number }>(sql`
      SELECT floor(extract(epoch FROM now()))::int8 + ${ttlSeconds}::int AS expires`);
    if (row === undefined) throw new Error('The database did not tell the time.');
    const url = new URL(`/tokens/${target.of}/${input.pathId}`, deps.settings.publicUrl);
    url.searchParams.set('kind', target.kind);
    if (target.meetingId !== null) url.searchParams.set('meeting', target.meetingId);
    url.searchParams.set('tenant', input.tenantId);
    url.searchParams.set('expires', String(row.expires));
    const signature = signatureOf(key, tenant.id, target, row.expires);
    url.searchParams.set('signature', signature.toString('base64url'));
    noteAudit(tx, {
      tenantId: tenant.id,
      subject: `${target.of}:${target.id}`,
      reference: signedUrlReference(signature.toString('base64url')),
    });
    return { url: new Secret(url.href), expiresAt: new Date(row.expires * 1_000) };
  });
}

/**
 * Whether a tenant's key has signed exactly this target and end, and the end has not come.
 *
 * @returns the tenant's row; null: not signed, changed, over, or signed by a key that was replaced. Which, is not told.
 */
export async function verifySignedUrl(
  deps: Pick<Deps, 'db' | 'vault'>,
  request: { tenantId: string; target: TokenTarget; expires: string; signature: string },
): Promise<string | null> {
  const { tenantId, target, expires, signature } = request;
  if (!/^\d{1,12}$/.test(expires) || !/^[A-Za-z0-9_-]{43}$/.test(signature) || tenantId.includes('\0')) return null;
  const [row] = await deps.db.query<KeyRow & { id: string; isOver: boolean }>(sql`
    SELECT t.id, k.version, k.sealed_key AS "sealedKey", extract(epoch FROM now()) >= ${expires}::int8 AS "isOver"
    FROM tenant t JOIN url_signing_key k ON k.tenant_id = t.id WHERE t.external_id = ${tenantId}`);
  if (row === undefined) return null;
  const key = await deps.vault.open(deps.db, keyPlace(row.id, row.version), row.sealedKey);
  const isSame = timingSafeEqual(
    signatureOf(key, row.id, target, Number(expires)),
    Buffer.from(signature, 'base64url'),
  );
  return isSame && !row.isOver ? row.id : null;
}

/**
 * Ends every URL that was signed for a tenant so far, by replacing its key. At once, in every process.
 *
 * @returns the tenant's row id.
 * @throws {NotFoundError} no such tenant, or none of the caller's.
 */
export async function revokeSignedUrls(
  deps: Pick<Deps, 'db' | 'vault'>,
  input: { tenantId: string; onlyTenantId: string | null },
): Promise<string> {
  const { id } = await requireOwnTenant(deps, input.tenantId, input.onlyTenantId);
  await deps.db.transaction(async (tx) => {
    const [row] = await tx.query<{ version: number }>(sql`
      SELECT version FROM url_signing_key WHERE tenant_id = ${id}::uuid FOR UPDATE`);
    // Without a key nothing has been signed.
    if (row === undefined) return;
    const version = row.version + 1;
    const { sealed, keyVersion } = await deps.vault.seal(tx, keyPlace(id, version), freshKey());
    await tx.query(sql`
      UPDATE url_signing_key SET version = ${version}, sealed_key = ${sealed}, key_version = ${keyVersion},
        created_at = now()
      WHERE tenant_id = ${id}::uuid`);
  });
  return id;
}

async function requireOwnTenant(deps: Pick<Deps, 'db'>, tenantId: string, onlyTenantId: string | null) {
  // No stored id holds a zero character, and the database refuses to be asked for one.
  if (tenantId.includes('\0')) throw new NotFoundError('No such tenant exists.');
  const tenant = await requireTenant(deps.db, tenantId);
  if (onlyTenantId !== null && onlyTenantId !== tenant.id) throw new NotFoundError('No such tenant exists.');
  return tenant;
}
