import { createBrowser } from './browser.js';
import { expectEqual, UnexpectedError } from './report.js';
import { expectType, PRODUCT, type RegisteredApp, type Stage } from './stage.js';
import type { ZoomUser } from './zoom-marketplace.js';

/** Who goes through the consent screen, for which app. */
export interface Trip {
  field: 'beginInstallation' | 'beginAuthorization';
  app: RegisteredApp;
  tenantId: string;
  /** The product's own name for the person. */
  userId: string;
  /** Who they are at Zoom. */
  as: ZoomUser;
}

/** What the product's page is given at the end. */
export interface TripEnd {
  sessionId: string;
  connectCode: string | null;
  connectError: string | null;
}

/** What `completeAuthorization` answers, as far as it is of interest here. */
export interface CompletedSession {
  status: string;
  failure: string | null;
  grant: { __typename: string; id: string; health: { status: string }; grantedScopes: { name: string }[] } | null;
}

/** Begins a trip and plays the browser: start page, consent screen, callback, and back to the product. */
export async function takeTrip(stage: Stage, trip: Trip, decision: 'allow' | 'deny' = 'allow'): Promise<TripEnd> {
  const begun = await stage.latchkey.mutate<{ authorizationSession: { id: string; startUrl: string; status: string } }>(
    trip.field,
    { tenantId: trip.tenantId, userId: trip.userId, appId: trip.app.id, returnTo: `${PRODUCT}/done` },
    'authorizationSession { id startUrl status }',
  );
  const type = trip.field === 'beginInstallation' ? 'BeginInstallationSuccess' : 'BeginAuthorizationSuccess';
  const { id: sessionId, startUrl, status } = expectType(trip.field, begun, type).authorizationSession;
  expectEqual('status of the new session', status, 'PENDING');

  const browser = createBrowser();
  const consent = await follow(browser.open(startUrl), 'the start page');
  expectEqual('where the start page sends the browser', consent.origin, new URL(stage.sandboxUrl).origin);
  expectEqual('code_challenge_method', consent.searchParams.get('code_challenge_method'), 'S256');
  // In place of a person who picks a user on the page and presses a button.
  consent.searchParams.set('sandbox_user', trip.as.id);
  consent.searchParams.set('sandbox_decision', decision);
  const callback = await follow(browser.open(consent.href), 'the consent screen');
  expectEqual(
    'where the consent screen sends the browser',
    `${callback.origin}${callback.pathname}`,
    trip.app.redirectUri,
  );
  const { origin, searchParams } = await follow(browser.open(callback.href), 'the callback');
  expectEqual('where the callback sends the browser', origin, PRODUCT);
  return {
    sessionId,
    connectCode: searchParams.get('connectCode'),
    connectError: searchParams.get('connectError'),
  };
}

/** What came back holds codes and states, so only the status is told. */
async function follow(opened: Promise<{ status: number; location: URL | null }>, what: string): Promise<URL> {
  const { status, location } = await opened;
  if (location === null) throw new UnexpectedError(what, 'a redirect', `HTTP ${status}`);
  return location;
}

/** Redeems the connect code as the product's backend, for the user who is signed in. */
export function completeTrip(stage: Stage, { connectCode }: TripEnd, userId: string) {
  return stage.latchkey.mutate<{ authorizationSession: CompletedSession }>(
    'completeAuthorization',
    { connectCode: connectCode ?? '', userId },
    `authorizationSession {
      status failure grant { __typename id health { status } grantedScopes { name } }
    }`,
  );
}

/** The whole trip of somebody who allows. @returns the connection. */
export async function connect(
  stage: Stage,
  trip: Trip,
): Promise<NonNullable<CompletedSession['grant']> & { end: TripEnd }> {
  const end = await takeTrip(stage, trip);
  expectEqual('connectError', end.connectError, null);
  const completed = expectType(
    'completeAuthorization',
    await completeTrip(stage, end, trip.userId),
    'CompleteAuthorizationSuccess',
  );
  const { status, failure, grant } = completed.authorizationSession;
  expectEqual('status of the session', failure === null ? status : `${status} (${failure})`, 'COMPLETED');
  if (grant === null) throw new UnexpectedError('the session', 'a grant', null);
  expectEqual(
    'kind of grant',
    grant.__typename,
    trip.field === 'beginInstallation' ? 'Installation' : 'UserConnection',
  );
  expectEqual('health of the new connection', grant.health.status, 'HEALTHY');
  return { ...grant, end };
}
