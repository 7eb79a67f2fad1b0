import { createHash, randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import {
  askForTokens,
  beginAt,
  type CertifiedApp,
  connectAt,
  consentAt,
  registerCertifiedApp,
  requestsOf,
  secretsOf,
  startOf,
  startWithCertifiedServer,
} from './support/certified-story.js';
import { expire, health, meStatus, read } from './support/connections.js';
import { begin, comeBack, complete, createTenant, credential, USER_SCOPES } from './support/story.js';
import { until } from './support/until.js';

const { server, certified } = await startWithCertifiedServer();

describe('through a certified authorization server', () => {
  test('an admin installs and a user authorizes, and the backend gets tokens that it accepts', async () => {
    const tenantId = await createTenant(server);
    const [admin, member] = [certified.createPerson(), certified.createPerson()];
    const app = await registerCertifiedApp(server, certified, 'ADMIN_MANAGED');
    const trip = await begin(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: app.id });
    const { connectCode } = await comeBack(trip, await consentAt(await startOf(trip), admin));
    expect(await complete(server, connectCode, 'admin_1')).toMatchObject({
      status: 'COMPLETED',
      grant: { __typename: 'Installation', providerAccountId: admin.accountId, health: { reason: 'CONNECTED' } },
    });
    const connection = await connectAt(server, certified, { tenantId, person: member });
    expect(connection.session).toMatchObject({
      grant: { __typename: 'UserConnection', credentialInfo: { version: 1 } },
    });

    for (const [input, person] of [
      [{ tenantId, credentialFor: 'INSTALLATION' }, admin],
      [connection.input, member],
    ] as const) {
      const answer = await credential(server, input);
      expect(answer).toMatchObject({ __typename: 'Credential', tokenType: 'Bearer', version: 1, warning: null });
      expect(await identityBehind(answer)).toBe(person.id);
    }
    expect(requestsOf(certified, { app })).toEqual(['authorization_code done']);
    expect(requestsOf(certified, connection)).toEqual(['authorization_code done']);
  });

  test('no scope is asked for, and what the server then names is what is stored as granted', async () => {
    const { trip, userId, tenantId } = await beginAt(server, certified);
    const authorizeUrl = await startOf(trip);
    expect([...authorizeUrl.searchParams.keys()].sort()).toEqual([
      'client_id',
      'code_challenge',
      'code_challenge_method',
      'redirect_uri',
      'response_type',
      'state',
    ]);
    const person = certified.createPerson();
    const { connectCode } = await comeBack(trip, await consentAt(authorizeUrl, person));
    const session = await complete(server, connectCode, userId);
    expect(session.grant).toMatchObject({
      grantedScopes: USER_SCOPES.map((name) => ({ name })),
      missingScopes: [],
      health: { status: 'HEALTHY' },
    });
    const answer = await credential(server, { tenantId, credentialFor: 'USER', userId });
    expect(answer.scopes).toEqual(USER_SCOPES);
  });

  test('a scope that the user withholds is told as missing, also after a refresh', async () => {
    const [kept = '', withheld = ''] = USER_SCOPES;
    const person = certified.createPerson({ withholds: [withheld] });
    const connection = await connectAt(server, certified, { person });
    expect(connection.session.grant).toMatchObject({
      grantedScopes: [{ name: kept }],
      missingScopes: [{ name: withheld }],
      health: { status: 'DEGRADED', reason: 'SCOPES_MISSING' },
    });
    await expire(server, connection);
    expect(await read(server, connection)).toMatchObject({ version: 2, scopes: [kept] });
    expect(await read(server, connection, { requiredScopes: [withheld] })).toMatchObject({
      __typename: 'MissingScopesError',
      missingScopes: [withheld],
    });
    expect(await health(server, connection)).toBe('DEGRADED SCOPES_MISSING');
  });

  test('the issuer that it names at the callback (RFC 9207) disturbs neither a consent nor a refusal', async () => {
    const consented = await beginAt(server, certified);
    const callback = await consentAt(await startOf(consented.trip), certified.createPerson());
    expect(new URL(callback).searchParams.get('iss')).toBe(certified.origin);
    expect((await comeBack(consented.trip, callback)).connectCode).not.toBeNull();

    const denied = await beginAt(server, certified);
    const refusal = await consentAt(await startOf(denied.trip), certified.createPerson({ withholds: USER_SCOPES }));
    expect(Object.fromEntries(new URL(refusal).searchParams)).toMatchObject({
      error: 'access_denied',
      iss: certified.origin,
    });
    expect(await comeBack(denied.trip, refusal)).toEqual({ connectCode: null, connectError: 'DENIED_BY_USER' });
    expect(requestsOf(certified, denied)).toEqual([]);
  });

  test('PKCE can neither be left out nor weakened there, and a flipped verifier is refused', async () => {
    const app = await registerCertifiedApp(server, certified);
    const verifier = randomBytes(32).toString('base64url');
    const challenge = createHash('sha256').update(verifier).digest('base64url');
    expect(await authorize(app, {})).toMatchObject({ error: 'invalid_request' });
    expect(await authorize(app, { code_challenge: verifier, code_challenge_method: 'plain' })).toMatchObject({
      error: 'invalid_request',
    });

    const { code = '' } = await authorize(app, { code_challenge: challenge, code_challenge_method: 'S256' });
    const request = { grant_type: 'authorization_code', code, redirect_uri: app.redirectUri };
    const flipped = `${verifier.startsWith('A') ? 'B' : 'A'}${verifier.slice(1)}`;
    expect(await askForTokens(certified, app, request)).toMatchObject({ status: 400, error: 'invalid_grant' });
    expect(await askForTokens(certified, app, { ...request, code_verifier: flipped })).toMatchObject({
      status: 400,
      error: 'invalid_grant',
    });
    expect((await askForTokens(certified, app, { ...request, code_verifier: verifier })).status).toBe(200);
  });

  test('a code that was seen on its way is worth nothing there without the verifier that Latchkey keeps', async () => {
    const { trip, app, userId } = await beginAt(server, certified);
    const callback = await consentAt(await startOf(trip), certified.createPerson());
    const stolen = {
      grant_type: 'authorization_code',
      code: new URL(callback).searchParams.get('code') ?? '',
      redirect_uri: app.redirectUri,
    };
    const guess = { ...stolen, code_verifier: randomBytes(32).toString('base64url') };
    expect(await askForTokens(certified, app, guess)).toMatchObject({ status: 400, error: 'invalid_grant' });
    const { connectCode } = await comeBack(trip, callback);
    expect(await complete(server, connectCode, userId)).toMatchObject({ status: 'COMPLETED' });
  });

  test('a code is sent once, whether completed twice at once, again later, or without an answer', async () => {
    const { trip, app, userId } = await beginAt(server, certified);
    const { connectCode } = await comeBack(trip, await consentAt(await startOf(trip), certified.createPerson()));
    const both = await Promise.all([complete(server, connectCode, userId), complete(server, connectCode, userId)]);
    const outcomes = both.map((answer) => answer.status ?? answer.__typename);
    expect(new Set(outcomes)).toEqual(new Set(['COMPLETED', 'NotFoundError']));
    expect(await complete(server, connectCode, userId)).toMatchObject({ __typename: 'NotFoundError' });
    expect(requestsOf(certified, { app })).toEqual(['authorization_code done']);

    const lost = await beginAt(server, certified);
    const back = await comeBack(lost.trip, await consentAt(await startOf(lost.trip), certified.createPerson()));
    certified.loseNextAnswer(lost.app.clientId);
    const failed = { status: 'FAILED', failure: 'PROVIDER_UNAVAILABLE' };
    expect(await complete(server, back.connectCode, userId)).toMatchObject(failed);
    expect(await complete(server, back.connectCode, userId)).toMatchObject({ __typename: 'NotFoundError' });
    expect(requestsOf(certified, lost)).toEqual(['authorization_code done']);
  });

  test("tokens of an account that is not the tenant's are refused, and revoked there", async () => {
    const tenantId = await createTenant(server);
    const installer = await registerCertifiedApp(server, certified, 'ADMIN_MANAGED');
    const installing = await begin(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: installer.id });
    const back = await comeBack(installing, await consentAt(await startOf(installing), certified.createPerson()));
    expect(await complete(server, back.connectCode, 'admin_1')).toMatchObject({ status: 'COMPLETED' });

    const { trip, app, userId } = await beginAt(server, certified, { tenantId });
    const stranger = certified.createPerson({ accountId: 'another-account' });
    const { connectCode } = await comeBack(trip, await consentAt(await startOf(trip), stranger));
    const refused = { status: 'FAILED', failure: 'ACCOUNT_MISMATCH' };
    expect(await complete(server, connectCode, userId)).toMatchObject(refused);
    await until(() => requestsOf(certified, { app }, 'revocation').length > 0);
    expect(requestsOf(certified, { app })).toEqual(['authorization_code done', 'revocation done']);
    for (const accessToken of secretsOf(certified, { app }, 'access token'))
      expect(await accepts(accessToken)).toBe(false);
  });
});

/** What the authorization endpoint answers a request of the app's with these PKCE parameters. */
async function authorize(app: CertifiedApp, pkce: Record<string, string>): Promise<Record<string, string>> {
  const url = new URL('/oauth/authorize', certified.origin);
  const { clientId, redirectUri } = app;
  const request = { response_type: 'code', client_id: clientId, redirect_uri: redirectUri, state: 'state', ...pkce };
  url.search = new URLSearchParams(request).toString();
  return Object.fromEntries(new URL(await consentAt(url, certified.createPerson())).searchParams);
}

async function identityBehind({ apiUrl, accessToken }: { apiUrl: string; accessToken: string }): Promise<string> {
  const me = await fetch(`${apiUrl}/v2/users/me`, { headers: { authorization: `Bearer ${accessToken}` } });
  return ((await me.json()) as { id: string }).id;
}

const accepts = async (accessToken: string) => (await meStatus({ apiUrl: certified.origin, accessToken })) === 200;
