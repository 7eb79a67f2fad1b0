import { afterAll, beforeEach, describe, expect, test } from 'vitest';
import { systemClock } from '../src/clock.js';
import { DEFAULT_KNOBS } from '../src/sandbox/knobs.js';
import type { App } from '../src/sandbox/model.js';
import { createSandbox } from '../src/sandbox/sandbox.js';
import { signatureOf } from '../src/sandbox/webhook-request.js';
import { createRivetServerApp, installRivet, type RivetApp, sendZoomTo, startRivetApp } from './support/rivet.js';
import { createServerApp, createUserApp, person } from './support/sandbox-client.js';

const sandbox = await createSandbox({ host: '127.0.0.1', port: 0, clock: systemClock });
const { control } = sandbox;
const restore = sendZoomTo(sandbox.origin);
const ben = person(sandbox, 'Ben');
const running: RivetApp[] = [];

afterAll(async () => {
  restore();
  await Promise.all(running.map((rivet) => rivet.close()));
  await sandbox.close();
});

beforeEach(() => {
  control.setKnobs(DEFAULT_KNOBS);
  control.clearJournal();
});

/** An app at the sandbox with Zoom's library behind its URLs, whose settings may differ from Zoom's. */
async function startApp(settings: Partial<App> = {}): Promise<{ rivet: RivetApp; app: App }> {
  const created = createUserApp(sandbox, { redirectUris: [], published: true });
  const rivet = await startRivetApp(sandbox.origin, { ...created, ...settings });
  running.push(rivet);
  const { redirectUri, webhookUrl } = rivet;
  const app = control.updateApp(created.clientId, { redirectUris: [redirectUri], webhookUrl });
  return { rivet, app };
}

async function installed(): Promise<{ rivet: RivetApp; app: App }> {
  const started = await startApp();
  expect(await installRivet(started.rivet, sandbox.origin, ben.id)).toMatchObject({ status: 200 });
  return started;
}

const outcomes = (route: string): string[] =>
  control
    .journal()
    .filter((entry) => entry.route === route)
    .map(({ outcome }) => outcome);

const me = (rivet: Pick<RivetApp, 'client'>) => rivet.client.endpoints.users.getUser({ path: { userId: 'me' } });

describe("the OAuth client of Zoom's own library", () => {
  test('installs through the consent screen and gets tokens that it takes for well-formed', async () => {
    const { rivet } = await startApp();
    const page = await installRivet(rivet, sandbox.origin, ben.id);
    expect(page.status).toBe(200);
    expect(page.text).toContain('successfully authorized');
    expect(rivet.tokens.latest).toMatchObject({ scopes: ['user:read:user', 'meeting:read:meeting'] });
    expect(outcomes('token')).toEqual(['issued']);
  });

  test('reads the user who consented', async () => {
    const { rivet } = await installed();
    const { statusCode, data } = await me(rivet);
    expect(statusCode).toBe(200);
    expect(data).toMatchObject({ id: ben.id, email: ben.email, account_id: ben.accountId });
  });

  test('refreshes a token that is about to expire, goes on with the rotated one, and can do so again', async () => {
    // The library refreshes in the last minute.
    control.setKnobs({ accessTokenSeconds: 50 });
    const { rivet } = await installed();
    const first = rivet.tokens.latest?.refreshToken;
    expect((await me(rivet)).data).toMatchObject({ id: ben.id });
    expect((await me(rivet)).data).toMatchObject({ id: ben.id });
    expect(outcomes('token')).toEqual(['issued', 'rotated', 'rotated']);
    expect(rivet.tokens.latest?.refreshToken).not.toBe(first);
  });

  test('reports a refresh token that is dead as a failed refresh', async () => {
    control.setKnobs({ accessTokenSeconds: 50 });
    const { rivet, app } = await installed();
    control.removeGrant({ clientId: app.clientId, userId: ben.id });
    await expect(me(rivet)).rejects.toMatchObject({ name: 'OAuthTokenRefreshFailedError' });
  });

  test('reports a wrong client secret as a failed exchange', async () => {
    const { rivet, app } = await startApp();
    control.rotateSecret(app.clientId);
    const page = await installRivet(rivet, sandbox.origin, ben.id);
    expect(page.status).toBe(500);
    expect(page.text).toContain('Failed to fetch OAuth token');
  });

  test('is given its state back unchanged, and refuses the answer to a denial', async () => {
    const { rivet } = await startApp();
    const page = await installRivet(rivet, sandbox.origin, ben.id, 'deny');
    expect(page.status).toBe(500);
    expect(page.callback.searchParams.get('error')).toBe('access_denied');
    expect(page.callback.searchParams.get('state')).toMatch(/^ey/);
    expect(outcomes('token')).toEqual([]);
  });

  test('cannot take an install that begins at the Marketplace, because it carries no state', async () => {
    const { rivet, app } = await startApp();
    const query = `sandbox_user=${ben.id}&sandbox_decision=allow`;
    const added = await fetch(`${sandbox.origin}/marketplace/apps/${app.clientId}/add?${query}`);
    expect(added.url.startsWith(rivet.redirectUri)).toBe(true);
    expect(new URL(added.url).searchParams.has('state')).toBe(false);
    expect(added.status).toBe(500);
    expect(await added.text()).toContain('did not include code and/or state');
    expect(outcomes('token')).toEqual([]);
  });

  test("reads Zoom's error of a REST call", async () => {
    const { rivet } = await installed();
    const asked = rivet.client.endpoints.users.getUser({ path: { userId: 'nobody' } });
    await expect(asked).rejects.toMatchObject({ name: 'ApiResponseError', message: expect.stringContaining('1001') });
  });
});

describe("the server-to-server client of Zoom's own library", () => {
  test('gets a token for the account, reads with it and uses it again', async () => {
    const client = createRivetServerApp(sandbox.origin, createServerApp(sandbox));
    for (let count = 0; count < 2; count += 1) {
      const { data } = await client.endpoints.users.getUser({ path: { userId: ben.id } });
      expect(data).toMatchObject({ id: ben.id });
    }
    expect(outcomes('token')).toEqual(['issued']);
  });

  test('gets none for another account', async () => {
    const client = createRivetServerApp(sandbox.origin, createServerApp(sandbox), 'another-account');
    const asked = client.endpoints.users.getUser({ path: { userId: ben.id } });
    await expect(asked).rejects.toMatchObject({
      response: { status: 400, data: { reason: 'Bad Request', error: 'invalid_request' } },
    });
  });
});

describe("the webhook receiver of Zoom's own library", () => {
  test('answers the URL validation rightly', async () => {
    const { app } = await startApp();
    expect(await control.validateWebhook(app.clientId)).toEqual({ valid: true, status: 200, problem: null });
  });

  test('does not pass the URL validation with another secret', async () => {
    const { app } = await startApp({ webhookSecret: 'another secret token' });
    expect(await control.validateWebhook(app.clientId)).toMatchObject({ valid: false, status: 400 });
  });

  test.each(['top', 'payload', 'payload-string'] as const)(
    'accepts the signed app_deauthorized of the sandbox, with event_ts at its place %s',
    async (webhookEventTsPlacement) => {
      control.setKnobs({ webhookEventTsPlacement });
      const { rivet, app } = await installed();
      const received: unknown[] = [];
      rivet.client.webEventConsumer?.event('app_deauthorized' as never, (event: unknown) => void received.push(event));
      control.removeGrant({ clientId: app.clientId, userId: ben.id });
      const entry = await control.waitFor(({ route, clientId, status }) => {
        return route === 'webhook' && clientId === app.clientId && status !== null;
      });
      expect(entry).toMatchObject({ status: 200, outcome: 'delivered', event: 'app_deauthorized' });
      expect(received).toMatchObject([
        { event: 'app_deauthorized', payload: { user_id: ben.id, account_id: ben.accountId, client_id: app.clientId } },
      ]);
    },
  );

  test('refuses what is signed with another secret', async () => {
    const { rivet } = await startApp();
    const body = JSON.stringify({ event: 'app_deauthorized', event_ts: 1, payload: {} });
    const answer = await fetch(rivet.webhookUrl, {
      method: 'POST',
      headers: { 'x-zm-request-timestamp': '1', 'x-zm-signature': signatureOf('another secret', 1, body) },
      body,
    });
    expect(answer.status).toBe(400);
  });
});
