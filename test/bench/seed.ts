import { createCipheriv, randomBytes, randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import type { Database } from '../../src/database/database.js';
import { registerProviderApp } from '../../src/domain/provider-app.js';
import { createTenant } from '../../src/domain/tenant.js';
import { sealTokens } from '../../src/domain/grant.js';
import { Secret } from '../../src/secret.js';
import type { Vault } from '../../src/vault/vault.js';

/** As long as the tokens that Zoom hands out. */
const TOKEN_LENGTH = 640;
const USERS_PER_TENANT = 100;
const BATCH = 1_000;

const makeToken = () => randomBytes(TOKEN_LENGTH).toString('base64url').slice(0, TOKEN_LENGTH);

export interface SeededUser {
  tenantId: string;
  userId: string;
}

/** Adds connected users with fresh tokens, sealed by the vault as the product seals them. */
export async function seedGrants(
  deps: { db: Database; vault: Vault },
  appId: string,
  count: number,
): Promise<SeededUser[]> {
  const users: SeededUser[] = [];
  while (users.length < count) {
    const externalId = `bench_${randomUUID()}`;
    const tenantId = await createTenant(deps, { externalId, allowedOrigins: [] });
    for (let first = 0; first < USERS_PER_TENANT && users.length < count; first += BATCH) {
      const size = Math.min(USERS_PER_TENANT, count - users.length);
      users.push(...(await seedBatch(deps, appId, tenantId, externalId, size)));
    }
  }
  return users;
}

async function seedBatch(
  deps: { db: Database; vault: Vault },
  appId: string,
  tenantId: string,
  externalId: string,
  size: number,
): Promise<SeededUser[]> {
  const sealer = await deps.vault.sealer(deps.db, tenantId);
  const rows = Array.from({ length: size }, (_, index) => {
    const id = randomUUID();
    const tokens = { accessToken: new Secret(makeToken()), refreshToken: new Secret(makeToken()) };
    const sealed = sealTokens(sealer, { id, tenantId }, 1, tokens);
    return { id, userId: `user_${index}`, access: sealed.access, refresh: sealed.refresh };
  });
  const ids = rows.map((row) => row.id);
  const userIds = rows.map((row) => row.userId);
  await deps.db.query(sql`
    INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
      provider_user_id, granted_scopes, missing_scopes, health_status, health_reason, health_since, authorized_at)
    SELECT id, 'USER_CONNECTION', ${tenantId}::uuid, ${appId}::uuid, user_id, user_id, 'account', id::text,
      ARRAY['user:read:user'], '{}', 'HEALTHY', 'CONNECTED', now(), now()
    FROM unnest(${ids}::uuid[], ${userIds}::text[]) AS row(id, user_id)`);
  await deps.db.query(sql`
    INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, sealed_refresh_token, key_version, scopes, api_url,
      issued_at, expires_at, next_refresh_at)
    SELECT id, ${tenantId}::uuid, ${appId}::uuid, 1, access, refresh, 1, ARRAY['user:read:user'], 'https://api.zoom.us', now(), now() + interval '1 hour',
      now() + interval '50 minutes'
    FROM unnest(${ids}::uuid[], ${rows.map((row) => row.access)}::bytea[], ${rows.map((row) => row.refresh)}::bytea[])
      AS row(id, access, refresh)`);
  return userIds.map((userId) => ({ tenantId: externalId, userId }));
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
