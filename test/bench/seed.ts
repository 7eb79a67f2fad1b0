import { createCipheriv, randomBytes, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';
import { registerProviderApp } from '../../src/domain/provider-app.js';
import { createTenant } from '../../src/domain/tenant.js';
import { sealTokens } from '../../src/domain/grant.js';
import { Secret } from '../../src/secret.js';
import type { Vault } from '../../src/vault/vault.js';

/** As long as the tokens that Zoom hands out. */
export const TOKEN_LENGTH = 640;
const USERS_PER_TENANT = 100;
/** Rows of one statement. */
const BATCH = 2_000;

export const makeToken = () => randomBytes(TOKEN_LENGTH).toString('base64url').slice(0, TOKEN_LENGTH);

export interface SeededUser {
  tenantId: string;
  userId: string;
}

interface Row extends SeededUser {
  id: string;
  ownerId: string;
  access: Uint8Array;
  refresh: Uint8Array | null;
}

/**
 * Adds connected users with fresh tokens, sealed by the vault as the product seals them.
 *
 * @param refreshTokenOf gives the refresh token of each, by its place from 0.
 */
export async function seedGrants(
  deps: { db: Database; vault: Vault },
  appId: string,
  count: number,
  refreshTokenOf: (index: number) => string = makeToken,
): Promise<SeededUser[]> {
  const users: SeededUser[] = [];
  let rows: Row[] = [];
  for (let first = 0; first < count; first += USERS_PER_TENANT) {
    const tenantId = `bench_${randomUUID()}`;
    const ownerId = await createTenant(deps, { externalId: tenantId, allowedOrigins: [] });
    const sealer = await deps.vault.sealer(deps.db, ownerId);
    for (let user = 0; user < Math.min(USERS_PER_TENANT, count - first); user += 1) {
      const id = randomUUID();
      const tokens = {
        accessToken: new Secret(makeToken()),
        refreshToken: new Secret(refreshTokenOf(first + user)),
      };
      const { access, refresh } = sealTokens(sealer, { id, tenantId: ownerId }, 1, tokens);
      rows.push({ id, ownerId, tenantId, userId: `user_${user}`, access, refresh });
    }
    if (rows.length < BATCH && first + USERS_PER_TENANT < count) continue;
    await insertRows(deps.db, appId, rows);
    users.push(...rows.map(({ tenantId, userId }) => ({ tenantId, userId })));
    rows = [];
  }
  return users;
}

async function insertRows(db: Database, appId: string, rows: readonly Row[]): Promise<void> {
  const ids = rows.map((row) => row.id);
  const owners = rows.map((row) => row.ownerId);
  await db.query(sql`
    INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
      provider_user_id, granted_scopes, missing_scopes, health_status, health_reason, health_since, authorized_at)
    SELECT id, 'USER_CONNECTION', owner, ${appId}::uuid, user_id, user_id, 'account', id::text,
      ARRAY['user:read:user'], '{}', 'HEALTHY', 'CONNECTED', now(), now()
    FROM unnest(${ids}::uuid[], ${owners}::uuid[], ${rows.map((row) => row.userId)}::text[]) AS row(id, owner, user_id)`);
  await db.query(sql`
    INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, sealed_refresh_token, key_version,
      scopes, api_url, issued_at, expires_at, next_refresh_at)
    SELECT id, owner, ${appId}::uuid, 1, access, refresh, 1, ARRAY['user:read:user'], 'https://api.zoom.us', now(),
      now() + interval '1 hour', now() + interval '50 minutes'
    FROM unnest(${ids}::uuid[], ${owners}::uuid[], ${rows.map((row) => row.access)}::bytea[],
      ${rows.map((row) => row.refresh)}::bytea[]) AS row(id, owner, access, refresh)`);
}

export const seedApp = (deps: { db: Database; vault: Vault }): Promise<string> =>
  registerProviderApp(deps, {
    name: 'bench',
    kind: 'USER_MANAGED',
    environment: 'COMMERCIAL',
    clientId: randomUUID(),
    clientSecret: randomUUID(),
    scopes: [],
    acceptUnknownScopes: false,
  });

/** The table of the bare yardstick: the same kind of token under one plain key. */
export async function seedBare(db: Database, count: number): Promise<string> {
  const key = randomBytes(32);
  await db.query(
    sql`CREATE TABLE bench_bare (id int PRIMARY KEY, sealed bytea NOT NULL, expires_at timestamptz NOT NULL)`,
  );
  const sealed = Array.from({ length: count }, () => {
    const nonce = randomBytes(12);
    const cipher = createCipheriv('aes-256-gcm', key, nonce, { authTagLength: 16 });
    return Buffer.concat([nonce, cipher.update(makeToken()), cipher.final(), cipher.getAuthTag()]);
  });
  await db.query(sql`
    INSERT INTO bench_bare SELECT ordinality::int - 1, sealed, now() + interval '1 hour'
    FROM unnest(${sealed}::bytea[]) WITH ORDINALITY AS row(sealed, ordinality)`);
  return key.toString('hex');
}
