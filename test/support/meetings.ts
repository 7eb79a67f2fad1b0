import sql from 'sql-template-tag';
import { createCandidateReader } from '../../src/domain/credential-reader.js';
import type { CredentialDeps } from '../../src/domain/credential.js';
import { reconcileMeetings } from '../../src/domain/meeting-reconciliation.js';
import type { JournalEntry } from '../../src/sandbox/ledger.js';
import { startWorkshop } from './refresher.js';
import type { TestServer } from './server.js';
import { connect, createTenant, registerApp, type RegisteredApp, sandboxUser } from './story.js';

export const HOST_SCOPES = [
  'user:read:user',
  'user:read:zak',
  'user:read:token',
  'meeting:read:meeting',
  'meeting:read:list_meetings',
  'meeting:read:local_recording_token',
];
export const ACCOUNT_SCOPES = HOST_SCOPES.map((scope) => `${scope}:admin`).concat('user:read:list_users:admin');

/** A server, and one more process on its database that lists meetings when it is told to. */
export async function startMeetingWorkshop() {
  const { server, createDeps, createRefresher } = await startWorkshop({ meetingListIntervalSeconds: 21_600 });
  const createWorker = (): CredentialDeps => {
    const deps = createDeps();
    return {
      ...deps,
      refresher: createRefresher(deps),
      candidates: createCandidateReader(deps.db),
      renewals: new Map(),
    };
  };
  return { server, createWorker };
}

/** All listings of the tenant may go on now, whatever was planned. */
export async function makeListingsDue(server: Pick<TestServer, 'db'>, tenantId: string): Promise<void> {
  await server.db.query(sql`
    UPDATE meeting_listing l SET due_at = now() FROM tenant t WHERE t.id = l.tenant_id AND t.external_id = ${tenantId}`);
  await endSpacing(server);
}

/** The time between two pages of an account is over, for a next page too, and what is due now is due although columns round up. */
export const endSpacing = async (server: Pick<TestServer, 'db'>): Promise<void> => {
  await server.db.query(sql`SELECT pg_sleep(0.002)::text`);
  await server.db.query(sql`
    UPDATE meeting_listing SET due_at = now() - interval '1 millisecond'
    WHERE page_token IS NOT NULL AND due_at < now() + interval '2 seconds'`);
  await server.db.query(sql`
    UPDATE provider_account a SET next_listing_at = now() - interval '1 millisecond'
    WHERE EXISTS (SELECT 1 FROM meeting_listing l WHERE l.environment = a.environment
      AND l.provider_account_id = a.account_id AND l.due_at <= now())`);
};

/** Reads page after page until nothing is due. @returns how many times something was. */
export async function reconcileAll(server: Pick<TestServer, 'db'>, worker: CredentialDeps): Promise<number> {
  let runs = 0;
  await endSpacing(server);
  while (await reconcileMeetings(worker)) {
    runs += 1;
    await endSpacing(server);
  }
  return runs;
}

/** Numbers that the directory has for a tenant, in order; `host` restricts to one host. */
export async function directory(server: Pick<TestServer, 'db'>, tenantId: string, host?: string): Promise<string[]> {
  const rows = await server.db.query<{ id: string }>(sql`
    SELECT DISTINCT m.meeting_id AS id FROM hosted_meeting m JOIN tenant t ON t.id = m.tenant_id
    WHERE t.external_id = ${tenantId} AND NOT m.is_gone AND (${host ?? null}::text IS NULL OR host_user_id = ${host ?? null})
    ORDER BY 1`);
  return rows.map(({ id }) => id);
}

export const numbers = (...meetings: { id: number }[]): string[] => meetings.map(({ id }) => String(id)).toSorted();

/** The app's requests at one of the sandbox's calls. */
export const requests = (server: Pick<TestServer, 'sandbox'>, app: RegisteredApp, route: string): JournalEntry[] =>
  server.sandbox.control.journal().filter((entry) => entry.clientId === app.clientId && entry.route === route);

/** An admin-managed app installed in an account of its own, whose people are `members`. */
export async function installForAccount(server: TestServer, given: { scopes?: string[]; tenantId?: string } = {}) {
  const { control } = server.sandbox;
  const account = control.createAccount({ name: 'Initech' });
  const person = (name: string, role: 'Admin' | 'Member') =>
    control.createUser({
      email: `${name}.${account.id}@initech.example`,
      displayName: name,
      accountId: account.id,
      role,
    });
  const admin = person('milton', 'Admin');
  const members = ['peter', 'samir', 'michael'].map((name) => person(name, 'Member'));
  const app = await registerApp(server, 'ADMIN_MANAGED', given.scopes ?? ACCOUNT_SCOPES);
  const tenantId = given.tenantId ?? (await createTenant(server));
  const session = await connect(server, 'beginInstallation', { tenantId, userId: 'admin_1', appId: app.id }, admin.id);
  if (session.status !== 'COMPLETED') throw new Error(`Not installed: ${session.failure}`);
  return { account, admin, members, app, tenantId, id: session.grant.id as string };
}

export const HOST_OF_MEETING = `query ($input: MeetingInput!) { hostOfMeeting(input: $input) { __typename id } }`;

export async function hostOf(
  server: TestServer,
  input: { meetingId: string; tenantId?: string },
): Promise<string | null> {
  return (await server.data(HOST_OF_MEETING, { input })).hostOfMeeting?.id ?? null;
}

export const memberOf = (server: TestServer) => sandboxUser(server, 'Member');
