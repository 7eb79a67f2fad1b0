import type { GraphQLClient, Outcome, Subscription } from './graphql-client.js';
import { expectEqual, UnexpectedError } from './report.js';
import type { ZoomMarketplace, ZoomUser } from './zoom-marketplace.js';

/** Origin of the pretended product. Nothing listens there, and nobody is sent on to it. */
export const PRODUCT = 'https://product.example';

/** What the demo talks to, and the names of this run. */
export interface Stage {
  url: string;
  sandboxUrl: string;
  latchkey: GraphQLClient;
  zoom: ZoomMarketplace;
  /** A part of every name that is made, so that the demo can run again and again. */
  runId: string;
}

/** An app on both sides: at the sandbox and at Latchkey. */
export interface RegisteredApp {
  id: string;
  clientId: string;
  redirectUri: string;
}

/** The people of one Zoom account who play along. */
export interface Cast {
  admin: ZoomUser;
  ben: ZoomUser;
  cleo: ZoomUser;
}

/** What the connect steps work with. */
export interface Props {
  cast: Cast;
  adminApp: RegisteredApp;
  userApp: RegisteredApp;
  tenantId: string;
  alerts: Subscription<{ healthChanged: Alert }>;
}

export interface Alert {
  cursor: string;
  previous: string | null;
  current: string;
  reason: string;
  grant: { __typename: string; id: string } | null;
}

export const ALERT_FIELDS = 'cursor previous current reason grant { __typename id }';

/** What `credential` answers. */
export type CredentialAnswer = Outcome<{
  accessToken: string;
  expiresAt: string;
  apiUrl: string;
  version: number;
  warning: string | null;
  grant: { credentialInfo: { lastRefreshedAt: string | null } | null };
  reason: string;
  missingScopes: string[];
}>;

/** Asks for a credential as a backend does. */
export async function readCredential(stage: Stage, input: Record<string, unknown>): Promise<CredentialAnswer> {
  const { credential } = await stage.latchkey.run<{ credential: CredentialAnswer }>(
    `query ($input: CredentialInput!) {
      credential(input: $input) {
        __typename
        ... on Credential { accessToken expiresAt apiUrl version warning grant { credentialInfo { lastRefreshedAt } } }
        ... on ReauthorizationRequiredError { reason }
        ... on MissingScopesError { missingScopes }
        ... on Error { message }
      }
    }`,
    { input },
  );
  return credential;
}

/** The fields of an outcome that had to be a success. @throws {UnexpectedError} with the error's type and message. */
export function expectType<Fields>(what: string, outcome: Outcome<Fields>, type: string): Outcome<Fields> & Fields {
  if (outcome.__typename !== type) {
    const { __typename, message } = outcome;
    throw new UnexpectedError(what, type, message === undefined ? __typename : `${__typename} (${message})`);
  }
  return outcome as Outcome<Fields> & Fields;
}

/** Asks Zoom's REST API who the token speaks for. */
export async function callZoom({
  apiUrl,
  accessToken,
}: {
  apiUrl: string;
  accessToken: string;
}): Promise<{ status: number; userId: string | null }> {
  const response = await fetch(`${apiUrl}/v2/users/me`, {
    headers: { authorization: `Bearer ${accessToken}` },
    signal: AbortSignal.timeout(10_000),
  });
  const body = (await response.json()) as { id?: string };
  return { status: response.status, userId: body.id ?? null };
}

/** Shows that Zoom takes the token, and for whom. */
export async function expectZoomAccepts(token: { apiUrl: string; accessToken: string }, user: ZoomUser): Promise<void> {
  const { status, userId } = await callZoom(token);
  expectEqual('status of GET /v2/users/me', status, 200);
  expectEqual('the Zoom user whom the token speaks for', userId, user.id);
}

/** The alert about a connection, with how long it took since `since` (of `performance.now()`). */
export async function expectAlert(
  { alerts }: Pick<Props, 'alerts'>,
  grantId: string,
  wanted: { current: string; reason: string; since: number },
): Promise<string> {
  const { current, reason, since } = wanted;
  const what = `the alert ${current} (${reason})`;
  const { healthChanged } = await alerts.inbox.find(
    what,
    ({ healthChanged: alert }) => alert.grant?.id === grantId && alert.reason === reason,
  );
  expectEqual('status in the alert', healthChanged.current, current);
  const tookMs = Math.round(performance.now() - since);
  return `alert: ${healthChanged.grant?.__typename} ${healthChanged.previous ?? '(new)'} → ${current}, ${reason}, after ${tookMs} ms`;
}
