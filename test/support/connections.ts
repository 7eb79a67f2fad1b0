import { randomBytes } from 'node:crypto';
import sql from 'sql-template-tag';
import type { JournalEntry } from '../../src/sandbox/ledger.js';
import type { TestServer } from './server.js';
import { connect, createTenant, credential, registerApp, type RegisteredApp } from './story.js';

type Server = Pick<TestServer, 'data' | 'db' | 'sandbox' | 'url' | 'graphql' | 'adminKey' | 'logs' | 'close'>;

/** One user connection, ready to be read. */
export interface Connection {
  app: RegisteredApp;
  tenantId: string;
  userId: string;
  zoomUserId: string;
  /** As the database knows it, and as the API does. */
  rowId: string;
  id: string;
  /** The input that asks for its credential. */
  input: { tenantId: string; credentialFor: 'USER'; userId: string };
}

/** Connects a new user of the sandbox, in a new tenant and to a new app unless told. */
export async function connectUser(
  server: Server,
  given: { app?: RegisteredApp; tenantId?: string; userId?: string; zoomUserId?: string } = {},
): Promise<Connection> {
  const app = given.app ?? (await registerApp(server, 'USER_MANAGED'));
  const tenantId = given.tenantId ?? (await createTenant(server));
  const userId = given.userId ?? 'user_1';
  const zoomUserId = given.zoomUserId ?? createZoomUser(server);
  const session = await connect(server, 'beginAuthorization', { tenantId, userId, appId: app.id }, zoomUserId);
  if (session.status !== 'COMPLETED') throw new Error(`Not connected: ${session.failure}`);
  const [grant] = await server.db.query<{ id: string }>(sql`
    SELECT g.id FROM provider_grant g JOIN tenant t ON t.id = g.tenant_id JOIN provider_app a ON a.id = g.app_id
    WHERE t.external_id = ${tenantId} AND g.external_user_id = ${userId} AND a.client_id = ${app.clientId}`);
  const rowId = grant?.id ?? '';
  const id = Buffer.from(`UserConnection:${rowId}`).toString('base64url');
  return { app, tenantId, userId, zoomUserId, rowId, id, input: { tenantId, credentialFor: 'USER', userId } };
}

export const createZoomUser = (server: Server): string => {
  const name = randomBytes(5).toString('hex');
  return server.sandbox.control.createUser({ email: `${name}@acme.example`, displayName: name }).id;
};

/** The stored access token ran out a second ago. */
export async function expire(server: Server, ...connections: Pick<Connection, 'rowId'>[]): Promise<void> {
  await age(server, -1, ...connections);
}

/** The stored access token has so many seconds left, of the life it had. */
export async function age(
  server: Server,
  secondsLeft: number,
  ...connections: Pick<Connection, 'rowId'>[]
): Promise<void> {
  await server.db.query(sql`
    UPDATE credential SET issued_at = issued_at - (expires_at - now()) + make_interval(secs => ${secondsLeft}),
      expires_at = now() + make_interval(secs => ${secondsLeft})
    WHERE grant_id = ANY(${connections.map(({ rowId }) => rowId)}::uuid[])`);
}

/** The scheduler may take the connections up now. */
export async function makeDue(server: Server, ...connections: Pick<Connection, 'rowId'>[]): Promise<void> {
  await server.db.query(sql`
    UPDATE credential SET next_refresh_at = now()
    WHERE grant_id = ANY(${connections.map(({ rowId }) => rowId)}::uuid[])`);
}

/** The waiting time after a failed attempt is over, and so is the wait that settles a doubt. */
export async function endWait(server: Server, ...connections: Pick<Connection, 'rowId'>[]): Promise<void> {
  await server.db.query(sql`
    UPDATE credential SET retry_at = NULL, lease_until = lease_until - interval '1 hour'
    WHERE grant_id = ANY(${connections.map(({ rowId }) => rowId)}::uuid[])`);
}

export interface StoredCredential {
  version: number;
  state: 'IDLE' | 'REFRESHING' | 'IN_DOUBT';
  fence: number;
  failures: number;
  failureReason: string | null;
  nextRefreshAt: Date | null;
}

/** What is stored about the credential; undefined where it is gone. */
export async function stored(
  server: Server,
  { rowId }: Pick<Connection, 'rowId'>,
): Promise<StoredCredential | undefined> {
  const [row] = await server.db.query<StoredCredential>(sql`
    SELECT version, refresh_state AS state, fence, failures, failure_reason AS "failureReason",
      next_refresh_at AS "nextRefreshAt"
    FROM credential WHERE grant_id = ${rowId}::uuid`);
  return row;
}

export async function health(server: Server, { rowId }: Pick<Connection, 'rowId'>): Promise<string | undefined> {
  const [row] = await server.db.query<{ health: string }>(sql`
    SELECT health_status || ' ' || health_reason AS health FROM provider_grant WHERE id = ${rowId}::uuid`);
  return row?.health;
}

/** The reasons of the connection's health events, oldest first. */
export async function events(server: Server, { rowId }: Pick<Connection, 'rowId'>): Promise<string[]> {
  const rows = await server.db.query<{ reason: string }>(sql`
    SELECT reason FROM health_event WHERE grant_id = ${rowId}::uuid ORDER BY sequence`);
  return rows.map(({ reason }) => reason);
}

/** The app's requests at the sandbox: refreshes unless told. */
export function calls(
  server: Pick<Server, 'sandbox'>,
  { app }: Pick<Connection, 'app'>,
  route: 'refresh' | 'revoke' | 'users' = 'refresh',
): JournalEntry[] {
  return server.sandbox.control
    .journal()
    .filter((entry) => entry.clientId === app.clientId)
    .filter((entry) => (route === 'refresh' ? entry.grantType === 'refresh_token' : entry.route === route));
}

/** The sandbox meets the app's next refreshes with a fault. */
export function spoilRefresh(
  server: Pick<Server, 'sandbox'>,
  { app }: Pick<Connection, 'app'>,
  fault: Parameters<Server['sandbox']['control']['addFault']>[0]['fault'],
  times = 1,
): void {
  server.sandbox.control.addFault({ route: 'token', clientId: app.clientId, grantType: 'refresh_token', times, fault });
}

/** What Zoom says when the connection's token is used. */
export async function meStatus(answer: { apiUrl: string; accessToken: string }): Promise<number> {
  const me = await fetch(`${answer.apiUrl}/v2/users/me`, {
    headers: { authorization: `Bearer ${answer.accessToken}` },
  });
  return me.status;
}

/** Reads the connection's credential. */
export const read = (server: Server, { input }: Pick<Connection, 'input'>, more: Record<string, unknown> = {}) =>
  credential(server, { ...input, ...more });

/** `refreshGrant` or `checkGrant`, by API. */
export async function ask(server: Server, field: 'refreshGrant' | 'checkGrant', { id }: Pick<Connection, 'id'>) {
  const type = `${field.charAt(0).toUpperCase()}${field.slice(1)}`;
  const data = await server.data(
    `mutation ($input: ${type}Input!) {
      ${field}(input: $input) {
        __typename
        ... on ${type}Success { grant { health { status reason } credentialInfo { version } } }
        ... on ProviderUnavailableError { reason retryAfterSeconds }
        ... on ReauthorizationRequiredError { reason }
      }
    }`,
    { input: { id } },
  );
  return data[field];
}

/** Ends the connection on our side. @returns its health. */
export async function disconnect(
  server: Server,
  { id }: Pick<Connection, 'id'>,
): Promise<{ status: string; reason: string }> {
  const { revokeUserConnection } = await server.data(
    `mutation ($input: RevokeUserConnectionInput!) {
      revokeUserConnection(input: $input) {
        ... on RevokeUserConnectionSuccess { userConnection { health { status reason } credentialInfo { version } } }
        ... on Error { message }
      }
    }`,
    { input: { id } },
  );
  return revokeUserConnection.userConnection?.health ?? revokeUserConnection;
}
