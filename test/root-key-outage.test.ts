import { setTimeout } from 'node:timers/promises';
import { afterAll, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { readConfig } from '../src/config.js';
import { createReadiness } from '../src/http/readiness.js';
import { openRootKeys } from '../src/root-keys.js';
import { Secret } from '../src/secret.js';
import { createVault } from '../src/vault/vault.js';
import { calls, connectUser, endWait, expire, read, stored } from './support/connections.js';
import { startKmsStandIn } from './support/kms-stand-in.js';
import { unavailable } from './support/root-key-battery.js';
import { kmsSettings, useCredentials } from './support/root-key-stages.js';
import { startSecondServer } from './support/second-server.js';
import { startTestServer, TEST_ADMIN_KEY } from './support/server.js';
import { CREDENTIAL } from './support/story.js';

const kms = await startKmsStandIn();
afterAll(() => kms.stop());
useCredentials(kms.credentials);

const settings = {
  ...kmsSettings(kms, [kms.createKey()]),
  LATCHKEY_ROOT_KEY: '',
  LATCHKEY_ROOT_KEY_TIMEOUT_MS: '10000',
  LATCHKEY_ROLE: 'api',
};
const server = await startTestServer({ ...settings, LATCHKEY_METRICS_PORT: '0' }, () => [
  kms.credentials.secretAccessKey,
]);
/** A process of the same deployment that has unwrapped no key of a tenant yet. */
const cold = await startSecondServer(server.db, {
  ...settings,
  ZOOM_OAUTH_URL: server.sandbox.origin,
  ZOOM_API_URL: `${server.sandbox.origin}/v2`,
});

async function readCold(input: object): Promise<{ credential: any; code: string | undefined }> {
  const response = await fetch(`${cold.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${TEST_ADMIN_KEY}` },
    body: JSON.stringify({ query: CREDENTIAL, variables: { input } }),
  });
  const { data, errors } = (await response.json()) as any;
  return { credential: data?.credential, code: errors?.[0]?.extensions.code };
}

async function metric(name: string): Promise<number> {
  const text = await (await fetch(server.metricsUrl ?? '')).text();
  return Number(new RegExp(`^${name} (.+)$`, 'm').exec(text)?.[1]);
}

test(
  'while the root keys are away, who was active is served, and no refresh is begun whose answer could not be sealed',
  { timeout: 60_000 },
  async () => {
    const active = await connectUser(server);
    const due = await connectUser(server);
    await expire(server, due);
    const before = await stored(server, due);
    await kms.stop();

    expect(await read(server, active)).toMatchObject({ __typename: 'Credential', version: 1 });
    expect((await readCold(active.input)).code).toBe('VAULT_UNAVAILABLE');
    expect((await readCold(due.input)).code).toBe('VAULT_UNAVAILABLE');
    expect(calls(server, due)).toEqual([]);
    expect(await stored(server, due)).toMatchObject({ version: before?.version, state: 'IDLE' });
    expect((await fetch(`${server.url}/readyz`)).status).toBe(200);
    expect((await fetch(`${cold.url}/readyz`)).status).toBe(200);

    await kms.start();
    await endWait(server, due);
    expect((await readCold(active.input)).credential).toMatchObject({ __typename: 'Credential', version: 1 });
    expect((await readCold(due.input)).credential.version).toBe((before?.version ?? 0) + 1);
    expect(calls(server, due)).toHaveLength(1);
  },
);

test('how long the provider has been away is a figure, and 0 when it answers', async () => {
  const { data } = await server.graphql('mutation { createTenant(input: { externalId: "before" }) { __typename } }');
  expect(data.createTenant.__typename).toBe('CreateTenantSuccess');
  expect(await metric('latchkey_root_key_failing_seconds')).toBe(0);
  kms.trouble = 'internal';
  const refused = await server.graphql('mutation { createTenant(input: { externalId: "away" }) { __typename } }');
  expect(refused.errors?.[0]?.extensions.code).toBe('VAULT_UNAVAILABLE');
  expect(await metric('latchkey_root_key_failing_seconds')).toBeGreaterThan(0);
  kms.trouble = null;
  await server.graphql('mutation { createTenant(input: { externalId: "again" }) { __typename } }');
  expect(await metric('latchkey_root_key_failing_seconds')).toBe(0);
});

test('a process is not ready once the root keys have been away for longer than unwrapped keys last', async () => {
  const rootKeys = await openRootKeys(readConfig(settings));
  const vault = createVault({ rootKeys, keyTtlMs: 300 });
  const reasons = () =>
    createReadiness({ db: server.db, clock: systemClock, vault, isQuarantined: () => false }).reasons();
  const place = { tenantId: null, table: 'a', column: 'b', recordId: 'c', version: 1 };
  const seal = () => vault.seal(server.db, place, new Secret('x'));
  kms.trouble = 'throttled';
  await expect(seal()).rejects.toEqual(unavailable('provider-failed'));
  expect(await reasons()).toEqual([]);
  await setTimeout(310);
  expect(await reasons()).toEqual(['root_keys_unreachable']);
  kms.trouble = null;
  await seal();
  expect(await reasons()).toEqual([]);
  await rootKeys.close();
});
