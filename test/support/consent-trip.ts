import { request as httpRequest, type IncomingHttpHeaders } from 'node:http';
import sql from 'sql-template-tag';
import { expect } from 'vitest';
import type { JournalEntry } from '../../src/sandbox/ledger.js';
import type { TestServer } from './server.js';
import { begin, comeBack, consent, type RegisteredApp, type Trip } from './story.js';

/** What of a server the helpers of this file need. */
type Server = Pick<TestServer, 'data' | 'db' | 'sandbox'>;

/** The sandbox's journal of one app, by route. */
export const journalOf = (server: Server, app: RegisteredApp, route: string): JournalEntry[] =>
  server.sandbox.control.journal().filter((entry) => entry.clientId === app.clientId && entry.route === route);

/** How many token requests of the app reached the sandbox. */
export const tokenRequests = (server: Server, app: RegisteredApp): number => journalOf(server, app, 'token').length;

/** The session's id in the database; its start address carries it. */
export const rowIdOf = (trip: Trip): string => trip.startUrl.slice(trip.startUrl.lastIndexOf('/') + 1);

/** Lets the present step of a trip run out. */
export const expire = (server: Server, trip: Trip): Promise<unknown> =>
  server.db.query(sql`
    UPDATE authorization_session SET expires_at = now() - interval '1 second' WHERE id = ${rowIdOf(trip)}::uuid`);

/** Everything the database holds of a session, as text that can be compared. */
export async function rowOf(server: Server, trip: Trip): Promise<string> {
  const [row] = await server.db.query<{ text: string }>(sql`
    SELECT s::text AS text FROM authorization_session s WHERE id = ${rowIdOf(trip)}::uuid`);
  return row?.text ?? 'gone';
}

/** The session as the product sees it. */
export async function sessionOf(
  server: Server,
  trip: Trip,
): Promise<{ status: string; failure: string | null; grant: { id: string } | null }> {
  const { authorizationSession } = (await server.data(
    `query ($id: ID!) { authorizationSession(id: $id) { status failure grant { id } } }`,
    { id: trip.sessionId },
  )) as { authorizationSession: { status: string; failure: string | null; grant: { id: string } | null } };
  return authorizationSession;
}

/** How many grants, credentials and waiting revocations a tenant has. */
export async function storedOf(
  server: Server,
  tenantId: string,
): Promise<{ grants: number; credentials: number; revocations: number }> {
  const [row] = await server.db.query<{ grants: number; credentials: number; revocations: number }>(sql`
    SELECT (SELECT count(*) FROM provider_grant g WHERE g.tenant_id = t.id)::int AS grants,
      (SELECT count(*) FROM credential c JOIN provider_grant g ON g.id = c.grant_id WHERE g.tenant_id = t.id)::int
        AS credentials,
      (SELECT count(*) FROM provider_revocation r WHERE r.tenant_id = t.id)::int AS revocations
    FROM tenant t WHERE t.external_id = ${tenantId}`);
  if (row === undefined) throw new Error('There is no such tenant.');
  return row;
}

export const NOTHING_STORED = { grants: 0, credentials: 0, revocations: 0 };

/** The tenant's health events, oldest first. */
export async function healthEventsOf(
  server: Server,
  tenantId: string,
): Promise<{ reason: string; current: string; previous: string | null; grant: { id: string } | null }[]> {
  const { healthEvents } = (await server.data(
    `query ($tenantId: String!) {
      healthEvents(filter: { tenantId: $tenantId }) { edges { node { previous current reason grant { id } } } }
    }`,
    { tenantId },
  )) as {
    healthEvents: {
      edges: { node: { reason: string; current: string; previous: string | null; grant: { id: string } | null } }[];
    };
  };
  return healthEvents.edges.map(({ node }) => node);
}

/** What a begin mutation answers, as it is. */
export async function beginAnswer(
  server: Server,
  field: 'beginInstallation' | 'beginAuthorization',
  input: Record<string, unknown>,
): Promise<Record<string, unknown>> {
  const name = `${field.charAt(0).toUpperCase()}${field.slice(1)}`;
  const data = (await server.data(
    `mutation ($input: ${name}Input!) {
      ${field}(input: $input) {
        __typename
        ... on ${name}Success { authorizationSession { status } }
        ... on InvalidInputError { path }
        ... on LimitExceededError { retryAfterSeconds }
        ... on Error { message }
      }
    }`,
    { input },
  )) as Record<string, Record<string, unknown>>;
  return data[field] ?? {};
}

/** Goes on a trip as far as the product's page. */
export async function tripWithCode(
  server: TestServer,
  field: 'beginInstallation' | 'beginAuthorization',
  input: Record<string, unknown>,
  zoomUserId: string,
): Promise<{ trip: Trip; connectCode: string }> {
  const trip = await begin(server, field, input);
  const { connectCode } = await comeBack(trip, await consent(trip, zoomUserId));
  if (connectCode === null) throw new Error('The trip ended without a connect code.');
  return { trip, connectCode };
}

export interface RawAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  text: string;
}

/** One request exactly as told: `fetch` would not send another Host, and would tidy the path up. */
export function rawRequest(
  origin: string,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: string } = {},
): Promise<RawAnswer> {
  const { hostname, port } = new URL(origin);
  return new Promise((resolve, reject) => {
    const { method = 'GET', headers = {}, body } = options;
    const request = httpRequest({ hostname, port, path, method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on('data', (chunk: Buffer) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () =>
        resolve({
          status: response.statusCode ?? 0,
          headers: response.headers,
          text: Buffer.concat(chunks).toString('utf8'),
        }),
      );
    });
    request.on('error', reject);
    request.end(body);
  });
}

/** Fails unless the answer is our own refusal, which keeps nothing, sets nothing and says nothing of the request. */
export function expectRefusal(answer: { status: number; text: string; cookies: readonly string[] }): void {
  expect(answer.status).toBe(400);
  expect(answer.text).toContain('This link cannot be used');
  expect(answer.text).not.toContain('<script');
  expect(answer.cookies).toEqual([]);
}

/** A browser's answer in the form of `expectRefusal`. */
export const read = async (response: Response) => ({
  status: response.status,
  text: await response.text(),
  cookies: response.headers.getSetCookie(),
});
