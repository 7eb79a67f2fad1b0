import { describe, expect, test } from 'vitest';
import {
  askForTokens,
  type CertifiedApp,
  connectAt,
  createClientSecret,
  requestsOf,
  secretsOf,
  startWithCertifiedServer,
} from './support/certified-story.js';
import { disconnect, endWait, events, expire, health, meStatus, read, stored } from './support/connections.js';
import { until } from './support/until.js';

const { server, certified } = await startWithCertifiedServer();

describe('refreshing at a certified authorization server', () => {
  test('an expired token is refreshed once, and each refresh token is used once', async () => {
    const connection = await connectAt(server, certified);
    for (const version of [2, 3, 4]) {
      await expire(server, connection);
      const answer = await read(server, connection);
      expect(answer).toMatchObject({ __typename: 'Credential', version, warning: null });
      expect(await meStatus(answer)).toBe(200);
      expect(await read(server, connection)).toMatchObject({ accessToken: answer.accessToken, version });
    }
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual(['done', 'done', 'done']);
    expect(new Set(secretsOf(certified, connection, 'refresh token')).size).toBe(4);
    expect(await events(server, connection)).toEqual(['CONNECTED']);
  });

  test('a refresh token that was rotated is dead there, and using it ends the grant, which costs one call', async () => {
    const connection = await connectAt(server, certified);
    await expire(server, connection);
    const answer = await read(server, connection);
    const [old = ''] = secretsOf(certified, connection, 'refresh token');
    const reuse = { grant_type: 'refresh_token', refresh_token: old };
    expect(await askForTokens(certified, connection.app, reuse)).toMatchObject({ status: 400, error: 'invalid_grant' });
    expect(await meStatus(answer)).toBe(401);

    await expire(server, connection);
    const ended = {
      __typename: 'ReauthorizationRequiredError',
      reason: 'GRANT_REJECTED',
      grant: { id: connection.id },
    };
    expect(await read(server, connection)).toMatchObject(ended);
    expect(await read(server, connection)).toMatchObject(ended);
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual([
      'done',
      'invalid_grant: refresh token already used',
      'invalid_grant: refresh token not found',
    ]);
    expect(await events(server, connection)).toEqual(['CONNECTED', 'GRANT_REJECTED']);
  });

  test('a hundred readers of an expired token cause one refresh and get the same new token', async () => {
    const connection = await connectAt(server, certified);
    await expire(server, connection);
    const answers = await Promise.all(Array.from({ length: 100 }, () => read(server, connection)));
    const [first] = answers;
    expect(first).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    for (const answer of answers) expect(answer).toEqual(first);
    expect(await meStatus(first)).toBe(200);
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual(['done']);
  });

  test('a rotation whose answer is lost costs the connection, after exactly one more call and with one event', async () => {
    const connection = await connectAt(server, certified);
    await expire(server, connection);
    certified.loseNextAnswer(connection.app.clientId);
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(await stored(server, connection)).toMatchObject({ version: 1, state: 'IN_DOUBT' });
    expect(await read(server, connection)).toMatchObject({ __typename: 'ProviderUnavailableError' });
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual(['done']);

    await endWait(server, connection);
    const ended = { __typename: 'ReauthorizationRequiredError', reason: 'ROTATION_LOST', grant: { id: connection.id } };
    expect(await read(server, connection)).toMatchObject(ended);
    expect(await read(server, connection)).toMatchObject(ended);
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual([
      'done',
      'invalid_grant: refresh token already used',
    ]);
    expect(await events(server, connection)).toEqual(['CONNECTED', 'ROTATION_LOST']);

    const again = await connectAt(server, certified, connection);
    expect(again.id).toBe(connection.id);
    expect(await meStatus(await read(server, connection))).toBe(200);
    expect(await events(server, connection)).toEqual(['CONNECTED', 'ROTATION_LOST', 'CONNECTED']);
  });

  test('a client secret that it refuses is an incident of the app, harms no grant, and heals with the new one', async () => {
    const connection = await connectAt(server, certified);
    const { app } = connection;
    const clientSecret = createClientSecret();
    await certified.saveClient({ ...app, clientSecret });
    await expire(server, connection);
    const refused = { __typename: 'ProviderUnavailableError', reason: 'APP_REJECTED' };
    expect(await read(server, connection)).toMatchObject(refused);
    expect(await read(server, connection)).toMatchObject(refused);
    expect(requestsOf(certified, connection, 'refresh_token')).toEqual(['invalid_client: invalid secret provided']);
    expect(await incidentOf(app)).toMatchObject({ reason: 'APP_REJECTED', affectedGrants: 1 });
    expect(await health(server, connection)).toBe('HEALTHY CONNECTED');

    await updateSecret(app, clientSecret);
    const answer = await read(server, connection);
    expect(answer).toMatchObject({ __typename: 'Credential', version: 2, warning: null });
    expect(await meStatus(answer)).toBe(200);
    expect(await incidentOf(app)).toBeNull();
    expect(await events(server, connection)).toEqual(['CONNECTED']);
  });
});

describe('ending at a certified authorization server', () => {
  test('disconnecting revokes the access token and the refresh token there', async () => {
    const connection = await connectAt(server, certified);
    await expire(server, connection);
    const answer = await read(server, connection);
    expect(await meStatus(answer)).toBe(200);
    expect(await disconnect(server, connection)).toEqual({ status: 'REVOKED', reason: 'DISCONNECTED' });
    await until(() => requestsOf(certified, connection, 'revocation').length > 0);
    expect(await meStatus(answer)).toBe(401);
    const [refreshToken = ''] = secretsOf(certified, connection, 'refresh token').slice(-1);
    const late = { grant_type: 'refresh_token', refresh_token: refreshToken };
    expect(await askForTokens(certified, connection.app, late)).toMatchObject({ status: 400, error: 'invalid_grant' });
    expect(requestsOf(certified, connection, 'revocation')).toEqual(['done']);
    expect(await read(server, connection)).toMatchObject({ reason: 'DISCONNECTED' });
  });
});

async function updateSecret({ id }: CertifiedApp, clientSecret: string): Promise<void> {
  const { updateProviderApp } = await server.data(
    `mutation ($input: UpdateProviderAppInput!) {
      updateProviderApp(input: $input) { ... on UpdateProviderAppSuccess { providerApp { id } } ... on Error { message } }
    }`,
    { input: { id, clientSecret } },
  );
  expect(updateProviderApp).toEqual({ providerApp: { id } });
}

async function incidentOf({ id }: CertifiedApp) {
  const { providerApp } = await server.data(
    `query ($id: ID!) { providerApp(id: $id) { incident { reason affectedGrants } } }`,
    { id },
  );
  return providerApp.incident;
}
