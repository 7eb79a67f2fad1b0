import { createHash, createHmac } from 'node:crypto';
import { mkdtemp, readFile, rm, stat } from 'node:fs/promises';
import { request as rawRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { createSandbox, type Sandbox, type SandboxOptions } from '../src/sandbox/sandbox.js';
import { createManualClock, type ManualClock } from './support/manual-clock.js';
import {
  allow,
  authorizeUrl,
  basic,
  codeOf,
  connect,
  createReceiver,
  createServerApp,
  createUserApp,
  get,
  mintAccountToken,
  person,
  pkcePair,
  postForm,
  readUser,
  REDIRECT,
  redeem,
  refresh,
  revoke,
  tokensOf,
} from './support/sandbox-client.js';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

let clock: ManualClock;
let sandbox: Sandbox;
let cleanups: (() => Promise<unknown>)[] = [];

async function start(options: Partial<SandboxOptions> = {}): Promise<Sandbox> {
  const started = await createSandbox({ host: '127.0.0.1', port: 0, clock, canary: true, ...options });
  cleanups.unshift(() => started.close());
  return started;
}

async function receiver(...args: Parameters<typeof createReceiver>): ReturnType<typeof createReceiver> {
  const made = await createReceiver(...args);
  cleanups.push(() => made.close());
  return made;
}

const bodyOf = async (url: string): Promise<{ status: number; text: string; location: string | null }> => {
  const response = await get(url);
  return { status: response.status, text: await response.text(), location: response.headers.get('location') };
};

beforeEach(async () => {
  clock = createManualClock();
  cleanups = [];
  sandbox = await start();
});

afterEach(async () => {
  for (const cleanup of cleanups) await cleanup();
});

describe('authorize', () => {
  test('Allow sends the browser to the registered redirect URI with a code of 33 characters and the state as sent', async () => {
    const app = createUserApp(sandbox, { redirectUris: [`${REDIRECT}?keep=1`] });
    const state = 'a b+c/=&ü';
    const callback = await allow(sandbox, app, person(sandbox, 'Ben'), { state, redirect_uri: `${REDIRECT}?keep=1` });
    expect(callback.origin + callback.pathname).toBe(REDIRECT);
    expect([...callback.searchParams.keys()]).toEqual(['keep', 'code', 'state']);
    expect(callback.searchParams.get('state')).toBe(state);
    expect(codeOf(callback)).toMatch(/^[A-Za-z0-9_-]{33}$/);
  });

  test('without a state none is returned', async () => {
    const callback = await allow(sandbox, createUserApp(sandbox), person(sandbox, 'Ben'));
    expect([...callback.searchParams.keys()]).toEqual(['code']);
  });

  test('a Marketplace install reaches the callback with a code alone', async () => {
    const app = createUserApp(sandbox);
    const user = person(sandbox, 'Ben').id;
    const add = `${sandbox.origin}/marketplace/apps/${app.clientId}/add?sandbox_user=${user}&sandbox_decision=allow`;
    const response = await get((await bodyOf(add)).location!);
    expect([...new URL(response.headers.get('location')!).searchParams.keys()]).toEqual(['code']);
  });

  test.each([
    ['another path', `${REDIRECT}/more`],
    ['another case', 'https://product.example/OAuth/callback'],
    ['an added query', `${REDIRECT}?x=1`],
    ['none at all', ''],
  ])('an unregistered redirect URI (%s) is answered with JSON 4700 and never redirected to', async (_what, uri) => {
    const { status, text, location } = await bodyOf(
      authorizeUrl(sandbox, createUserApp(sandbox), { redirect_uri: uri }),
    );
    expect(status).toBe(400);
    expect(location).toBeNull();
    expect(text).toBe('{"status":false,"errorCode":4700,"errorMessage":"Invalid redirect url","result":null}');
  });

  test('a PKCE client may name any port on 127.0.0.1, others may not', async () => {
    const app = createUserApp(sandbox, { redirectUris: ['http://127.0.0.1:1/back'] });
    const pkce = { code_challenge: pkcePair().challenge, code_challenge_method: 'S256' };
    const uri = { redirect_uri: 'http://127.0.0.1:50123/back' };
    expect((await allow(sandbox, app, person(sandbox, 'Ben'), { ...uri, ...pkce })).port).toBe('50123');
    expect((await get(authorizeUrl(sandbox, app, uri))).status).toBe(400);
    expect(
      (await get(authorizeUrl(sandbox, app, { redirect_uri: 'http://127.0.0.1:99999/back', ...pkce }))).status,
    ).toBe(400);
  });

  test('a registered http://localhost redirect is refused only with the knob on', async () => {
    const uri = 'http://localhost:4000/oauth/callback';
    const url = authorizeUrl(sandbox, createUserApp(sandbox, { redirectUris: [uri] }), { redirect_uri: uri });
    expect((await get(url)).status).toBe(200);
    sandbox.control.setKnobs({ refuseLocalhostRedirect: true });
    expect((await get(url)).status).toBe(400);
  });

  test.each([
    ['an unknown client', { client_id: 'nobody' }, 'Invalid client_id (4,702)'],
    ['another response type', { response_type: 'token' }, 'Invalid response_type'],
    ['a scope that the app does not have', { scope: 'user:read:user webinar:read:webinar' }, 'Invalid scope'],
    [
      'an unknown challenge method',
      { code_challenge: 'x'.repeat(43), code_challenge_method: 'S512' },
      'code_challenge_method',
    ],
    ['a malformed challenge', { code_challenge: 'short', code_challenge_method: 'S256' }, 'code_challenge'],
  ])('%s ends on a Zoom page without a redirect', async (_what, params, words) => {
    const { status, text, location } = await bodyOf(authorizeUrl(sandbox, createUserApp(sandbox), params));
    expect({ status, location }).toEqual({ status: 400, location: null });
    expect(text).toContain(words);
  });

  test('an empty scope parameter counts as absent, a subset narrows the grant', async () => {
    const app = createUserApp(sandbox);
    const scopesFor = async (scope: string): Promise<unknown> => {
      const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben'), { scope }));
      return (await redeem(sandbox, app, { code })).body['scope'];
    };
    expect(await scopesFor('')).toBe('user:read:user meeting:read:meeting');
    expect(await scopesFor('user:read:user')).toBe('user:read:user');
  });

  test('the consent page names every user and carries out what its form says: an unticked optional scope is not granted', async () => {
    const app = createUserApp(sandbox, { name: '<b>Notes</b>' });
    const { status, text } = await bodyOf(authorizeUrl(sandbox, app, { state: '"><script>' }));
    expect(status).toBe(200);
    for (const user of sandbox.control.users()) expect(text).toContain(user.displayName);
    expect(text).not.toContain('<b>Notes');
    expect(text).not.toContain('<script>');
    const fields = [...text.matchAll(/type="hidden" name="([^"]+)" value="([^"]*)"/g)].map(([, name, value]) => [
      name!,
      value!.replaceAll('&quot;', '"').replaceAll('&lt;', '<').replaceAll('&gt;', '>').replaceAll('&amp;', '&'),
    ]);
    const post = (extra: Record<string, string>): Promise<Response> =>
      fetch(`${sandbox.origin}/oauth/authorize/decision`, {
        method: 'POST',
        redirect: 'manual',
        body: new URLSearchParams([...fields, ...Object.entries(extra)] as [string, string][]),
      });
    const allowed = await post({ sandbox_user: person(sandbox, 'Cleo').id, decision: 'allow' });
    const callback = new URL(allowed.headers.get('location')!);
    expect(callback.searchParams.get('state')).toBe('"><script>');
    expect((await redeem(sandbox, app, { code: codeOf(callback) })).body['scope']).toBe('user:read:user');
    const denied = new URL((await post({ decision: 'deny' })).headers.get('location')!);
    expect(Object.fromEntries(denied.searchParams)).toEqual({ error: 'access_denied', state: '"><script>' });
  });

  test('the decision is checked again: a form with another redirect URI goes nowhere', async () => {
    const app = createUserApp(sandbox);
    const response = await fetch(`${sandbox.origin}/oauth/authorize/decision`, {
      method: 'POST',
      redirect: 'manual',
      body: new URLSearchParams({
        response_type: 'code',
        client_id: app.clientId,
        redirect_uri: 'https://evil.example/',
        sandbox_user: person(sandbox, 'Ben').id,
        decision: 'allow',
      }),
    });
    expect(response.status).toBe(400);
    expect(response.headers.get('location')).toBeNull();
  });

  test('Deny answers access_denied with the state, or no redirect at all with the knob on', async () => {
    const app = createUserApp(sandbox);
    const url = authorizeUrl(sandbox, app, {
      state: 's',
      sandbox_user: person(sandbox, 'Ben').id,
      sandbox_decision: 'deny',
    });
    expect((await bodyOf(url)).location).toBe(`${REDIRECT}?error=access_denied&state=s`);
    sandbox.control.setKnobs({ denyWithoutRedirect: true });
    expect(await bodyOf(url)).toMatchObject({ status: 200, location: null });
  });

  test('an admin-managed app takes an admin and turns a member away', async () => {
    const app = createUserApp(sandbox, { usage: 'ADMIN_MANAGEMENT', scopes: [{ scope: 'user:read:user:admin' }] });
    expect(codeOf(await allow(sandbox, app, person(sandbox, 'Ada')))).not.toBe('');
    const click = { sandbox_user: person(sandbox, 'Ben').id, sandbox_decision: 'allow' };
    const { status, text, location } = await bodyOf(authorizeUrl(sandbox, app, click));
    expect({ status, location }).toEqual({ status: 400, location: null });
    expect(text).toContain('You cannot authorize the app. An account admin is required to install this type of app.');
  });

  test('a user whose account requires pre-approval gets the request page', async () => {
    const ben = person(sandbox, 'Ben');
    sandbox.control.setKnobs({ preApprovalAccountIds: [ben.accountId] });
    const url = authorizeUrl(sandbox, createUserApp(sandbox), { sandbox_user: ben.id, sandbox_decision: 'allow' });
    expect(await bodyOf(url)).toMatchObject({ status: 400, location: null });
  });

  test('consent is skipped for a user who granted the same scopes, only with the knob on', async () => {
    const app = createUserApp(sandbox);
    const ben = person(sandbox, 'Ben');
    await allow(sandbox, app, ben);
    const url = authorizeUrl(sandbox, app, { sandbox_user: ben.id });
    expect((await bodyOf(url)).status).toBe(200);
    sandbox.control.setKnobs({ skipConsentWhenGranted: true });
    expect((await bodyOf(url)).location).toContain('code=');
    expect((await bodyOf(authorizeUrl(sandbox, app, { sandbox_user: person(sandbox, 'Cleo').id }))).status).toBe(200);
    expect((await bodyOf(authorizeUrl(sandbox, app))).text).toContain('Continue');
  });
});

describe('authorization codes', () => {
  test('a code becomes the documented token response', async () => {
    const app = createUserApp(sandbox);
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    const { status, body, headers } = await redeem(sandbox, app, { code });
    expect(status).toBe(200);
    expect(headers.get('cache-control')).toBe('no-store');
    expect(body).toEqual({
      access_token: expect.stringMatching(/^eyJ/),
      token_type: 'bearer',
      refresh_token: expect.stringMatching(/^eyJ/),
      expires_in: 3600,
      scope: 'user:read:user meeting:read:meeting',
      api_url: sandbox.origin,
    });
  });

  test('the access token is an HS512 JWT that names the user and the account', async () => {
    const ben = person(sandbox, 'Ben');
    const { accessToken } = await connect(sandbox, createUserApp(sandbox), ben);
    const [header, claims] = accessToken
      .split('.')
      .slice(0, 2)
      .map((part) => JSON.parse(Buffer.from(part, 'base64url').toString()));
    expect(header).toMatchObject({ alg: 'HS512', v: '2.0' });
    expect(claims).toMatchObject({ aud: 'https://oauth.zoom.us', uid: ben.id, aid: ben.accountId });
    expect(claims.exp - claims.iat).toBe(3600);
  });

  test('parameters are taken from the query and the client may authenticate in the body', async () => {
    const app = createUserApp(sandbox);
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    const { clientId, clientSecret } = app;
    const query = new URLSearchParams({ grant_type: 'authorization_code', code, redirect_uri: REDIRECT });
    const response = await fetch(`${sandbox.origin}/oauth/token?${query}`, {
      method: 'POST',
      body: new URLSearchParams({ client_id: clientId, client_secret: clientSecret }),
    });
    expect(response.status).toBe(200);
    expect(sandbox.control.journal().at(-1)).toMatchObject({ authentication: 'body', outcome: 'issued' });
  });

  test('a code works once; a replay answers 400 and harms nothing', async () => {
    const app = createUserApp(sandbox);
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    const tokens = tokensOf(await redeem(sandbox, app, { code }));
    const replay = await redeem(sandbox, app, { code });
    expect(replay.status).toBe(400);
    expect(replay.body).toEqual({ reason: 'Invalid authorization code', error: 'invalid_grant' });
    expect((await readUser(sandbox, tokens.accessToken)).status).toBe(200);
  });

  test('a code lives five minutes', async () => {
    const app = createUserApp(sandbox);
    const early = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    await clock.advance(5 * MINUTE - 1);
    expect((await redeem(sandbox, app, { code: early })).status).toBe(200);
    const late = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    await clock.advance(5 * MINUTE);
    expect((await redeem(sandbox, app, { code: late })).status).toBe(400);
  });

  test('another redirect URI than at authorize is a mismatch', async () => {
    const app = createUserApp(sandbox, { redirectUris: [REDIRECT, 'https://product.example/other'] });
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    const { status, body } = await redeem(sandbox, app, { code, redirect_uri: 'https://product.example/other' });
    expect(status).toBe(400);
    expect(body).toEqual({ reason: 'Invalid request : Redirect URI mismatch.', error: 'invalid_request' });
  });

  test.each(['S256', 'plain', 'absent'])('a code with a challenge (%s) needs its verifier', async (method) => {
    const app = createUserApp(sandbox);
    const { verifier, challenge } = pkcePair();
    const params = {
      code_challenge: method === 'S256' ? challenge : verifier,
      ...(method === 'absent' ? {} : { code_challenge_method: method }),
    };
    const fresh = async (): Promise<string> => codeOf(await allow(sandbox, app, person(sandbox, 'Ben'), params));
    expect((await redeem(sandbox, app, { code: await fresh(), code_verifier: verifier })).status).toBe(200);
    const wrong = await redeem(sandbox, app, { code: await fresh(), code_verifier: pkcePair().verifier });
    expect({ status: wrong.status, error: wrong.body['error'] }).toEqual({ status: 400, error: 'invalid_grant' });
    const missing = await redeem(sandbox, app, { code: await fresh() });
    expect({ status: missing.status, error: missing.body['error'] }).toEqual({ status: 400, error: 'invalid_grant' });
  });

  test('a code of one app is worthless to another, and is not spent by it', async () => {
    const app = createUserApp(sandbox);
    const other = createUserApp(sandbox);
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    expect((await redeem(sandbox, other, { code })).status).toBe(400);
    expect((await redeem(sandbox, app, { code })).status).toBe(200);
  });

  test('Basic credentials may be form encoded as RFC 6749 asks', async () => {
    const app = createServerApp(sandbox);
    const encode = (text: string): string =>
      text.replaceAll(/[^A-Za-z0-9]/g, (each) => `%${Buffer.from(each).toString('hex')}`);
    const encoded = { ...app, clientId: encode(app.clientId), clientSecret: encode(app.clientSecret) };
    expect((await mintAccountToken(sandbox, encoded)).status).toBe(200);
  });

  test('wrong client credentials answer 400 invalid_client, and the rotated secret is wrong at once', async () => {
    const app = createUserApp(sandbox);
    const expected = { reason: 'Invalid client_id or client_secret', error: 'invalid_client' };
    const attempt = (secret: string): Promise<unknown> =>
      refresh(sandbox, { ...app, clientSecret: secret }, 'x').then(({ status, body }) => ({ status, body }));
    expect(await attempt('wrong')).toEqual({ status: 400, body: expected });
    const { clientSecret } = sandbox.control.rotateSecret(app.clientId);
    expect(await attempt(app.clientSecret)).toEqual({ status: 400, body: expected });
    expect(await attempt(clientSecret)).toMatchObject({ body: { error: 'invalid_grant' } });
  });

  test('an unknown grant type is unsupported, a repeated parameter is a bad request', async () => {
    const app = createUserApp(sandbox);
    const unknown = await postForm(`${sandbox.origin}/oauth/token`, { app, params: { grant_type: 'password' } });
    expect(unknown).toMatchObject({
      status: 400,
      body: { reason: 'unsupported grant type', error: 'unsupported_grant_type' },
    });
    const twice = await postForm(`${sandbox.origin}/oauth/token?grant_type=password`, {
      app,
      params: { grant_type: 'password' },
    });
    expect(twice).toMatchObject({ status: 400, body: { error: 'invalid_request' } });
  });
});

describe('refresh', () => {
  const DEAD = { status: 400, body: { reason: 'Invalid Token!', error: 'invalid_grant' } };

  test('a refresh token works once; the second use answers 400 invalid_grant and the new pair lives on', async () => {
    const app = createUserApp(sandbox);
    const first = await connect(sandbox, app, person(sandbox, 'Ben'));
    const second = tokensOf(await refresh(sandbox, app, first.refreshToken));
    expect(second.refreshToken).not.toBe(first.refreshToken);
    expect(second.accessToken).not.toBe(first.accessToken);
    expect(await refresh(sandbox, app, first.refreshToken)).toMatchObject(DEAD);
    expect((await readUser(sandbox, second.accessToken)).status).toBe(200);
    expect((await refresh(sandbox, app, second.refreshToken)).status).toBe(200);
  });

  test('of ten parallel refreshes with one token exactly one wins', async () => {
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    const answers = await Promise.all(Array.from({ length: 10 }, () => refresh(sandbox, app, refreshToken)));
    const winners = answers.filter(({ status }) => status === 200);
    expect(winners).toHaveLength(1);
    expect((await refresh(sandbox, app, tokensOf(winners[0]!).refreshToken)).status).toBe(200);
  });

  test('access tokens live an hour, refresh tokens 90 days', async () => {
    const app = createUserApp(sandbox);
    const tokens = await connect(sandbox, app, person(sandbox, 'Ben'));
    await clock.advance(60 * MINUTE - 1);
    expect((await readUser(sandbox, tokens.accessToken)).status).toBe(200);
    await clock.advance(1);
    expect(await readUser(sandbox, tokens.accessToken)).toMatchObject({ status: 401, body: { code: 124 } });
    await clock.advance(89 * DAY);
    const renewed = tokensOf(await refresh(sandbox, app, tokens.refreshToken));
    await clock.advance(90 * DAY);
    expect(await refresh(sandbox, app, renewed.refreshToken)).toMatchObject(DEAD);
  });

  test('a new authorization by the same user kills all older tokens of that app and no others', async () => {
    const app = createUserApp(sandbox);
    const older = await connect(sandbox, app, person(sandbox, 'Ben'));
    const others = await connect(sandbox, app, person(sandbox, 'Cleo'));
    const newer = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect(await readUser(sandbox, older.accessToken)).toMatchObject({ status: 401, body: { code: 124 } });
    expect(await refresh(sandbox, app, older.refreshToken)).toMatchObject(DEAD);
    expect((await readUser(sandbox, newer.accessToken)).status).toBe(200);
    expect((await readUser(sandbox, others.accessToken)).status).toBe(200);
  });

  test('a user deleted at Zoom, a removed app and a disabled app all answer as a dead token', async () => {
    const app = createUserApp(sandbox);
    const [ben, cleo, ada] = ['Ben', 'Cleo', 'Ada'].map((name) => person(sandbox, name)) as [never, never, never];
    const tokens = [
      await connect(sandbox, app, ben),
      await connect(sandbox, app, cleo),
      await connect(sandbox, app, ada),
    ];
    sandbox.control.removeUser(person(sandbox, 'Ben').id);
    sandbox.control.removeGrant({ clientId: app.clientId, userId: person(sandbox, 'Cleo').id });
    sandbox.control.updateApp(app.clientId, { disabled: true });
    for (const { accessToken, refreshToken } of tokens) {
      expect(await refresh(sandbox, app, refreshToken)).toMatchObject(DEAD);
      expect((await readUser(sandbox, accessToken)).status).toBe(401);
    }
  });

  test('a refresh token of another app is dead to this one and stays alive', async () => {
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect(await refresh(sandbox, createUserApp(sandbox), refreshToken)).toMatchObject(DEAD);
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(200);
  });

  test('legacyDeadRefresh answers 401 invalid_request', async () => {
    sandbox.control.setKnobs({ legacyDeadRefresh: true });
    const answer = await refresh(sandbox, createUserApp(sandbox), 'nothing');
    expect(answer).toMatchObject({ status: 401, body: { reason: 'Invalid Token!', error: 'invalid_request' } });
  });

  test('refreshMode grace takes the old token for graceSeconds', async () => {
    sandbox.control.setKnobs({ refreshMode: 'grace', graceSeconds: 30 });
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    const statuses: number[] = [];
    for (const wait of [0, 30_000, 1]) {
      await clock.advance(wait);
      statuses.push((await refresh(sandbox, app, refreshToken)).status);
    }
    expect(statuses).toEqual([200, 200, 400]);
  });

  test('refreshMode tolerance takes the token of the generation before, and no older one', async () => {
    sandbox.control.setKnobs({ refreshMode: 'tolerance', tolerance: 1 });
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(200);
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(200);
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(400);
  });

  test('refreshMode family-revoke kills the whole grant on reuse', async () => {
    sandbox.control.setKnobs({ refreshMode: 'family-revoke' });
    const app = createUserApp(sandbox);
    const first = await connect(sandbox, app, person(sandbox, 'Ben'));
    const second = tokensOf(await refresh(sandbox, app, first.refreshToken));
    expect(await refresh(sandbox, app, first.refreshToken)).toMatchObject(DEAD);
    expect(await refresh(sandbox, app, second.refreshToken)).toMatchObject(DEAD);
    expect((await readUser(sandbox, second.accessToken)).status).toBe(401);
  });

  test('apiUrl can be another origin or left out', async () => {
    const app = createServerApp(sandbox);
    sandbox.control.setKnobs({ apiUrl: 'https://api-eu.zoom.us' });
    expect((await mintAccountToken(sandbox, app)).body['api_url']).toBe('https://api-eu.zoom.us');
    sandbox.control.setKnobs({ apiUrl: null });
    expect((await mintAccountToken(sandbox, app)).body).not.toHaveProperty('api_url');
  });
});

describe('server-to-server', () => {
  test('tokens have no refresh token, and earlier ones stay valid', async () => {
    const app = createServerApp(sandbox);
    const first = await mintAccountToken(sandbox, app);
    const second = await mintAccountToken(sandbox, app);
    expect(first.body).not.toHaveProperty('refresh_token');
    for (const { accessToken } of [tokensOf(first), tokensOf(second)]) {
      expect(await readUser(sandbox, accessToken)).toMatchObject({ status: 200, body: { account_id: app.accountId } });
    }
  });

  test('a wrong account is a Bad Request', async () => {
    const answer = await mintAccountToken(sandbox, createServerApp(sandbox), person(sandbox, 'Gina').accountId);
    expect(answer).toMatchObject({ status: 400, body: { reason: 'Bad Request', error: 'invalid_request' } });
  });

  test('apps cannot use the grant types of the other kind', async () => {
    const error = 'unsupported_grant_type';
    expect((await mintAccountToken(sandbox, createUserApp(sandbox))).body['error']).toBe(error);
    expect((await refresh(sandbox, createServerApp(sandbox), 'x')).body['error']).toBe(error);
  });
});

describe('revoke', () => {
  test.each(['accessToken', 'refreshToken'] as const)('revoking the %s kills both tokens', async (which) => {
    const app = createUserApp(sandbox);
    const tokens = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect(await revoke(sandbox, app, tokens[which])).toMatchObject({ status: 200, body: { status: 'success' } });
    expect((await readUser(sandbox, tokens.accessToken)).status).toBe(401);
    expect((await refresh(sandbox, app, tokens.refreshToken)).status).toBe(400);
    expect((await revoke(sandbox, app, tokens[which])).status).toBe(200);
    expect(sandbox.control.grants()).toEqual([]);
  });

  test('another app cannot revoke the token, nor can a wrong secret', async () => {
    const app = createUserApp(sandbox);
    const { accessToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect((await revoke(sandbox, createUserApp(sandbox), accessToken)).status).toBe(400);
    expect((await revoke(sandbox, { ...app, clientSecret: 'x' }, accessToken)).body['error']).toBe('invalid_client');
    expect((await readUser(sandbox, accessToken)).status).toBe(200);
  });

  test('a published app is told by webhook, an unpublished one is not', async () => {
    const { url, received } = await receiver();
    for (const published of [false, true]) {
      const app = createUserApp(sandbox, { webhookUrl: url, published });
      const { accessToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
      await revoke(sandbox, app, accessToken);
    }
    await sandbox.control.waitFor(({ outcome }) => outcome === 'delivered');
    expect(received.map(({ body }) => JSON.parse(body).event)).toEqual(['app_deauthorized']);
  });
});

describe('REST', () => {
  test('users/me is the user of the token, with the ids of the account', async () => {
    const ben = person(sandbox, 'Ben');
    const { accessToken } = await connect(sandbox, createUserApp(sandbox), ben);
    const { status, body, headers } = await readUser(sandbox, accessToken);
    expect(status).toBe(200);
    expect(body).toMatchObject({
      id: ben.id,
      account_id: ben.accountId,
      email: ben.email,
      display_name: ben.displayName,
    });
    expect(headers.get('x-zm-trackingid')).toBeTruthy();
    expect((await readUser(sandbox, accessToken, ben.id)).body['id']).toBe(ben.id);
  });

  test('a user-managed token reads its own user alone', async () => {
    const { accessToken } = await connect(sandbox, createUserApp(sandbox), person(sandbox, 'Ben'));
    const { id } = person(sandbox, 'Cleo');
    const answer = await readUser(sandbox, accessToken, id);
    expect(answer).toMatchObject({ status: 404, body: { code: 1001, message: `User does not exist: ${id}.` } });
  });

  test('an account token reads the users of its account and of no other', async () => {
    const { accessToken } = tokensOf(await mintAccountToken(sandbox, createServerApp(sandbox)));
    expect((await readUser(sandbox, accessToken, person(sandbox, 'Cleo').id)).status).toBe(200);
    const other = await readUser(sandbox, accessToken, person(sandbox, 'Hugo').id);
    expect(other).toMatchObject({ status: 400, body: { code: 1010 } });
    expect(await readUser(sandbox, accessToken, 'nobody')).toMatchObject({ status: 404, body: { code: 1001 } });
  });

  test('an invalid token, a token in the query and no token answer 401 with code 124', async () => {
    const { accessToken } = await connect(sandbox, createUserApp(sandbox), person(sandbox, 'Ben'));
    const invalid = { code: 124, message: 'Invalid access token.' };
    expect(await readUser(sandbox, 'nonsense')).toMatchObject({ status: 401, body: invalid });
    const none = await fetch(`${sandbox.origin}/v2/users/me`);
    expect([none.status, await none.json()]).toEqual([401, invalid]);
    const query = await fetch(`${sandbox.origin}/v2/users/me?access_token=${accessToken}`);
    expect(query.status).toBe(401);
    expect(await query.json()).toEqual({
      code: 124,
      message: 'Invalid access token, this access token is not supported as query parameter string.',
    });
  });

  test('a refresh token is no access token', async () => {
    const { refreshToken } = await connect(sandbox, createUserApp(sandbox), person(sandbox, 'Ben'));
    expect((await readUser(sandbox, refreshToken)).status).toBe(401);
  });

  test('a missing scope answers 400 with code 4711 and names the scopes that would do; classic ones do too', async () => {
    const app = createUserApp(sandbox, { scopes: [{ scope: 'meeting:read:meeting' }] });
    const { accessToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    expect(await readUser(sandbox, accessToken)).toMatchObject({
      status: 400,
      body: {
        code: 4711,
        message: 'Invalid access token, does not contain scopes:[user:read:user, user:read:user:admin].',
      },
    });
    const classic = createUserApp(sandbox, { scopes: [{ scope: 'user:read' }] });
    const tokens = await connect(sandbox, classic, person(sandbox, 'Ben'));
    expect((await readUser(sandbox, tokens.accessToken)).status).toBe(200);
  });

  test('tokens/expire makes access tokens count as expired and leaves refresh tokens alone', async () => {
    const app = createUserApp(sandbox);
    const ben = await connect(sandbox, app, person(sandbox, 'Ben'));
    const cleo = await connect(sandbox, app, person(sandbox, 'Cleo'));
    expect(sandbox.control.expireAccessTokens({ userId: person(sandbox, 'Ben').id })).toBe(1);
    expect(await readUser(sandbox, ben.accessToken)).toMatchObject({ status: 401, body: { code: 124 } });
    expect((await readUser(sandbox, cleo.accessToken)).status).toBe(200);
    expect((await refresh(sandbox, app, ben.refreshToken)).status).toBe(200);
  });

  test.each(['/v2/nothing', '/v3/users/me', '/oauth/token/', '/_sandbox/nothing'])('%s answers 404', async (path) => {
    expect((await get(sandbox.origin + path)).status).toBe(404);
  });
});

describe('webhooks', () => {
  test('an app_deauthorized is compact JSON, signed over timestamp and body, with the captured headers', async () => {
    const { url, received } = await receiver();
    const app = createUserApp(sandbox, { webhookUrl: url });
    const ben = person(sandbox, 'Ben');
    await connect(sandbox, app, ben);
    const { deliveryId } = sandbox.control.removeGrant({ clientId: app.clientId, userId: ben.id });
    const entry = await sandbox.control.waitFor(
      (each) => each.deliveryId === deliveryId && each.outcome === 'delivered',
    );
    expect(entry).toMatchObject({ route: 'webhook', event: 'app_deauthorized', attempt: 1, status: 204 });
    const { headers, body } = received[0]!;
    const timestamp = headers['x-zm-request-timestamp'] as string;
    const hmac = createHmac('sha256', app.webhookSecret).update(`v0:${timestamp}:${body}`).digest('hex');
    expect(timestamp).toBe(String(clock.now().getTime() / 1000));
    expect(headers).toMatchObject({
      'x-zm-signature': `v0=${hmac}`,
      'user-agent': 'Zoom Marketplace/1.0a',
      'content-type': 'application/json; charset=utf-8',
      clientid: app.clientId,
    });
    expect(headers['x-zm-trackingid']).toBeTruthy();
    expect(JSON.stringify(JSON.parse(body))).toBe(body);
    expect(JSON.parse(body)).toEqual({
      event: 'app_deauthorized',
      event_ts: clock.now().getTime(),
      payload: {
        account_id: ben.accountId,
        user_id: ben.id,
        client_id: app.clientId,
        signature: expect.stringMatching(/^[0-9a-f]{64}$/),
        deauthorization_time: clock.now().toISOString(),
      },
    });
  });

  test.each([
    ['payload', '2027-01-01T00:00:00.000Z', 1_798_761_600_000],
    ['payload-string', '2027-01-01T00:00:00.000Z', '2027-01-01 00:00:00'],
  ] as const)('event_ts can be in the payload (%s)', async (placement, _now, expected) => {
    const { url, received } = await receiver();
    const app = createUserApp(sandbox, { webhookUrl: url });
    sandbox.control.setKnobs({ webhookEventTsPlacement: placement });
    await connect(sandbox, app, person(sandbox, 'Ben'));
    sandbox.control.removeGrant({ clientId: app.clientId, userId: person(sandbox, 'Ben').id });
    await sandbox.control.waitFor(({ outcome }) => outcome === 'delivered');
    const { event_ts: top, payload } = JSON.parse(received[0]!.body);
    expect([top, payload.event_ts]).toEqual([undefined, expected]);
  });

  test('strictDeauthorization keeps quiet for an unpublished app', async () => {
    const { url } = await receiver();
    const app = createUserApp(sandbox, { webhookUrl: url });
    sandbox.control.setKnobs({ strictDeauthorization: true });
    await connect(sandbox, app, person(sandbox, 'Ben'));
    const removed = sandbox.control.removeGrant({ clientId: app.clientId, userId: person(sandbox, 'Ben').id });
    expect(removed.deliveryId).toBeNull();
  });

  async function deauthorize(url: string): Promise<void> {
    const app = createUserApp(sandbox, { webhookUrl: url });
    await connect(sandbox, app, person(sandbox, 'Ben'));
    sandbox.control.removeGrant({ clientId: app.clientId, userId: person(sandbox, 'Ben').id });
  }

  test('a 5xx is retried after 5, 25 and 85 minutes, then the event is dropped', async () => {
    const { url, received } = await receiver(() => ({ status: 503 }));
    await deauthorize(url);
    const begun = clock.now().getTime();
    const attemptAt: number[] = [];
    for (const [index, wait] of [0, 5, 20, 60].entries()) {
      await clock.advance(wait * MINUTE);
      const entry = await sandbox.control.waitFor(({ attempt, status }) => attempt === index + 1 && status === 503);
      attemptAt.push((new Date(entry.at).getTime() - begun) / MINUTE);
    }
    expect(attemptAt).toEqual([0, 5, 25, 85]);
    expect(sandbox.control.journal().at(-1)).toMatchObject({ attempt: 4, outcome: 'given-up' });
    await clock.advance(DAY);
    expect(received).toHaveLength(4);
    expect(new Set(received.map(({ headers }) => headers['x-zm-trackingid'])).size).toBe(1);
  });

  test('an answer that takes longer than 3 seconds counts as none', async () => {
    const { url, received } = await receiver((_webhook, count) => (count === 1 ? 'hang' : { status: 200 }));
    await deauthorize(url);
    while (received.length === 0) await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(3000);
    const failed = await sandbox.control.waitFor(({ outcome }) => outcome === 'retry-scheduled');
    expect(failed.status).toBeNull();
    await clock.sleeping();
    await clock.advance(5 * MINUTE - 3000);
    expect((await sandbox.control.waitFor(({ outcome }) => outcome === 'delivered')).attempt).toBe(2);
  });

  test('an unreachable receiver is retried', async () => {
    const { url, close } = await createReceiver();
    await close();
    await deauthorize(url);
    expect((await sandbox.control.waitFor(({ outcome }) => outcome === 'retry-scheduled')).status).toBeNull();
  });

  test('a 4xx is not retried, unless the knob says so', async () => {
    const { url } = await receiver(() => ({ status: 404 }));
    await deauthorize(url);
    expect((await sandbox.control.waitFor(({ status }) => status === 404)).outcome).toBe('given-up');
    sandbox.control.setKnobs({ webhookRetryOn4xx: true });
    sandbox.control.clearJournal();
    await deauthorize(url);
    expect((await sandbox.control.waitFor(({ status, route }) => route === 'webhook' && status === 404)).outcome).toBe(
      'retry-scheduled',
    );
  });

  test('retries can be signed anew, and events can be sent more than once', async () => {
    sandbox.control.setKnobs({ webhookResignRetries: true, webhookDuplicates: 1 });
    const { url, received } = await receiver((_webhook, count) => ({ status: count <= 2 ? 500 : 200 }));
    await deauthorize(url);
    await sandbox.control.waitFor(
      () => sandbox.control.journal().filter(({ outcome }) => outcome === 'retry-scheduled').length === 2,
    );
    await clock.sleeping(2);
    await clock.advance(5 * MINUTE);
    await sandbox.control.waitFor(
      () => sandbox.control.journal().filter(({ outcome }) => outcome === 'delivered').length === 2,
    );
    const times = received.map(({ headers }) => Number(headers['x-zm-request-timestamp']));
    expect(times.map((time) => time - times[0]!)).toEqual([0, 0, 300, 300]);
    expect(new Set(received.map(({ body }) => body)).size).toBe(1);
  });

  test('validate-webhook tells a right answer from every wrong one', async () => {
    const answers: Record<string, (secret: string, plainToken: string) => { status: number; body?: string }> = {
      right: (secret, plainToken) => {
        const encryptedToken = createHmac('sha256', secret).update(plainToken).digest('hex');
        return { status: 200, body: JSON.stringify({ plainToken, encryptedToken }) };
      },
      'wrong-token': (_secret, plainToken) => ({
        status: 200,
        body: JSON.stringify({ plainToken, encryptedToken: '0' }),
      }),
      'not-json': () => ({ status: 200, body: '<html>' }),
      status: () => ({ status: 401 }),
    };
    const app = createUserApp(sandbox);
    expect(await sandbox.control.validateWebhook(app.clientId)).toMatchObject({
      valid: false,
      problem: 'no-webhook-url',
    });
    for (const [problem, answer] of Object.entries(answers)) {
      const { url, received } = await receiver(({ body }) =>
        answer(app.webhookSecret, JSON.parse(body).payload.plainToken),
      );
      sandbox.control.updateApp(app.clientId, { webhookUrl: url });
      const result = await sandbox.control.validateWebhook(app.clientId);
      expect(result).toMatchObject({ valid: problem === 'right', problem: problem === 'right' ? null : problem });
      const { headers, body } = received[0]!;
      const hmac = createHmac('sha256', app.webhookSecret)
        .update(`v0:${headers['x-zm-request-timestamp']}:${body}`)
        .digest('hex');
      expect(headers['x-zm-signature']).toBe(`v0=${hmac}`);
    }
  });
});

describe('faults', () => {
  test('a status fault answers without performing, for its app and grant type only, as often as told', async () => {
    const app = createUserApp(sandbox);
    const tokens = await connect(sandbox, app, person(sandbox, 'Ben'));
    sandbox.control.addFault({
      route: 'token',
      clientId: app.clientId,
      grantType: 'refresh_token',
      times: 2,
      fault: { kind: 'status', status: 429, headers: { 'retry-after': '7' }, body: { code: 429 } },
    });
    expect((await mintAccountToken(sandbox, createServerApp(sandbox))).status).toBe(200);
    for (let time = 0; time < 2; time += 1) {
      const answer = await refresh(sandbox, app, tokens.refreshToken);
      expect([answer.status, answer.headers.get('retry-after')]).toEqual([429, '7']);
    }
    expect((await refresh(sandbox, app, tokens.refreshToken)).status).toBe(200);
    expect(sandbox.control.journal().filter(({ fault }) => fault === 'status')).toHaveLength(2);
  });

  test('drop before leaves the token alone, drop after has rotated it', async () => {
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    sandbox.control.addFault({ route: 'token', fault: { kind: 'drop', when: 'before' } });
    await expect(refresh(sandbox, app, refreshToken)).rejects.toThrow();
    sandbox.control.addFault({ route: 'token', fault: { kind: 'drop', when: 'after' } });
    await expect(refresh(sandbox, app, refreshToken)).rejects.toThrow();
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(400);
    const outcomes = sandbox.control
      .journal()
      .slice(-3)
      .map(({ outcome, status }) => [outcome, status]);
    expect(outcomes).toEqual([
      ['not-performed', null],
      ['rotated', null],
      ['reused-token', 400],
    ]);
  });

  test('hang before performs nothing for a caller who left, hang after has rotated', async () => {
    const app = createUserApp(sandbox);
    const { refreshToken } = await connect(sandbox, app, person(sandbox, 'Ben'));
    const impatient = async (when: 'before' | 'after'): Promise<void> => {
      sandbox.control.addFault({ route: 'token', fault: { kind: 'hang', when, ms: 60_000 } });
      const leave = new AbortController();
      const call = fetch(`${sandbox.origin}/oauth/token`, {
        method: 'POST',
        signal: leave.signal,
        headers: { authorization: basic(app) },
        body: new URLSearchParams({ grant_type: 'refresh_token', refresh_token: refreshToken }),
      });
      await clock.sleeping();
      leave.abort();
      await expect(call).rejects.toThrow();
      // The server learns of the closed connection a moment later.
      await new Promise((resolve) => setTimeout(resolve, 50));
      await clock.advance(60_000);
    };
    await impatient('before');
    expect(sandbox.control.journal().at(-1)).toMatchObject({ fault: 'hang', outcome: 'not-performed' });
    await impatient('after');
    expect(sandbox.control.journal().at(-1)).toMatchObject({ fault: 'hang', outcome: 'rotated' });
    expect((await refresh(sandbox, app, refreshToken)).status).toBe(400);
  });

  test('truncate, body, big and slow spoil the answer as told', async () => {
    const app = createServerApp(sandbox);
    const spoiled = async (fault: Parameters<Sandbox['control']['addFault']>[0]['fault']): Promise<Response> => {
      sandbox.control.addFault({ route: 'token', fault });
      const params = { grant_type: 'account_credentials', account_id: app.accountId };
      return fetch(`${sandbox.origin}/oauth/token`, {
        method: 'POST',
        headers: { authorization: basic(app) },
        body: new URLSearchParams(params),
      });
    };
    const truncated = await spoiled({ kind: 'truncate' });
    await expect(truncated.text()).rejects.toThrow();
    const page = await spoiled({ kind: 'body', status: 200, contentType: 'text/html', body: '<h1>Hello</h1>' });
    expect([page.headers.get('content-type'), await page.text()]).toEqual(['text/html', '<h1>Hello</h1>']);
    const big = await (await spoiled({ kind: 'big', bytes: 200_000 })).text();
    expect(big).toHaveLength(200_000);
    expect(() => JSON.parse(big)).not.toThrow();
    const slow = await spoiled({ kind: 'slow', bytesPerSecond: 400 });
    const text = slow.text();
    for (let second = 0; second < 5; second += 1) await clock.advance(1000);
    expect(JSON.parse(await text)).toHaveProperty('access_token');
  });

  test('tokenDelayMs and restDelayMs hold a request back on the clock', async () => {
    sandbox.control.setKnobs({ tokenDelayMs: 5000, restDelayMs: 1000 });
    const minting = mintAccountToken(sandbox, createServerApp(sandbox));
    await clock.sleeping();
    expect(sandbox.control.journal().at(-1)).toMatchObject({ route: 'token', outcome: 'received', status: null });
    await clock.advance(5000);
    const reading = readUser(sandbox, tokensOf(await minting).accessToken);
    await clock.sleeping();
    await clock.advance(1000);
    expect((await reading).status).toBe(200);
  });

  test('closing gives up a held request instead of waiting for it', async () => {
    sandbox.control.setKnobs({ tokenDelayMs: DAY });
    const minting = mintAccountToken(sandbox, createServerApp(sandbox));
    minting.catch(() => undefined);
    await clock.sleeping();
    await sandbox.close();
    await expect(minting).rejects.toThrow();
    cleanups = [];
  });
});

describe('ledger', () => {
  test('tells how a client asked without holding anything secret', async () => {
    const app = createUserApp(sandbox);
    const { verifier, challenge } = pkcePair();
    const params = { state: 'my-state', code_challenge: challenge, code_challenge_method: 'S256' };
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben'), params));
    const tokens = tokensOf(await redeem(sandbox, app, { code, code_verifier: verifier }));
    await fetch(
      `${sandbox.origin}/oauth/token?${new URLSearchParams({ grant_type: 'x', refresh_token: tokens.refreshToken, [tokens.accessToken]: '' })}`,
      {
        method: 'POST',
      },
    );
    await readUser(sandbox, tokens.accessToken);
    await get(`${sandbox.origin}/${tokens.accessToken}`);
    await revoke(sandbox, app, tokens.refreshToken);
    const journal = sandbox.control.journal();
    expect(journal.map(({ route, outcome }) => `${route} ${outcome}`)).toEqual([
      'authorize allowed',
      'token issued',
      'token invalid_client',
      'users read',
      'unknown unknown-path',
      'revoke revoked',
    ]);
    expect(journal[0]).toMatchObject({ pkce: true, scopeSent: false, clientId: app.clientId, authentication: null });
    expect(journal[0]!.queryKeys).toEqual(expect.arrayContaining(['state', 'code_challenge', 'sandbox_user']));
    expect(journal[1]).toMatchObject({ grantType: 'authorization_code', authentication: 'basic', pkce: true });
    expect(journal[2]).toMatchObject({
      grantType: 'other',
      authentication: 'none',
      queryKeys: ['grant_type', 'refresh_token', 'other'],
    });
    expect(journal[3]).toMatchObject({ authentication: 'bearer', clientId: app.clientId });
    expect(journal[5]!.tokenFingerprint).toBe(journal[2]!.tokenFingerprint);
    const text = JSON.stringify(journal);
    for (const secret of [
      code,
      verifier,
      tokens.accessToken,
      tokens.refreshToken,
      app.clientSecret,
      'my-state',
      'ZCANARY',
    ]) {
      expect(text).not.toContain(secret);
    }
  });

  test('every minted secret contains the canary and is a bearer string', async () => {
    const app = createUserApp(sandbox);
    const code = codeOf(await allow(sandbox, app, person(sandbox, 'Ben')));
    const { accessToken, refreshToken } = tokensOf(await redeem(sandbox, app, { code }));
    for (const secret of [app.clientSecret, app.webhookSecret, code, accessToken, refreshToken]) {
      expect(secret).toMatch(/^[A-Za-z0-9\-._~+/]*ZCANARY_[A-Za-z0-9\-._~+/]*$/);
    }
    expect([app.clientId.length, app.clientSecret.length]).toEqual([22, 32]);
  });
});

describe('control API', () => {
  const call = async (method: string, path: string, body?: unknown): Promise<{ status: number; body: any }> => {
    const response = await fetch(`${sandbox.origin}/_sandbox${path}`, {
      method,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } }),
    });
    return { status: response.status, body: await response.json() };
  };

  test('an outside process can do what a test in process can', async () => {
    const { url } = await receiver();
    const scopes = [{ scope: 'user:read:user', optional: false }];
    const created = await call('POST', '/apps', {
      name: 'A',
      usage: 'USER_OPERATION',
      scopes,
      redirectUris: [REDIRECT],
    });
    const path = `/apps/${created.body.clientId}`;
    expect((await call('GET', path)).body).toEqual(created.body);
    expect((await call('PATCH', path, { webhookUrl: url, published: true })).body).toMatchObject({
      webhookUrl: url,
      published: true,
    });
    expect((await call('GET', '/apps')).body).toHaveLength(1);
    expect((await call('POST', `${path}/rotate-secret`)).body.clientSecret).not.toBe(created.body.clientSecret);
    expect((await call('POST', `${path}/validate-webhook`)).body).toMatchObject({ valid: false, status: 204 });
    const account = (await call('POST', '/accounts', { name: 'Initech' })).body;
    expect((await call('GET', '/accounts')).body).toContainEqual(account);
    const user = (
      await call('POST', '/users', { email: 'Peter@initech.example', displayName: 'Peter', accountId: account.id })
    ).body;
    expect(user).toMatchObject({ email: 'peter@initech.example', role: 'Member', accountId: account.id });
    const app = sandbox.control.app(created.body.clientId);
    await connect(sandbox, app, user);
    expect((await call('GET', '/grants')).body).toMatchObject([
      { userId: user.id, liveAccessTokens: 1, liveRefreshTokens: 1 },
    ]);
    expect((await call('POST', '/tokens/expire', { clientId: app.clientId })).body).toEqual({ expired: 1 });
    const removed = await call('POST', '/grants/remove', { clientId: app.clientId, userId: user.id });
    expect(removed.body.deliveryId).toEqual(expect.any(String));
    expect((await call('POST', `/users/${user.id}/remove`)).body.removed).toBe(true);
    expect((await call('PUT', '/knobs', { accessTokenSeconds: 60 })).body).toMatchObject({
      accessTokenSeconds: 60,
      codeSeconds: 300,
    });
    expect((await call('POST', '/faults', { route: 'token', fault: { kind: 'drop' } })).status).toBe(200);
    expect((await call('DELETE', '/faults')).status).toBe(200);
    const { seq } = (await call('GET', '/ledger')).body.at(-2);
    expect((await call('GET', `/ledger?since=${seq}`)).body).toHaveLength(1);
    expect((await call('DELETE', '/ledger')).status).toBe(200);
    expect((await call('GET', '/ledger')).body).toEqual([]);
    await call('POST', '/reset');
    expect((await call('GET', '/apps')).body).toEqual([]);
    expect((await call('GET', '/knobs')).body.accessTokenSeconds).toBe(3600);
    expect((await call('GET', '/users')).body).toHaveLength(6);
  });

  test('refuses malformed input, unknown fields and scopes of the wrong level', async () => {
    const scopes = [{ scope: 'user:read:user' }];
    const app = { name: 'A', usage: 'USER_OPERATION', scopes };
    expect((await call('POST', '/apps', { ...app, colour: 'red' })).status).toBe(400);
    expect((await call('POST', '/apps', { ...app, redirectUris: ['javascript:alert(1)'] })).status).toBe(400);
    expect((await call('PUT', '/knobs', { accessTokenSeconds: -1 })).status).toBe(400);
    expect((await call('GET', '/ledger?since=x')).status).toBe(400);
    expect((await call('PATCH', '/apps/none', {})).status).toBe(404);
    expect((await call('POST', '/apps', { ...app, scopes: [{ scope: 'user:read:user:admin' }] })).body.error).toBe(
      'user:read:user:admin is not a valid scope name when usage is USER_OPERATION.',
    );
    expect((await call('POST', '/apps', { ...app, usage: 'ADMIN_MANAGEMENT' })).status).toBe(400);
    expect((await fetch(`${sandbox.origin}/_sandbox/reset`, { method: 'POST', body: 'x' })).status).toBe(415);
  });

  test.each([
    ['a name that points here', { host: 'sandbox.attacker.example' }],
    ['a foreign page', { origin: 'https://attacker.example' }],
  ])('is closed to %s', async (_what, headers) => {
    const status = await new Promise((resolve, reject) => {
      const request = rawRequest(`${sandbox.origin}/_sandbox/reset`, { method: 'POST', headers }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', reject).end();
    });
    expect(status).toBe(403);
  });

  test('a body beyond the limit is refused with 413', async () => {
    const response = await fetch(`${sandbox.origin}/oauth/token`, { method: 'POST', body: 'x'.repeat(70_000) });
    expect(response.status).toBe(413);
  });

  test('the portal lists apps, users and grants, and its Remove button ends a grant', async () => {
    const app = createUserApp(sandbox);
    const ben = person(sandbox, 'Ben');
    await connect(sandbox, app, ben);
    const response = await fetch(sandbox.origin);
    const text = await response.text();
    for (const word of [app.name, app.clientId, ben.displayName, 'Remove app', 'not Zoom'])
      expect(text).toContain(word);
    expect(response.headers.get('content-security-policy')).toContain("default-src 'none'");
    const style = /<style>([^]*)<\/style>/.exec(text)![1]!;
    const hash = createHash('sha256').update(style).digest('base64');
    expect(response.headers.get('content-security-policy')).toContain(`style-src 'sha256-${hash}'`);
    const removed = await fetch(`${sandbox.origin}/marketplace/remove`, {
      method: 'POST',
      redirect: 'manual',
      body: new URLSearchParams({ clientId: app.clientId, userId: ben.id }),
    });
    expect(removed.status).toBe(303);
    expect(sandbox.control.grants()).toEqual([]);
  });
});

describe('persistence', () => {
  let folder: string;

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'latchkey-sandbox-'));
    cleanups.push(() => rm(folder, { recursive: true }));
  });

  test('tokens, apps, knobs and pending webhooks survive a restart, in a file that only its owner can read', async () => {
    const persistTo = join(folder, 'deep', 'sandbox.json');
    const first = await start({ persistTo });
    const { url, received } = await receiver((_webhook, count) => ({ status: count === 1 ? 500 : 200 }));
    const app = createUserApp(first, { webhookUrl: url });
    const tokens = await connect(first, app, person(first, 'Ben'));
    await connect(first, app, person(first, 'Cleo'));
    first.control.removeGrant({ clientId: app.clientId, userId: person(first, 'Cleo').id });
    await first.control.waitFor(({ outcome }) => outcome === 'retry-scheduled');
    first.control.setKnobs({ accessTokenSeconds: 120 });
    await first.close();
    expect((await stat(persistTo)).mode & 0o777).toBe(0o600);
    const text = await readFile(persistTo, 'utf8');
    for (const token of Object.values(tokens)) expect(text).not.toContain(token);

    const second = await start({ persistTo });
    expect(second.control.app(app.clientId)).toEqual(first.control.app(app.clientId));
    expect((await readUser(second, tokens.accessToken)).status).toBe(200);
    expect((await refresh(second, app, tokens.refreshToken)).body['expires_in']).toBe(120);
    expect((await refresh(second, app, tokens.refreshToken)).status).toBe(400);
    await clock.advance(5 * MINUTE);
    await second.control.waitFor(({ outcome }) => outcome === 'delivered');
    expect(received).toHaveLength(2);
  });

  test('a rotation is in the file before its answer is sent', async () => {
    const persistTo = join(folder, 'sandbox.json');
    const first = await start({ persistTo });
    const app = createUserApp(first);
    const { refreshToken } = await connect(first, app, person(first, 'Ben'));
    const rotated = tokensOf(await refresh(first, app, refreshToken));
    const copy = await start({ persistTo });
    expect((await refresh(copy, app, rotated.refreshToken)).status).toBe(200);
  });
});
