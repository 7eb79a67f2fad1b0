import { randomUUID } from 'node:crypto';
import sql from 'sql-template-tag';
import { request } from 'undici';
import { healthOf } from '../../src/domain/health.js';
import { recordTransitions } from '../../src/domain/health-event.js';
import { sealTokens } from '../../src/domain/grant.js';
import { Secret } from '../../src/secret.js';
import { createLocalRootKeys, parseRootKeys } from '../../src/vault/root-key.js';
import { createVault, type Vault } from '../../src/vault/vault.js';
import { createTenant, registerApp, USER_SCOPES, type RegisteredApp } from '../support/story.js';
import { createZoomUser } from '../support/connections.js';
import { createCheck, type Experiment } from './experiment.js';
import type { Server, Stage } from './stage.js';
import { waitUntil } from './waiting.js';

const CREDENTIALS = 2_000;
const SMALL_TENANT = 100;
const PER_SECOND = 100;
const LIFE_SECONDS = 60;
const AT_ONCE = 8;

interface Consent {
  zoomUserId: string;
  accessToken: Secret;
  refreshToken: Secret;
  apiUrl: string;
}

/** A user's consent and its first tokens, straight from Zoom. */
async function consentTo(stage: Stage, via: Server, { atZoom, redirectUri }: RegisteredApp): Promise<Consent> {
  const zoomUserId = createZoomUser(via);
  const authorize = new URL(`${stage.sandbox.origin}/oauth/authorize`);
  authorize.search = new URLSearchParams({
    response_type: 'code',
    client_id: atZoom.clientId,
    redirect_uri: redirectUri,
    sandbox_user: zoomUserId,
    sandbox_decision: 'allow',
  }).toString();
  const { headers, body: page } = await request(authorize, { dispatcher: stage.callers });
  await page.dump();
  const code = new URL(String(headers['location'])).searchParams.get('code') ?? '';
  const { body } = await request(`${stage.sandbox.origin}/oauth/token`, {
    dispatcher: stage.callers,
    method: 'POST',
    headers: {
      authorization: `Basic ${Buffer.from(`${atZoom.clientId}:${atZoom.clientSecret}`).toString('base64')}`,
      'content-type': 'application/x-www-form-urlencoded',
    },
    body: new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: redirectUri }).toString(),
  });
  const tokens = (await body.json()) as { access_token: string; refresh_token: string; api_url: string };
  return {
    zoomUserId,
    accessToken: new Secret(tokens.access_token),
    refreshToken: new Secret(tokens.refresh_token),
    apiUrl: tokens.api_url,
  };
}

/** Stores consents as the product does, but all at once: their tokens run out in a minute and are due now. */
async function storeAll(stage: Stage, vault: Vault, app: RegisteredApp, tenant: string, consents: readonly Consent[]) {
  const [row] = await stage.db.query<{ tenantId: string; appId: string }>(sql`
    SELECT t.id AS "tenantId", a.id AS "appId" FROM tenant t, provider_app a
    WHERE t.external_id = ${tenant} AND a.client_id = ${app.clientId}`);
  const { tenantId = '', appId = '' } = row ?? {};
  const sealer = await vault.sealer(stage.db, tenantId);
  await stage.db.transaction(async (tx) => {
    for (const [index, { zoomUserId, accessToken, refreshToken, apiUrl }] of consents.entries()) {
      const id = randomUUID();
      const sealed = sealTokens(sealer, { id, tenantId }, 1, { accessToken, refreshToken });
      await tx.query(sql`
        INSERT INTO provider_grant (id, kind, tenant_id, app_id, subject, external_user_id, provider_account_id,
          provider_user_id, granted_scopes, missing_scopes, health_status, health_reason, health_since, authorized_at)
        VALUES (${id}::uuid, 'USER_CONNECTION', ${tenantId}::uuid, ${appId}::uuid, ${`user_${index}`}, ${`user_${index}`},
          'account', ${zoomUserId}, ${USER_SCOPES}::text[], '{}', 'HEALTHY', 'CONNECTED', now(), now())`);
      await tx.query(sql`
        INSERT INTO credential (grant_id, tenant_id, app_id, version, sealed_access_token, sealed_refresh_token, key_version, scopes, api_url,
          issued_at, expires_at, next_refresh_at)
        VALUES (${id}::uuid, ${tenantId}::uuid, ${appId}::uuid, 1, ${sealed.access}, ${sealed.refresh}, ${sealed.keyVersion}, ${USER_SCOPES}::text[], ${apiUrl},
          now() - interval '59 minutes', 'infinity', 'infinity')`);
      await recordTransitions(tx, [{ grantId: id, tenantId, previous: null, next: healthOf('CONNECTED') }]);
    }
  });
}

async function connectAll(stage: Stage, via: Server, vault: Vault, app: RegisteredApp, count: number): Promise<string> {
  const tenant = await createTenant(via);
  const consents: Consent[] = [];
  while (consents.length < count) {
    const batch = Array.from({ length: Math.min(AT_ONCE, count - consents.length) }, () => consentTo(stage, via, app));
    consents.push(...(await Promise.all(batch)));
  }
  await storeAll(stage, vault, app, tenant, consents);
  return tenant;
}

/** When the tenant's tokens were renewed: how many are, the time of the last, and how many are too late. */
async function renewals(stage: Stage, tenant: string) {
  const [row] = await stage.db.query<{ waiting: number; last: number; late: number }>(sql`
    SELECT count(*) FILTER (WHERE c.version = 1)::int AS waiting,
      extract(epoch FROM max(c.last_refreshed_at))::float8 AS last,
      count(*) FILTER (WHERE c.last_refreshed_at > c.issued_at + interval '1 hour')::int AS late
    FROM credential c JOIN provider_grant g ON g.id = c.grant_id JOIN tenant t ON t.id = g.tenant_id
    WHERE t.external_id = ${tenant}`);
  return row ?? { waiting: 0, last: 0, late: 0 };
}

/** The most requests within any whole second. */
function busiestSecond(times: readonly number[]): number {
  let most = 0;
  for (let from = 0, to = 0; to < times.length; to += 1) {
    while ((times[to] ?? 0) - (times[from] ?? 0) >= 1_000) from += 1;
    most = Math.max(most, to - from + 1);
  }
  return most;
}

const herd: Experiment = {
  id: 'X-30',
  injected: `${CREDENTIALS} tokens of one app run out in the same minute and are due at once, ${SMALL_TENANT} of them in a small tenant; at most ${PER_SECOND} refreshes/s are set, for 3 processes together`,
  expected: `all are renewed before they run out, each with 1 call; Zoom sees at most ${PER_SECOND}/s and a tenth; the small tenant is done in half of the time at most`,
  run: async ({ openStage, scale }) => {
    const check = createCheck();
    const stage = await openStage({
      deadline: 10,
      lease: 20,
      settings: { LATCHKEY_REFRESHES_PER_SECOND: String(PER_SECOND) },
    });
    const servers = (await stage.startMany(3)) as [Server, Server, Server];
    const [via] = servers;
    const vault = createVault({ rootKeys: createLocalRootKeys(parseRootKeys(stage.rootKey, { production: true })) });
    const app = await registerApp(via, 'USER_MANAGED');
    const count = Math.max(SMALL_TENANT * 2, Math.round(CREDENTIALS * scale));
    const large = await connectAll(stage, via, vault, app, count - SMALL_TENANT);
    const small = await connectAll(stage, via, vault, app, SMALL_TENANT);
    const [begin] = await stage.db.query<{ at: number }>(sql`
      WITH begun AS (
        UPDATE credential SET expires_at = now() + make_interval(secs => ${LIFE_SECONDS}), next_refresh_at = now()
        RETURNING 1)
      SELECT extract(epoch FROM now())::float8 AS at FROM begun LIMIT 1`);
    await waitUntil(
      'all are renewed',
      async () => (await renewals(stage, large)).waiting + (await renewals(stage, small)).waiting === 0,
      LIFE_SECONDS * Math.max(1, scale),
    ).catch((error: Error) => check.that(false, error.message));
    const [many, few] = [await renewals(stage, large), await renewals(stage, small)];
    const secondsOf = ({ last }: { last: number }): number => last - (begin?.at ?? 0);
    const requests = stage.control.journal().filter(({ grantType }) => grantType === 'refresh_token');
    const times = requests.map(({ at }) => Date.parse(at));
    const most = busiestSecond(times);
    const later = busiestSecond(times.filter((time) => time > (times[0] ?? 0) + 1_000));
    check.equal('token requests', requests.length, count);
    check.that(
      requests.every(({ outcome }) => outcome === 'rotated'),
      'a request was refused',
    );
    check.that(most <= PER_SECOND * 1.1 + 3, `${most} requests in one second`);
    check.that(secondsOf(many) <= LIFE_SECONDS * Math.max(1, scale), `the last was renewed after ${secondsOf(many)} s`);
    check.that(secondsOf(few) <= secondsOf(many) / 2, `the small tenant took ${secondsOf(few).toFixed(1)} s`);
    return check.done(
      `${count - many.waiting - few.waiting} renewed in ${secondsOf(many).toFixed(1)} s, ${requests.length} calls, at most ${most} in a second (after the first one ${later}); the small tenant in ${secondsOf(few).toFixed(1)} s`,
    );
  },
};

export const masses: readonly Experiment[] = [herd];
