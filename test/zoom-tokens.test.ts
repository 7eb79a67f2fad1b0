import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { gzipSync } from 'node:zlib';
import { Secret } from '../src/secret.js';
import {
  ZoomClientRejectedError,
  ZoomGrantInvalidError,
  ZoomRateLimitedError,
  ZoomRequestRefusedError,
  ZoomResponseInvalidError,
  ZoomUnavailableError,
} from '../src/zoom/errors.js';
import type { Zoom } from '../src/zoom/zoom.js';
import { answer, answerJson, startScriptedServer, type ScriptedServer, type Step } from './support/scripted-server.js';
import {
  CANARY,
  client,
  codeGrant,
  everythingShown,
  expectNothingLeaked,
  failureOf,
  goodTokens,
  refreshToken,
  zoomAt,
} from './support/zoom-client.js';

let server: ScriptedServer;
let zoom: Zoom & { close(): Promise<void> };

beforeAll(async () => {
  server = await startScriptedServer();
  zoom = zoomAt(server.origin);
});
beforeEach(() => {
  server.requests.length = 0;
});
afterAll(async () => {
  await zoom.close();
  await server.close();
});

const JSON_TYPE = { 'content-type': 'application/json' };

/** A good token answer with some members replaced; `undefined` leaves one out. */
const tokens = (changes: Record<string, unknown> = {}): Step => answerJson(200, { ...goodTokens, ...changes });

describe('authorization URL', () => {
  const url = () =>
    zoom.authorizationUrl({
      environment: 'COMMERCIAL',
      clientId: 'id&x=y',
      redirectUri: 'https://latchkey.example/oauth/callback/a+b?c=%20',
      state: new Secret('state-value'),
      codeChallenge: 'challenge',
    });

  it('carries the six parameters and no other, above all no scope', () => {
    expect(url().origin + url().pathname).toBe(`${server.origin}/oauth/authorize`);
    expect([...url().searchParams]).toEqual([
      ['response_type', 'code'],
      ['client_id', 'id&x=y'],
      ['redirect_uri', 'https://latchkey.example/oauth/callback/a+b?c=%20'],
      ['state', 'state-value'],
      ['code_challenge', 'challenge'],
      ['code_challenge_method', 'S256'],
    ]);
  });
});

describe('requests', () => {
  it('a code is exchanged with its verifier and redirect URI in the body and nothing in the URL', async () => {
    server.script(tokens());
    await zoom.exchangeCode(client, codeGrant);
    const [request] = server.requests;
    expect(request).toMatchObject({ method: 'POST', path: '/oauth/token' });
    expect(request?.headers['content-type']).toBe('application/x-www-form-urlencoded');
    expect(Object.fromEntries(new URLSearchParams(request?.body))).toEqual({
      grant_type: 'authorization_code',
      code: codeGrant.code.reveal(),
      redirect_uri: codeGrant.redirectUri,
      code_verifier: codeGrant.codeVerifier.reveal(),
    });
  });

  it('a refresh token travels in the body', async () => {
    server.script(tokens());
    await zoom.refresh(client, refreshToken);
    expect(server.requests[0]).toMatchObject({ method: 'POST', path: '/oauth/token' });
    expect(Object.fromEntries(new URLSearchParams(server.requests[0]?.body))).toEqual({
      grant_type: 'refresh_token',
      refresh_token: refreshToken.reveal(),
    });
  });

  it('an account token is asked for by account id', async () => {
    server.script(tokens());
    await zoom.mintAccountToken(client, 'acc_1');
    expect(Object.fromEntries(new URLSearchParams(server.requests[0]?.body))).toEqual({
      grant_type: 'account_credentials',
      account_id: 'acc_1',
    });
  });

  it('a token is revoked with the token in the body', async () => {
    server.script(answerJson(200, { status: 'success' }));
    await zoom.revoke(client, refreshToken);
    expect(server.requests[0]).toMatchObject({ method: 'POST', path: '/oauth/revoke' });
    expect(Object.fromEntries(new URLSearchParams(server.requests[0]?.body))).toEqual({ token: refreshToken.reveal() });
  });

  it.each([
    ['plain', 'abcXYZ_09-.', 's3cret', 'abcXYZ_09-.:s3cret'],
    ['colon, which would end the id', 'a:b', 'c:d', 'a%3Ab:c%3Ad'],
    ['percent, plus, ampersand, space', 'a%2B', 'p+q&r s=', 'a%252B:p%2Bq%26r+s%3D'],
    ['beyond ASCII', 'ü', '密🔑', '%C3%BC:%E5%AF%86%F0%9F%94%91'],
  ])('client credentials are form-encoded within Basic: %s', async (_name, clientId, secret, pair) => {
    server.script(tokens());
    await zoom.refresh({ environment: 'COMMERCIAL', clientId, clientSecret: new Secret(secret) }, refreshToken);
    const [scheme, encoded = ''] = server.requests[0]?.headers.authorization?.split(' ') ?? [];
    expect(scheme).toBe('Basic');
    expect(Buffer.from(encoded, 'base64').toString('utf8')).toBe(pair);
    expect(server.requests[0]?.body).not.toContain('client');
  });

  it('compressed answers are not asked for', async () => {
    server.script(tokens());
    await zoom.refresh(client, refreshToken);
    expect(server.requests[0]?.headers['accept-encoding']).toBe('identity');
  });
});

describe('good token answers', () => {
  it('become a token set of secrets', async () => {
    server.script(tokens());
    const set = await zoom.exchangeCode(client, codeGrant);
    expect(set.accessToken.reveal()).toBe(goodTokens.access_token);
    expect(set.refreshToken?.reveal()).toBe(goodTokens.refresh_token);
    expect(set).toMatchObject({
      tokenType: 'bearer',
      expiresInSeconds: 3600,
      scopes: ['user:read:user', 'meeting:read:meeting'],
      apiUrl: 'https://api-eu.zoom.us',
    });
    expect(JSON.stringify(set)).not.toContain('ZCANARY');
  });

  it.each<[string, Record<string, unknown>, Record<string, unknown>]>([
    ['token_type in any case', { token_type: 'BEARER' }, { tokenType: 'bearer' }],
    ['expires_in as digits in a string', { expires_in: '3600' }, { expiresInSeconds: 3600 }],
    ['expires_in of one second', { expires_in: 1 }, { expiresInSeconds: 1 }],
    ['expires_in above a day, cut to a day', { expires_in: 86_401 }, { expiresInSeconds: 86_400 }],
    ['expires_in beyond every integer, cut to a day', { expires_in: 1e300 }, { expiresInSeconds: 86_400 }],
    ['scope absent', { scope: undefined }, { scopes: [] }],
    ['scope null', { scope: null }, { scopes: [] }],
    ['scope empty', { scope: '' }, { scopes: [] }],
    ['scope with repeats and runs of spaces', { scope: ' b  a b ' }, { scopes: ['b', 'a'] }],
    ['unknown members', { id_token: 7, error: 'invalid_client', __proto__x: {} }, { tokenType: 'bearer' }],
  ])('are accepted with %s', async (_name, changes, expected) => {
    server.script(tokens(changes));
    expect(await zoom.refresh(client, refreshToken)).toMatchObject(expected);
  });

  it.each([
    ['no content type', {}],
    ['text/plain', { 'content-type': 'text/plain' }],
    ['text/json in capitals', { 'content-type': 'Text/JSON ; charset=utf-8' }],
    ['a +json type', { 'content-type': 'application/problem+json' }],
    ['content-encoding identity', { ...JSON_TYPE, 'content-encoding': 'identity' }],
  ])('are accepted with %s', async (_name, headers) => {
    server.script(answer(200, headers, JSON.stringify(goodTokens)));
    expect((await zoom.refresh(client, refreshToken)).expiresInSeconds).toBe(3600);
  });

  it('are accepted with a byte order mark', async () => {
    server.script(answer(200, JSON_TYPE, `\u{feff}${JSON.stringify(goodTokens)}`));
    expect((await zoom.refresh(client, refreshToken)).expiresInSeconds).toBe(3600);
  });

  it.each([[undefined], [null]])('of a refresh without a refresh token (%s) leave the former in use', async (value) => {
    server.script(tokens({ refresh_token: value }));
    const set = await zoom.refresh(client, refreshToken);
    expect(set.refreshToken).toBeNull();
    expect(set.accessToken.reveal()).toBe(goodTokens.access_token);
  });

  it('of an account token never carry a refresh token, not even one that was sent', async () => {
    server.script(tokens(), tokens({ refresh_token: undefined }), tokens({ refresh_token: 7 }));
    for (let i = 0; i < 3; i += 1) {
      expect((await zoom.mintAccountToken(client, 'acc_1')).refreshToken).toBeNull();
    }
  });
});

describe('malformed token answers', () => {
  const raw = (body: string | Uint8Array, headers: Record<string, string> = JSON_TYPE): Step =>
    answer(200, headers, body);
  const page = `<html>${CANARY}</html>`;

  const malformed: [string, Step, string][] = [
    ['nothing', raw(''), 'empty'],
    ['white space', raw(' \n'), 'empty'],
    ['a page', raw(page, { 'content-type': 'text/html' }), 'content type is not JSON'],
    ['a page that says it is JSON', raw(page), 'not JSON'],
    ['a page without content type', raw(page, {}), 'not JSON'],
    [
      'good JSON that says it is a page',
      raw(JSON.stringify(goodTokens), { 'content-type': 'text/html' }),
      'content type is not JSON',
    ],
    ['XML', raw(`<t>${CANARY}</t>`, { 'content-type': 'application/xml' }), 'content type is not JSON'],
    ['truncated JSON', raw(JSON.stringify(goodTokens).slice(0, -9)), 'not JSON'],
    ['form encoding', raw(`access_token=${CANARY}&expires_in=3600`), 'not JSON'],
    ['JSON with a tail', raw(`${JSON.stringify(goodTokens)}${CANARY}`), 'not JSON'],
    [
      'not UTF-8',
      raw(Buffer.concat([Buffer.from(`{"access_token":"${CANARY}`), Buffer.from([0xff, 0xfe])])),
      'not UTF-8',
    ],
    ['UTF-16', raw(Buffer.from(JSON.stringify(goodTokens), 'utf16le')), 'not JSON'],
    ['an array', raw(JSON.stringify([goodTokens])), 'not a JSON object'],
    ['null', raw('null'), 'not a JSON object'],
    ['a string', raw(JSON.stringify(CANARY)), 'not a JSON object'],
    ['more than 64 KiB', raw(JSON.stringify({ ...goodTokens, pad: CANARY.repeat(6_000) })), 'too long'],
    ['gzip', raw(gzipSync(JSON.stringify(goodTokens)), { ...JSON_TYPE, 'content-encoding': 'gzip' }), 'compressed'],
    ['no access_token', tokens({ access_token: undefined }), 'access_token is missing or malformed'],
    ['null access_token', tokens({ access_token: null }), 'access_token is missing or malformed'],
    ['empty access_token', tokens({ access_token: '' }), 'access_token is missing or malformed'],
    ['access_token as object', tokens({ access_token: { value: CANARY } }), 'access_token is missing or malformed'],
    [
      'access_token with a line break',
      tokens({ access_token: `${CANARY}\r\nx: y` }),
      'access_token is missing or malformed',
    ],
    ['access_token beyond ASCII', tokens({ access_token: `${CANARY}é` }), 'access_token is missing or malformed'],
    ['no token_type', tokens({ token_type: undefined }), 'token_type is not bearer'],
    ['token_type mac', tokens({ token_type: 'mac' }), 'token_type is not bearer'],
    ['token_type as array', tokens({ token_type: ['bearer'] }), 'token_type is not bearer'],
    ['no expires_in', tokens({ expires_in: undefined }), 'expires_in is not a positive whole number'],
    ['expires_in null', tokens({ expires_in: null }), 'expires_in is not a positive whole number'],
    ['expires_in 0', tokens({ expires_in: 0 }), 'expires_in is not a positive whole number'],
    ['expires_in negative', tokens({ expires_in: -3600 }), 'expires_in is not a positive whole number'],
    ['expires_in a fraction', tokens({ expires_in: 3599.5 }), 'expires_in is not a positive whole number'],
    ['expires_in true', tokens({ expires_in: true }), 'expires_in is not a positive whole number'],
    [
      'expires_in 1e400',
      raw(JSON.stringify(goodTokens).replace('3600', '1e400')),
      'expires_in is not a positive whole number',
    ],
    ['expires_in NaN', raw(JSON.stringify(goodTokens).replace('3600', 'NaN')), 'not JSON'],
    ['expires_in "1e3"', tokens({ expires_in: '1e3' }), 'expires_in is not a positive whole number'],
    ['expires_in " 3600"', tokens({ expires_in: ' 3600' }), 'expires_in is not a positive whole number'],
    ['expires_in "0"', tokens({ expires_in: '0' }), 'expires_in is not a positive whole number'],
    ['expires_in ""', tokens({ expires_in: '' }), 'expires_in is not a positive whole number'],
    ['scope as array', tokens({ scope: [CANARY] }), 'scope is not a string'],
    ['scope as number', tokens({ scope: 7 }), 'scope is not a string'],
    ['scope with a line break', tokens({ scope: `${CANARY}\nx` }), 'scope is malformed'],
    ['empty refresh_token', tokens({ refresh_token: '' }), 'refresh_token is missing or malformed'],
    ['refresh_token as number', tokens({ refresh_token: 7 }), 'refresh_token is missing or malformed'],
    [
      'an error with status 200',
      answerJson(200, { error: 'invalid_grant', reason: CANARY }),
      'access_token is missing or malformed',
    ],
    ['an empty answer without content', answer(204, {}), 'empty'],
  ];

  it.each(malformed)('%s: refused by its rule, for a refresh', async (_name, step, rule) => {
    server.script(step);
    const error = await failureOf(zoom.refresh(client, refreshToken));
    expect(error).toBeInstanceOf(ZoomResponseInvalidError);
    expect((error as ZoomResponseInvalidError).rule).toBe(rule);
    expectNothingLeaked(error);
    expect(server.requests).toHaveLength(1);
  });

  it.each([[undefined], [null]])('a code exchange without a refresh token (%s) is refused', async (value) => {
    server.script(tokens({ refresh_token: value }));
    const error = await failureOf(zoom.exchangeCode(client, codeGrant));
    expect(error).toMatchObject({ name: 'ZoomResponseInvalidError', rule: 'refresh_token is missing or malformed' });
    expectNothingLeaked(error);
  });

  it('the leak check would catch an error that quotes its answer', async () => {
    const naive = await failureOf(Promise.resolve(`<html>${CANARY}`).then((text) => JSON.parse(text) as unknown));
    expect(everythingShown(naive)).toContain('ZCANARY');
    expect(() => expectNothingLeaked(new Error('x', { cause: { body: CANARY } }))).toThrow();
  });
});

describe('failures', () => {
  const rejected = new ZoomGrantInvalidError('REJECTED');
  const refused = (status: number) => new ZoomRequestRefusedError(status);
  const html = (status: number): Step => answer(status, { 'content-type': 'text/html' }, `<p>invalid_grant ${CANARY}`);

  const cases: [string, Step, Error][] = [
    ['400 invalid_client', answerJson(400, { error: 'invalid_client', reason: CANARY }), new ZoomClientRejectedError()],
    ['401 invalid_client', answerJson(401, { error: 'invalid_client' }), new ZoomClientRejectedError()],
    ['503 invalid_client', answerJson(503, { error: 'invalid_client' }), new ZoomClientRejectedError()],
    ['200 invalid_client', answerJson(200, { error: 'invalid_client' }), new ZoomClientRejectedError()],
    ['400 number 4717', answerJson(400, { code: 4717, reason: CANARY }), new ZoomClientRejectedError()],
    ['400 number 4702', answerJson(400, { errorCode: 4702 }), new ZoomClientRejectedError()],
    ['401 number 4704', answerJson(401, { code: '4704' }), new ZoomClientRejectedError()],
    ['400 number 4706', answerJson(400, { code: 4706, error: 'invalid_grant' }), new ZoomClientRejectedError()],
    ['400 invalid_grant', answerJson(400, { error: 'invalid_grant' }), rejected],
    ['400 invalid_grant with reason', answerJson(400, { error: 'invalid_grant', reason: 'Invalid Token!' }), rejected],
    ['401 invalid_grant', answerJson(401, { error: 'invalid_grant', reason: CANARY }), rejected],
    ['401 in the old form', answerJson(401, { error: 'invalid_request', reason: 'Invalid Token!' }), rejected],
    ['400 number 4733', answerJson(400, { code: 4733 }), new ZoomGrantInvalidError('EXPIRED')],
    ['400 number 4735', answerJson(400, { errorCode: 4735 }), new ZoomGrantInvalidError('USER_REMOVED')],
    ['400 number 4737', answerJson(400, { code: 4737 }), rejected],
    ['403 number 4738', answerJson(403, { code: 4738 }), new ZoomGrantInvalidError('DISABLED_BY_ADMIN')],
    ['400 number 4740', answerJson(400, { code: 4740 }), rejected],
    [
      '400 number 4741',
      answerJson(400, { code: 4741, error: 'invalid_grant' }),
      new ZoomGrantInvalidError('SUPERSEDED'),
    ],
    ['400 number 4732', answerJson(400, { code: 4732 }), new ZoomUnavailableError('answered')],
    ['400 invalid_request', answerJson(400, { error: 'invalid_request', reason: 'Bad Request' }), refused(400)],
    ['400 near the old form', answerJson(400, { error: 'invalid_request', reason: 'Invalid token' }), refused(400)],
    ['400 unsupported_grant_type', answerJson(400, { error: 'unsupported_grant_type' }), refused(400)],
    ['400 page naming invalid_grant', html(400), refused(400)],
    ['401 page', html(401), refused(401)],
    [
      '400 JSON that says it is a page',
      answer(400, { 'content-type': 'text/html' }, '{"error":"invalid_grant"}'),
      refused(400),
    ],
    [
      '400 with an overlong body',
      answer(400, JSON_TYPE, `{"error":"invalid_grant","x":"${'x'.repeat(70_000)}"}`),
      refused(400),
    ],
    ['400 without body', answer(400, {}), refused(400)],
    ['403 invalid_grant', answerJson(403, { error: 'invalid_grant' }), refused(403)],
    ['404', html(404), refused(404)],
    ['400 invalid_grant as array', answerJson(400, [{ error: 'invalid_grant' }]), refused(400)],
    ['400 error as array', answerJson(400, { error: ['invalid_grant'] }), refused(400)],
    ['408', answer(408, {}), new ZoomUnavailableError('unanswered')],
    ['429', answerJson(429, { error: 'invalid_grant', message: CANARY }), new ZoomRateLimitedError(null)],
    ['429 with Retry-After', answer(429, { 'retry-after': '7' }), new ZoomRateLimitedError(7)],
    [
      '500 naming invalid_grant',
      answerJson(500, { error: 'invalid_grant', code: 4741 }),
      new ZoomUnavailableError('answered'),
    ],
    ['502 page', html(502), new ZoomUnavailableError('unanswered')],
    ['503 with Retry-After', answer(503, { 'retry-after': '9' }), new ZoomUnavailableError('answered', 9)],
    ['503 with an overlong body', answer(503, {}, 'x'.repeat(200_000)), new ZoomUnavailableError('answered')],
  ];

  it.each(cases)('%s has its one meaning for every grant', async (_name, step, expected) => {
    const attempts = [
      () => zoom.exchangeCode(client, codeGrant),
      () => zoom.refresh(client, refreshToken),
      () => zoom.mintAccountToken(client, `${CANARY}_account`),
    ];
    for (const attempt of attempts) {
      server.script(step);
      const error = await failureOf(attempt());
      expect(error).toBeInstanceOf(expected.constructor);
      expect({ ...error }).toEqual({ ...expected });
      expectNothingLeaked(error);
    }
    expect(server.requests).toHaveLength(3);
  });

  it('a refused code is a dead grant in the form without an OAuth error too, but only for a code', async () => {
    const step = answerJson(400, { error: 'invalid_request', reason: `Invalid authorization code ${CANARY}` });
    server.script(step, step);
    const error = await failureOf(zoom.exchangeCode(client, codeGrant));
    expect(error).toMatchObject({ name: 'ZoomGrantInvalidError', rejection: 'REJECTED' });
    expectNothingLeaked(error);
    expect(await failureOf(zoom.refresh(client, refreshToken))).toBeInstanceOf(ZoomRequestRefusedError);
  });
});

describe('revocation', () => {
  it.each<[string, Step]>([
    ['success', answerJson(200, { status: 'success' })],
    ['success without a body', answer(200, {})],
    ['invalid_grant', answerJson(400, { error: 'invalid_grant' })],
    ['invalid_token', answerJson(400, { error: 'invalid_token', reason: 'Token not found' })],
    ['Invalid Token!', answerJson(400, { error: 'invalid_request', reason: 'Invalid Token!' })],
    ['Invalid access token.', answerJson(400, { error: 'invalid_request', reason: 'Invalid access token.' })],
    ['a token superseded', answerJson(400, { code: 4741 })],
  ])('is done when Zoom answers: %s', async (_name, step) => {
    server.script(step);
    await expect(zoom.revoke(client, refreshToken)).resolves.toBeUndefined();
  });

  it.each<[string, Step, string]>([
    ['invalid_client', answerJson(400, { error: 'invalid_client' }), 'ZoomClientRejectedError'],
    ['invalid_client with 200', answerJson(200, { error: 'invalid_client' }), 'ZoomClientRejectedError'],
    [
      'invalid_request',
      answerJson(400, { error: 'invalid_request', reason: 'Bad Request' }),
      'ZoomRequestRefusedError',
    ],
    ['a page', answer(400, { 'content-type': 'text/html' }, 'Invalid Token!'), 'ZoomRequestRefusedError'],
    ['429', answer(429, {}), 'ZoomRateLimitedError'],
    ['503', answer(503, {}), 'ZoomUnavailableError'],
    ['a redirect', answer(302, { location: '/' }), 'ZoomResponseInvalidError'],
  ])('is not done when Zoom answers: %s', async (_name, step, name) => {
    server.script(step);
    const error = await failureOf(zoom.revoke(client, refreshToken));
    expect(error.name).toBe(name);
    expectNothingLeaked(error);
  });
});
