import { setTimeout as sleep } from 'node:timers/promises';
import type { Connections } from './connecting.js';
import { createGraphQLClient, OperationRefusedError } from './graphql-client.js';
import { expectEqual, type Report, UnexpectedError } from './report.js';
import {
  ALERT_FIELDS,
  type Alert,
  callZoom,
  expectAlert,
  expectType,
  PRODUCT,
  type Props,
  readCredential,
  type Stage,
} from './stage.js';
import { completeTrip, connect, takeTrip } from './trip.js';

const REVOCATION_PATIENCE_MS = 8_000;

/** Wrong things are refused by name; connections end here and at Zoom, and whoever watches is told. */
export async function playEnding(stage: Stage, props: Props, made: Connections, report: Report): Promise<void> {
  await report.step('Wrong things get typed answers', (tell) => tryWrongThings(stage, props, made, tell));
  await report.step('The user is disconnected here', (tell) => disconnectUser(stage, props, made, tell));
  await report.step('Another user connects, and removes the app at Zoom', (tell) => removeAtZoom(stage, props, tell));
  await report.step('The stored events are what the subscription told', (tell) => compareEvents(stage, props, tell));
}

async function tryWrongThings(
  stage: Stage,
  { tenantId, userApp, cast }: Props,
  { spent }: Connections,
  tell: (line: string) => void,
): Promise<void> {
  const user = { tenantId, credentialFor: 'USER' };
  const unknown = await readCredential(stage, { ...user, userId: 'user_nobody' });
  expectType('credential of an unknown user', unknown, 'GrantNotFoundError');
  tell('credential of an unknown user → GrantNotFoundError');

  const greedy = await readCredential(stage, { ...user, userId: 'user_1', requiredScopes: ['meeting:write:meeting'] });
  expectType('credential with a scope that was not granted', greedy, 'MissingScopesError');
  tell(`a scope that was not granted → MissingScopesError (${greedy.missingScopes?.join(' ')})`);

  const elsewhere = { tenantId, userId: 'user_1', appId: userApp.id, returnTo: 'https://elsewhere.example/' };
  const astray = await stage.latchkey.mutate('beginAuthorization', elsewhere, 'authorizationSession { id }');
  expectType('a return address of nobody', astray, 'InvalidInputError');
  tell(`returnTo outside of ${PRODUCT} → InvalidInputError`);

  const again = await completeTrip(stage, spent, 'user_1');
  expectType('a connect code that is spent', again, 'NotFoundError');
  tell('a connect code used twice → NotFoundError');

  const trip = { field: 'beginAuthorization', app: userApp, tenantId, userId: 'user_2', as: cast.cleo } as const;
  const denied = await takeTrip(stage, trip, 'deny');
  expectEqual('connectError', denied.connectError, 'DENIED_BY_USER');
  tell('consent denied → the browser comes back with connectError=DENIED_BY_USER');

  const stranger = createGraphQLClient(stage.url, 'not-a-key-of-this-server-at-all-00');
  const refusal = await stranger.run('{ viewer { kind } }').catch((error: unknown) => error);
  if (!(refusal instanceof OperationRefusedError))
    throw new UnexpectedError('a wrong key', 'a refusal', 'something else');
  expectEqual('a wrong key', `${refusal.status} ${refusal.code}`, '401 UNAUTHENTICATED');
  tell('a wrong server key → HTTP 401, UNAUTHENTICATED');
}

async function disconnectUser(
  stage: Stage,
  props: Props,
  { userConnectionId }: Connections,
  tell: (line: string) => void,
): Promise<void> {
  const input = { tenantId: props.tenantId, credentialFor: 'USER', userId: 'user_1' };
  const held = expectType('credential', await readCredential(stage, input), 'Credential');
  const since = performance.now();
  const revoked = await stage.latchkey.mutate<{ userConnection: { health: { status: string } } }>(
    'revokeUserConnection',
    { id: userConnectionId },
    'userConnection { health { status } }',
  );
  const { userConnection } = expectType('revokeUserConnection', revoked, 'RevokeUserConnectionSuccess');
  expectEqual('health of the ended connection', userConnection.health.status, 'REVOKED');
  tell(await expectAlert(props, userConnectionId, { current: 'REVOKED', reason: 'DISCONNECTED', since }));
  await expectEnded(stage, input, 'DISCONNECTED', tell);

  let status: number;
  do {
    await sleep(50);
    ({ status } = await callZoom(held));
  } while (status === 200 && performance.now() - since < REVOCATION_PATIENCE_MS);
  expectEqual('what Zoom says to the token of the ended connection', status, 401);
  tell('the last token: revoked at Zoom too, which answers 401');
}

async function removeAtZoom(stage: Stage, props: Props, tell: (line: string) => void): Promise<void> {
  const { cast, userApp, tenantId } = props;
  const trip = { field: 'beginAuthorization', app: userApp, tenantId, userId: 'user_2', as: cast.cleo } as const;
  const begun = performance.now();
  const grant = await connect(stage, trip);
  tell(await expectAlert(props, grant.id, { current: 'HEALTHY', reason: 'CONNECTED', since: begun }));
  const since = performance.now();
  await stage.zoom.removeApp(userApp.clientId, cast.cleo.id);
  tell(`${cast.cleo.displayName} removes the app; Zoom sends a signed app_deauthorized`);
  tell(await expectAlert(props, grant.id, { current: 'REVOKED', reason: 'DEAUTHORIZED_AT_PROVIDER', since }));
  await expectEnded(stage, { tenantId, credentialFor: 'USER', userId: 'user_2' }, 'DEAUTHORIZED_AT_PROVIDER', tell);
}

async function expectEnded(
  stage: Stage,
  input: Record<string, unknown>,
  reason: string,
  tell: (line: string) => void,
): Promise<void> {
  const answer = expectType('credential', await readCredential(stage, input), 'ReauthorizationRequiredError');
  expectEqual('reason', answer.reason, reason);
  tell(`credential → ReauthorizationRequiredError (${reason})`);
}

async function compareEvents(stage: Stage, { tenantId, alerts }: Props, tell: (line: string) => void): Promise<void> {
  const { healthEvents } = await stage.latchkey.run<{ healthEvents: { edges: { node: Alert }[] } }>(
    `query ($tenantId: String!) {
      healthEvents(first: 100, filter: { tenantId: $tenantId }) { edges { node { ${ALERT_FIELDS} } } }
    }`,
    { tenantId },
  );
  const lineOf = ({ cursor, current, reason }: Alert) => `${cursor} ${current} ${reason}`;
  const stored = healthEvents.edges.map(({ node }) => lineOf(node));
  const told = alerts.inbox.items.map(({ healthChanged }) => lineOf(healthChanged));
  expectEqual('events', told.join(', '), stored.join(', '));
  tell(`${stored.length} events, in the same order, none missing and none twice`);
}
